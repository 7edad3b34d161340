"""How the figures of the images of a group become one figure of the group. NaN counts as no figure, and is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Reduction:
    """A row of a figure's reductions.

    Parameters
    ----------
    name : str
        Of what it gives; empty: the figure's own.
    function : callable
        (values [n, ...] of the images of a group, sizes of the dims) -> [...], and the added dim behind.
    adds : str
        Dim that it adds, if any.
    """

    name: str
    function: Callable[[Float, Mapping[str, int]], Float]
    adds: str = ""


def mean(values: Float, sizes: Mapping[str, int]) -> Float:
    """Mean over the images that have the figure; NaN where none has."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0, dtype=np.float64)
    return np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)


def deviation(values: Float, sizes: Mapping[str, int]) -> Float:
    """Standard deviation over the images that have the figure; NaN where none has."""
    centred = values - mean(values, sizes)
    return np.sqrt(mean(centred**2, sizes))


def lowest(values: Float, sizes: Mapping[str, int]) -> Float:
    """The value that 1 % of the images do not reach."""
    return _quantile(values, 0.01)


def highest(values: Float, sizes: Mapping[str, int]) -> Float:
    """The value that 1 % of the images exceed."""
    return _quantile(values, 0.99)


def lower_quartile(values: Float, sizes: Mapping[str, int]) -> Float:
    """The value that a quarter of the images do not reach."""
    return _quantile(values, 0.25)


def median(values: Float, sizes: Mapping[str, int]) -> Float:
    """The value that half of the images do not reach."""
    return _quantile(values, 0.5)


def upper_quartile(values: Float, sizes: Mapping[str, int]) -> Float:
    """The value that a quarter of the images exceed."""
    return _quantile(values, 0.75)


def status_share(values: Float, sizes: Mapping[str, int]) -> Float:
    """Share of the images of each status; the dim is added behind."""
    return mean((values[..., None] == np.arange(sizes["status"])).astype(np.float64), sizes)


def ring_count(values: Float, sizes: Mapping[str, int]) -> Float:
    """How many images have each half-width, 1 first; the dim is added behind."""
    return np.asarray((values[..., None] == np.arange(1, sizes["ring"] + 1)).sum(axis=0, dtype=np.float64))


def _quantile(values: Float, share: float) -> Float:
    known = values[np.isfinite(values)]
    return np.asarray(np.quantile(known.astype(np.float64), share) if len(known) else np.nan)
