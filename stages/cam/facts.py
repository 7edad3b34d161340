"""Figures kept beside every heat map: whether it can be drawn, its raw range, bad denominators, the score that it explains, and its rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

FACTS = ("status", "low", "high", "clipped", "score", "constant", "rounding")  # new columns join at the end: old stores have the first ones


@dataclass(frozen=True)
class Status:
    """A row of STATUS: what a code of the fact `status` is called, and what it means."""

    name: str
    meaning: str


STATUS: Mapping[int, Status] = MappingProxyType(
    {
        0: Status("ok", "can be drawn"),
        1: Status("low contrast", "a class-free map whose cells differ by little; it may localise well, and its panel says so"),
        2: Status("zero", "a gradient map without positive heat, or a class-free map that is 0 everywhere"),
        3: Status("clipped", "some denominators of the method turn the map over or blow it up; the map is as the formula gives it"),
        4: Status("not finite", "a cell, or what the map is made of, is NaN or infinite although the image and the target are there"),
        5: Status("absent", "the image is void, or has no such target, or nothing to compare it with: every cell is NaN"),
        6: Status("constant", "a class-free map whose cells differ by no more than the rounding of the stored precision"),
    }
)


def map_facts(
    maps: NDArray[np.floating],
    kind: str,
    low_contrast_below: float,
    clipped: NDArray[np.floating] | None,
    rounding: NDArray[np.floating] | None,
    score: NDArray[np.floating] | None,
    constant: NDArray[np.floating] | None,
    absent: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Look at every map once.

    Parameters
    ----------
    maps : [n, h, w]
        Raw and signed.
    kind : {"statistic", "gradient"}
        Only a statistic can be constant or of low contrast: a gradient map is drawn from 0.
    low_contrast_below : float
        Coefficient of variation, standard deviation over |mean|, below which a map has low contrast.
    clipped : [n], optional
        Share of the method's denominators that are bad; None: it has none.
    rounding : [n], optional
        Standard deviation of a cell's value from the rounding of what it is made of, in the map's unit; None: not known.
    score, constant : [n], optional
        The target's score as the network gave it, and at a map of zeros; None: a class-free map.
    absent : bool [n]

    Returns
    -------
    float32 [n, len(FACTS)]
        In the order of FACTS. Where several statuses apply: absent, not finite, zero, constant, clipped, low contrast, ok, the first of them.
        NaN: not defined.
    """
    cells = maps.reshape(len(maps), -1)
    finite = np.isfinite(cells).all(axis=1)
    known = np.where(finite[:, None], cells, 0).astype(np.float64)
    low, high = known.min(axis=1), known.max(axis=1)
    nothing, no = np.full(len(maps), np.nan), np.zeros(len(maps), bool)
    noise = nothing if rounding is None else rounding
    bad = np.zeros(len(maps)) if clipped is None else clipped
    empty, constant_map, low_contrast = high <= 0, no, no
    if kind == "statistic":
        empty = (low == 0) & (high == 0)
        constant_map = within_rounding(low, high, noise, cells.shape[1])
        low_contrast = known.std(axis=1) < low_contrast_below * np.abs(known.mean(axis=1))
    code = np.select([absent, ~finite, empty, constant_map, bad > 0, low_contrast], [5, 4, 2, 6, 3, 1], 0)
    columns = [
        code,
        np.where(finite, low, np.nan),
        np.where(finite, high, np.nan),
        np.where(absent, np.nan, bad),
        nothing if score is None else score,
        nothing if constant is None else constant,
        np.where(finite, noise, np.nan),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def within_rounding(low: Any, high: Any, rounding: Any, cells: int) -> Any:
    """Whether a map's range is what rounding alone would give it.

    Parameters
    ----------
    low, high, rounding : float, or arrays of one shape
        Raw range, and standard deviation of a cell's value from rounding; where that is NaN, not known, only a range of 0 is within it.
    cells : int
        Of the map: the range of n independent normal values of standard deviation 1 is 2 sqrt(2 log n) at most, on average (Boucheron, Lugosi and
        Massart 2013, "Concentration inequalities", theorem 2.5).
    """
    return np.less_equal(high - low, 2 * math.sqrt(2 * math.log(max(cells, 2))) * np.nan_to_num(np.asarray(rounding, np.float64)))
