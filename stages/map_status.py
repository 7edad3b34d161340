"""Figures kept beside every heat map: whether it can be drawn, its raw range, bad denominators, and the score that it explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

FACTS = ("status", "low", "high", "clipped", "score", "constant")


@dataclass(frozen=True)
class Status:
    """A row of STATUS: what a code of the fact `status` is called, and what it means."""

    name: str
    meaning: str


STATUS: Mapping[int, Status] = MappingProxyType(
    {
        0: Status("ok", "can be drawn"),
        1: Status("flat", "a class-free map whose coefficient of variation is so small that a stretched picture would show noise"),
        2: Status("zero", "a gradient map without positive heat, or a class-free map that is 0 everywhere"),
        3: Status("clipped", "some denominators of the method were not positive; the map is as the formula gives it"),
        4: Status("not finite", "a cell is NaN or infinite although the image and the target are there"),
        5: Status("absent", "the image is void, or has no such target: every cell is NaN"),
    }
)


def map_facts(
    maps: NDArray[np.floating],
    kind: str,
    flat_below: float,
    clipped: NDArray[np.floating] | None,
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
        Only a statistic can be flat: a gradient map is drawn from 0.
    flat_below : float
        Largest coefficient of variation, standard deviation over |mean|, of a flat map.
    clipped : [n], optional
        Share of the method's denominators that were not positive; None: it has none.
    score, constant : [n], optional
        The target's score as the network gave it, and at a map of zeros; None: a class-free map.
    absent : bool [n]

    Returns
    -------
    float32 [n, len(FACTS)]
        In the order of FACTS. Where several statuses apply: absent, not finite, zero, clipped, flat, ok, the first of them. NaN: not defined.
    """
    cells = maps.reshape(len(maps), -1)
    finite = np.isfinite(cells).all(axis=1)
    known = np.where(finite[:, None], cells, 0).astype(np.float64)
    low, high = known.min(axis=1), known.max(axis=1)
    empty = high <= 0 if kind == "gradient" else (low == 0) & (high == 0)
    flat = known.std(axis=1) < flat_below * np.abs(known.mean(axis=1)) if kind == "statistic" else np.zeros(len(maps), bool)
    bad = np.zeros(len(maps)) if clipped is None else clipped
    code = np.select([absent, ~finite, empty, bad > 0, flat], [5, 4, 2, 3, 1], 0)
    nothing = np.full(len(maps), np.nan)
    columns = [
        code,
        np.where(finite, low, np.nan),
        np.where(finite, high, np.nan),
        np.where(absent, np.nan, bad),
        nothing if score is None else score,
        nothing if constant is None else constant,
    ]
    return np.stack(columns, axis=1).astype(np.float32)
