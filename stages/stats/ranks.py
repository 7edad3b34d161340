"""Ranks of the cells of heat maps: one sort a map serves rank correlations, overlaps and deletion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
_INDEX_BITS = 32
_MOST_EXACT_CELLS = 369  # up to here, sums of products of centred ranks are whole multiples of 1/4 below 2**22, which float32 holds exactly


@dataclass(frozen=True)
class Ranking:
    """The cells of some maps in order.

    Attributes
    ----------
    place : int32 [n, N]
        How many cells are colder. Of equal cells the first in row-major order is the hottest.
    centred : float [n, N]
        Rank less the mean rank; equal cells share the mean of their ranks. float32 where its sums of products are exact, else float64.
    length : float64 [n]
        Euclidean length of `centred`; 0 where all cells are equal.
    """

    place: NDArray[np.int32]
    centred: NDArray[np.floating]
    length: Float

    def hottest(self, cells: int) -> NDArray[np.bool_]:
        """Which cells are the hottest so many, bool [n, N]."""
        return self.place >= self.place.shape[1] - cells


def ranking(values: NDArray[np.floating]) -> Ranking:
    """Rank the cells of each row of finite `values` [n, N].

    Notes
    -----
    Cells of float32 are sorted as integers: the bits of the value above, the cell's number below. This is stable, and takes half the time of an
    argsort.
    """
    count, cells = values.shape
    order, same = _coldest_first(values)
    by_order = np.broadcast_to(np.arange(cells, dtype=np.int32), (count, cells))
    place = _scattered(by_order, order)
    exact = np.float32 if cells <= _MOST_EXACT_CELLS else np.float64
    centred = (place - (cells - 1) / 2).astype(exact)
    if (tied := same.any(axis=1)).any():
        centred[tied] = _scattered(_mean_places(same[tied]) - (cells - 1) / 2, order[tied]).astype(exact)
    return Ranking(place, centred, np.sqrt(np.einsum("ij,ij->i", centred, centred).astype(np.float64)))


def correlation(one: Ranking, other: Ranking) -> Float:
    """Spearman's rank correlation row by row, float64 [n]; NaN where all cells of a row are equal."""
    product = np.einsum("ij,ij->i", one.centred, other.centred).astype(np.float64)
    length = one.length * other.length
    return np.where(length > 0, product / np.where(length > 0, length, 1), np.nan)


def correlations(rankings: list[Ranking]) -> Float:
    """Spearman's rank correlation between all pairs of q rankings of the same n samples, float64 [n, q, q]; NaN as in `correlation`."""
    centred = np.stack([one.centred for one in rankings], axis=1)
    length = np.stack([one.length for one in rankings], axis=1)
    product = np.matmul(centred, centred.swapaxes(1, 2)).astype(np.float64)
    lengths = length[:, :, None] * length[:, None, :]
    return np.where(lengths > 0, product / np.where(lengths > 0, lengths, 1), np.nan)


def _coldest_first(values: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Numbers of the cells from the coldest to the hottest [n, N], of equal ones the last first; and whether each next one is equal [n, N - 1]."""
    last = values.shape[1] - 1
    if values.dtype == np.float32:
        bits = (values + np.float32(0)).view(np.int32)  # -0 becomes 0
        key = (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).astype(np.int64) << _INDEX_BITS
        ordered = np.sort(key | np.arange(last, -1, -1), axis=1)
        high = ordered >> _INDEX_BITS
        return last - (ordered & (2**_INDEX_BITS - 1)), high[:, 1:] == high[:, :-1]
    order = last - np.argsort(values[:, ::-1], axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    return order, ordered[:, 1:] == ordered[:, :-1]


def _scattered(by_order: NDArray, order: NDArray[np.int64]) -> NDArray:
    """Undo an order, row by row; `np.put_along_axis` takes four times as long."""
    count, cells = order.shape
    found = np.empty((count, cells), by_order.dtype)
    found.ravel()[(order + (np.arange(count) * cells)[:, None]).ravel()] = by_order.ravel()
    return found


def _mean_places(same: NDArray[np.bool_]) -> Float:
    """Mean place of each run of equal cells, in order, [n, N]."""
    count, cells = len(same), same.shape[1] + 1
    numbers = np.arange(cells)
    edge = np.ones((count, 1), bool)
    first = np.maximum.accumulate(np.where(np.concatenate([edge, ~same], axis=1), numbers, 0), axis=1)
    ends = np.where(np.concatenate([~same, edge], axis=1), numbers, cells)
    last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((first + last) / 2)
