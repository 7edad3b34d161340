"""Deletion and insertion curves in token space: cells are set to zero in the order of a map, and the heads are asked again.

Ring boundaries are held fixed, as in every gradient here. Nothing is approximated: for an affine score the curve is a cumulative sum, for a cosine
or a probability the heads' outputs are cumulated and the score is taken of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.targets.part_heads import Exact, Float
from stages.targets.scores import Score


@dataclass(frozen=True)
class OrderedRemoval:
    """The first j cells of an order set to zero, j = 0 ... N, under mean pooling.

    Parameters
    ----------
    cells : float [B, N, K]
    weights : float [B, P, N]
        T_p.
    order : int [B, N]
        Cells in the order in which they go.
    """

    cells: Float
    weights: Float
    order: NDArray[np.integer]
    is_linear = True

    def through(self, sample: int, part: int, matrix: Exact) -> Exact:
        """The matrix times the sum of the cells that are gone, weighted, [N + 1, R]."""
        order = self.order[sample]
        each = self.weights[sample, part][order, None] * (self.cells[sample][order].astype(np.float64) @ matrix.T)
        return np.concatenate([np.zeros((1, each.shape[1])), each.cumsum(axis=0)])


def hottest_first(maps: Float) -> NDArray[np.intp]:
    """Cells of maps [B, ...] from the hottest to the coldest, [B, N]; of equal cells the first in row-major order."""
    return np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")


def deletion_curve(score: Score, cells: Float, weights: Float, maps: Float) -> Exact:
    """Score after the j hottest cells are set to zero, j = 0 ... N.

    Parameters
    ----------
    score : Score
        Of B samples.
    cells : float [B, N, K]
        Of the position that the maps lie at.
    weights : float [B, P, N]
        T_p there.
    maps : float [B, y, x]
        Whose order it is.

    Returns
    -------
    float64 [B, N + 1]
        NaN for samples that have no such target.
    """
    return score.without(OrderedRemoval(cells, weights, hottest_first(maps)))


def insertion_curve(score: Score, cells: Float, weights: Float, maps: Float) -> Exact:
    """Score when the j hottest cells are there and all others zero, j = 0 ... N; parameters as in `deletion_curve`."""
    return score.without(OrderedRemoval(cells, weights, hottest_first(maps)[:, ::-1]))[:, ::-1]


def area_under(curve: Exact) -> Exact:
    """Area under curves [..., N + 1] over the share of the cells, by the trapezoid rule (RISE, Petsiuk et al. 2018, arXiv:1806.07421), [...]."""
    return np.asarray((curve[..., 1:] + curve[..., :-1]).mean(axis=-1) / 2)
