"""Differences between checkpoints, paired by the draws of the bootstrap, and corrected for how many are looked at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def p_values(differences: NDArray[np.floating]) -> Float:
    """Two-sided bootstrap p-values of differences over the draws [..., draw], [...]: twice the smaller share of the draws on either side of 0.

    Davison and Hinkley 1997, section 4.4, with 1 added to both counts, so that no p-value is 0. NaN where a difference is.
    """
    draws = differences.shape[-1]
    beyond = np.minimum((differences <= 0).sum(axis=-1), (differences >= 0).sum(axis=-1))
    found = np.minimum(1, 2 * (beyond + 1) / (draws + 1))
    return np.where(np.isnan(differences).any(axis=-1), np.nan, found)


def holm(p: Float) -> Float:
    """Holm's step-down correction of a family of p-values [family]; NaN is no member. Holm 1979, Scandinavian Journal of Statistics 6:65."""
    order = np.argsort(p, kind="stable")
    count = int(np.isfinite(p).sum())
    stepped = np.maximum.accumulate(p[order][:count] * np.arange(count, 0, -1))
    found = np.full(len(p), np.nan)
    found[order[:count]] = np.minimum(1, stepped)
    return found


def not_told_from(draws: NDArray[np.floating], chosen: int, level: float) -> list[int]:
    """Number the rows of draws [row, draw] whose difference from the chosen one is not significant at a level, Holm-corrected over all others."""
    others = [number for number in range(len(draws)) if number != chosen and np.isfinite(draws[number]).all()]
    corrected = holm(p_values(draws[chosen] - draws[others])) if others else np.empty(0)
    return [number for number, p in zip(others, corrected, strict=True) if not p <= level]
