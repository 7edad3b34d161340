"""Figures of what changes between two checkpoints, an image: of a map, and of FPM's boundaries."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.cam.map_keys import MapKey
from stages.finite import finite_rows
from stages.schema import Arrays
from stages.stats.heat import Float, Heat, positive
from stages.stats.ranks import Ranking, correlation, ranking


class RankedMaps:
    """The maps [n, H, W] of some images of one checkpoint, raw and signed, with the order of their cells.

    `cells` is float64 [n, N], with zeros in the place of undefined maps; `defined` is bool [n]; `length` is Euclidean, float64 [n].
    """

    def __init__(self, cells: Float, defined: NDArray[np.bool_], order: Ranking) -> None:
        self.cells, self.defined, self.ranking = cells, defined, order
        self.length = _length(cells)

    @cached_property
    def centred(self) -> Float:
        """The cells less their mean, [n, N]; zeros of a constant map."""
        lowest = self.cells.min(axis=1, keepdims=True)  # taken off first, so that equal cells give zeros
        above = self.cells - lowest
        return np.asarray(above - above.mean(axis=1, keepdims=True))

    @cached_property
    def centred_length(self) -> Float:
        """Their Euclidean length, [n]."""
        return _length(self.centred)

    @classmethod
    def of(cls, maps: NDArray[np.floating]) -> RankedMaps:
        """Rank the cells."""
        defined = finite_rows(maps)
        flat = np.where(defined[:, None, None], maps, maps.dtype.type(0)).reshape(len(maps), -1)
        return cls(flat.astype(np.float64), defined, ranking(flat))


def _length(cells: Float) -> Float:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", cells, cells)))


def ranked(heats: Mapping[MapKey, Heat]) -> dict[MapKey, RankedMaps]:
    """Return maps as drift takes them; what other figures have ranked is not ranked again."""
    return {key: RankedMaps(heat.raw, heat.defined, heat.ranking) for key, heat in heats.items()}


def cosine(before: RankedMaps, after: RankedMaps, overlap_share: float) -> Float:
    """Cosine between the two maps; NaN where one is zero everywhere."""
    length = before.length * after.length
    product = np.einsum("ij,ij->i", before.cells, after.cells)
    return _where_both(before, after, np.where(length > 0, product / positive(length), np.nan))


def pearson(before: RankedMaps, after: RankedMaps, overlap_share: float) -> Float:
    """Correlation of the two maps, cell by cell; NaN for a constant map.

    A map without a target lies far from zero, so that its cosine with any other is near 1.
    """
    length = before.centred_length * after.centred_length
    product = np.einsum("ij,ij->i", before.centred, after.centred)
    return _where_both(before, after, np.where(length > 0, product / positive(length), np.nan))


def spearman(before: RankedMaps, after: RankedMaps, overlap_share: float) -> Float:
    """Spearman's rank correlation of the two maps; equal cells take their mean rank. NaN for a constant map."""
    return _where_both(before, after, correlation(before.ranking, after.ranking))


def overlap(before: RankedMaps, after: RankedMaps, overlap_share: float) -> Float:
    """Share of the hottest cells of one map that are the hottest of the other: `stats.overlap_share` of all cells."""
    cells = max(1, round(overlap_share * after.cells.shape[1]))
    common = (before.ranking.hottest(cells) & after.ranking.hottest(cells)).sum(axis=1)
    return _where_both(before, after, common / cells)


def _where_both(before: RankedMaps, after: RankedMaps, values: NDArray) -> Float:
    return np.where(before.defined & after.defined, values, np.nan)


def boundary_changed(before: Arrays, after: Arrays) -> Float:
    """Whether FPM cuts an image elsewhere, float64 [n]: 1 or 0.

    Parameters
    ----------
    before, after : mapping
        `boundary` int [n, P] and `saliency` float [n, R] of the same images. NaN where a saliency is not finite: a boundary that it cut is none.
    """
    changed = (before["boundary"] != after["boundary"]).any(axis=1)
    return np.where(finite_rows(before["saliency"]) & finite_rows(after["saliency"]), changed, np.nan)
