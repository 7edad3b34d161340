"""Differences between checkpoints, paired by the draws of the bootstrap over places, and simultaneous for all that are compared.

A checkpoint that is looked at because it is the best has been chosen by the same data. So all pairs of checkpoints are tested at once, by the largest
studentised difference of each draw: Westfall and Young 1993, "Resampling-Based Multiple Testing", section 2.5 (single-step max-T).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.stats.bootstrap import LEVEL, bounds, t_quantile, widening

Float = NDArray[np.float64]


def difference_bounds(one: NDArray[np.floating], other: NDArray[np.floating], places: int) -> Float:
    """Interval of a difference from the draws [draw] of both, [2]; NaN where there is none."""
    return bounds((one.astype(np.float64) - other)[:, None], places)[0]


def not_told_from(told: NDArray[np.floating], draws: NDArray[np.floating], chosen: int, places: int) -> list[int]:
    """Number the rows whose difference from the chosen one is not significant, with a family-wise error of 1 - LEVEL over all pairs of rows.

    Parameters
    ----------
    told : float [row]
        What the draws are draws of.
    draws : float [row, draw]
    chosen : int
        Of the rows; it may have been chosen by its value.
    places : int
        That the draws draw.
    """
    exact = draws.astype(np.float64)
    centred = exact - told[:, None]
    largest = np.zeros(draws.shape[1])
    for row in range(1, len(draws)):
        apart = centred[row] - centred[:row]
        spread = apart.std(axis=1)
        apart, spread = apart[spread > 0], spread[spread > 0]
        if len(apart):
            largest = np.maximum(largest, (np.abs(apart) / spread[:, None]).max(axis=0))
    critical = np.quantile(largest, LEVEL) * widening(places) * t_quantile(places) / t_quantile(10**9)
    spread = (exact[chosen] - exact).std(axis=1)
    return [row for row in range(len(draws)) if row != chosen and not abs(told[chosen] - told[row]) > critical * spread[row]]
