"""How far heat maps can be trusted: completeness, deletion in token space, and rank correlation.

Deletion and insertion here are of tokens, with ring boundaries held fixed. For a score that is affine in the map they need no network: what is left
after some cells are set to zero is the score less the sum of their HiResCAM cells, whatever map gave the order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.finite import finite_rows, whole_or_nothing
from stages.stats.ranks import correlation, ranking

Float = NDArray[np.float64]


def completeness_residual(hires: NDArray[np.floating], score: NDArray[np.floating], constant: NDArray[np.floating]) -> Float:
    """How far the cells of HiResCAM are from adding up to the score.

    Parameters
    ----------
    hires : [n, h, w]
        Raw and signed.
    score, constant : [n]
        The score as the network gave it, and at a map of zeros.

    Returns
    -------
    float64 [n]
        |sum of the cells - (score - constant)| over the sum of their magnitudes: a score near its constant has cells that cancel, and does not
        make the figure explode. NaN where undefined; 0 for a map of zeros that explains nothing.
    """
    cells = whole_or_nothing(hires).reshape(len(hires), -1).astype(np.float64)
    size = np.abs(cells).sum(axis=1)
    off = np.abs(cells.sum(axis=1) - (score.astype(np.float64) - constant))
    return np.where(size > 0, off / np.where(size > 0, size, 1), np.where(off == 0, 0.0, np.where(np.isnan(off), np.nan, np.inf)))


def deletion_area(place: NDArray[np.integer], hires: NDArray[np.floating]) -> Float:
    """Area under the curve of the score that is left while the hottest cells of a map are set to zero one by one; the smaller the better.

    Parameters
    ----------
    place : int [n, N]
        For each cell, how many cells of the map are colder: see `Ranking`. Of equal cells the first in row-major order goes first.
    hires : [n, H, W]
        HiResCAM of an affine score at the same position: its cells are their exact shares of the score.

    Returns
    -------
    float64 [n]
        By the trapezoid rule over the share of the cells that are gone, of the score less its constant over the sum of the magnitudes of the cells'
        shares: between -1 and 1. The score itself may be near zero, or negative; the magnitudes are not. NaN where the exact map is undefined or 0.

    Notes
    -----
    Petsiuk et al. 2018 (RISE), arXiv:1806.07421, section 4.2, delete pixels and look at a probability that the network gives anew; here tokens
    are deleted, behind the backbone, and the score is the logit or the cosine at a fixed norm. A cell with c colder cells is gone in c of the
    N steps and, by the trapezoid rule, half a step more, so that no curve need be drawn. No order does better than that of the exact map itself.
    """
    cells, size = _shares(hires)
    gone = np.einsum("ij,ij->i", cells, place + 0.5)
    return (cells.sum(axis=1) - gone / cells.shape[1]) / size


def score_in_magnitudes(hires: NDArray[np.floating]) -> Float:
    """Score less its constant over the sum of the magnitudes of the cells' shares [n, H, W], [n]: where curves of deletion begin. NaN as there.

    Insertion in the same order begins at 0 and ends here, and its area is this less that of deletion. Half of it is the area of a random order.
    """
    cells, size = _shares(hires)
    return cells.sum(axis=1) / size


def _shares(hires: NDArray[np.floating]) -> tuple[Float, Float]:
    """Cells [n, N], and the sum of their magnitudes [n], NaN for 0."""
    cells = whole_or_nothing(hires).reshape(len(hires), -1).astype(np.float64)
    size = np.abs(cells).sum(axis=1)
    return cells, np.where(size > 0, size, np.nan)


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> Float:
    """Spearman's rank correlation of maps [n, h, w] with maps of the same shape, [n]; NaN where a map is undefined or the same everywhere."""
    pair = [np.where(finite_rows(maps)[:, None, None], maps, maps.dtype.type(0)).reshape(len(maps), -1) for maps in (one, other)]
    return correlation(*map(ranking, pair))
