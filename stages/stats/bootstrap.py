"""Intervals of means by the bootstrap over places: the photos of a place resemble each other, so places are drawn and not photos.

Cluster bootstrap: Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8. Percentiles are widened for few places as in
Hesterberg 2015, "What Teachers Should Know About the Bootstrap", arXiv:1411.5279, section 4.1.1 (expanded percentile interval).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95
_SEED = 0
_LACKING = 0.1  # share of the draws without a value from which there is no interval
Float = NDArray[np.float64]


@dataclass(frozen=True)
class PlaceBootstrap:
    """How often each place is drawn, and which place each image shows.

    The draws depend on the numbers of places alone. So all figures of a run are means over the same draws, and differences between checkpoints and
    between groups are paired.

    Parameters
    ----------
    place : int [sample]
        Numbers of the places, counted from 0 over all splits: a place of two splits has two.
    drawn : float64 [DRAWS, place]
        How often each place is drawn. As many places of a split are drawn as it has.
    """

    place: NDArray[np.intp]
    drawn: Float

    @classmethod
    def of(cls, place: Sequence[str], split: Sequence[str]) -> PlaceBootstrap:
        """Of images with these places and splits."""
        names, number = np.unique(np.array([f"{of}\n{name}" for name, of in zip(place, split, strict=True)], dtype=str), return_inverse=True)
        sizes = Counter(str(name).partition("\n")[0] for name in names).values()  # in order, as the names are
        drawn = [np.random.default_rng([_SEED, size]).multinomial(size, np.full(size, 1 / size), DRAWS) for size in sizes]
        return cls(number, np.concatenate([np.empty((DRAWS, 0)), *drawn], axis=1))

    def sums(self, values: NDArray[np.floating], images: NDArray[np.intp]) -> PlaceSums:
        """Add up the figures of some images place by place: values float [n, C] of the images, NaN is left out; numbers of the images, int [n]."""
        known = ~np.isnan(values)
        order = np.argsort(self.place[images], kind="stable")
        there, starts = np.unique(self.place[images][order], return_index=True)
        found = np.zeros((2, self.drawn.shape[1], values.shape[1]))
        if len(there):
            found[:, there] = [np.add.reduceat(part[order], starts, axis=0) for part in (known.astype(np.float64), np.where(known, values, 0.0))]
        return PlaceSums(*found)

    def means(self, sums: PlaceSums) -> Float:
        """Means over each draw, float64 [DRAWS, C]: NaN for a draw without the figure, and for a figure that fewer than two places have."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.matmul(self.drawn, sums.total) / np.matmul(self.drawn, sums.count)
        found[:, (sums.count > 0).sum(axis=0) < 2] = np.nan
        return found

    def interval(self, means: Float, images: NDArray[np.intp]) -> Float:
        """Bounds between which the mean lies with a confidence of LEVEL, [C, 2], low and high, from its values over the draws [DRAWS, C]."""
        tail = _tail(len(np.unique(self.place[images])))
        return _quantiles(means, (tail, 1 - tail)).T


@dataclass(frozen=True)
class PlaceSums:
    """Figures of some images added up place by place.

    Attributes
    ----------
    count, total : float64 [place, C]
        How many images of a place have the figure, and the sum of it.
    """

    count: Float
    total: Float

    @classmethod
    def beside(cls, parts: Sequence[PlaceSums]) -> PlaceSums:
        """Put the figures of the same images side by side."""
        return cls(np.concatenate([part.count for part in parts], axis=1), np.concatenate([part.total for part in parts], axis=1))

    @property
    def mean(self) -> Float:
        """Over all images, [C]; NaN where none has the figure."""
        count = self.count.sum(axis=0)
        return np.where(count > 0, self.total.sum(axis=0) / np.where(count > 0, count, 1), np.nan)


def _tail(places: int) -> float:
    """Share of the draws beyond either bound: a little less than (1 - LEVEL) / 2, because places that are drawn vary less than places do."""
    from scipy.special import ndtr, stdtrit  # a third of a second, which no command but `stats` waits for

    return float(ndtr(np.sqrt(places / (places - 1)) * stdtrit(places - 1, (1 - LEVEL) / 2))) if places > 1 else (1 - LEVEL) / 2


def _quantiles(means: Float, shares: Sequence[float]) -> Float:
    """Quantiles over the draws, [share, C]; NaN where too many draws have no value."""
    lacking = np.isnan(means).mean(axis=0)
    found = np.full((len(shares), means.shape[1]), np.nan)
    found[:, lacking == 0] = np.quantile(means[:, lacking == 0], shares, axis=0)
    few = (lacking > 0) & (lacking < _LACKING)
    found[:, few] = np.nanquantile(means[:, few], shares, axis=0) if few.any() else np.nan  # which is slow
    return found
