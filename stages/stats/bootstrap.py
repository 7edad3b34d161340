"""Intervals of means by the bootstrap over places: the photos of a place resemble each other, so places are drawn and not photos.

Cluster bootstrap: Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8. Percentiles are widened for few places as in
Hesterberg 2015, "What Teachers Should Know About the Bootstrap", arXiv:1411.5279 (expanded percentile interval).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95
_SEED = 0
_LACKING = 0.1  # share of the draws without a value from which there is no interval
_FEW_PLACES = 12
Float = NDArray[np.float64]


@dataclass(frozen=True)
class PlaceBootstrap:
    """How often each place is drawn, and which place each image shows.

    The draws depend on the names of the splits and the numbers of their places alone. So all figures of a run are means over the same draws, and
    differences between checkpoints and between groups are paired.

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
        sizes = Counter(str(name).partition("\n")[0] for name in names).items()  # in order, as the names are
        drawn = [np.random.default_rng([_SEED, size, crc32(of.encode())]).multinomial(size, np.full(size, 1 / size), DRAWS) for of, size in sizes]
        return cls(number, np.concatenate([np.empty((DRAWS, 0)), *drawn], axis=1))

    def sums(self, values: NDArray[np.floating], images: NDArray[np.intp]) -> PlaceSums:
        """Add up figures [n, C] of the images with these numbers [n], place by place; what is not finite is left out."""
        known = np.isfinite(values)
        order = np.argsort(self.place[images], kind="stable")
        there, starts = np.unique(self.place[images][order], return_index=True)
        found = np.zeros((2, self.drawn.shape[1], values.shape[1]))
        if len(there):
            found[:, there] = [
                np.add.reduceat(part[order], starts, axis=0) for part in (known.astype(np.float64), np.where(known, values, 0).astype(np.float64))
            ]
        return PlaceSums(*found)

    def means(self, sums: PlaceSums) -> Float:
        """Means over each draw, float64 [DRAWS, C]: NaN for a draw without the figure, and for a figure that fewer than two places have."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.matmul(self.drawn, sums.total) / np.matmul(self.drawn, sums.count)
        found[:, (sums.count > 0).sum(axis=0) < 2] = np.nan
        return found

    def interval(self, means: Float, images: NDArray[np.intp]) -> Float:
        """Bounds of the means of some images, as `bounds` tells them."""
        return bounds(means, len(np.unique(self.place[images])))


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


def bounds(values: Float, places: int) -> Float:
    """Bounds between which a figure lies with a confidence of LEVEL, low and high, from its values over the draws.

    Parameters
    ----------
    values : float64 [DRAWS, C]
    places : int
        That were drawn.

    Returns
    -------
    float64 [C, 2]
        Percentiles, a little farther out than LEVEL says, because drawn places vary less than places do; of fewer than a dozen places, whose mean
        percentiles cannot reach, the mean and Student's t times the spread of the draws. NaN of one place, and where a tenth of the draws have none.
    """
    lacking = np.isnan(values).mean(axis=0)
    found = np.full((2, values.shape[1]), np.nan)
    known = lacking < _LACKING
    if places < 2 or not known.any():
        return found.T
    if places < _FEW_PLACES:
        middle, half = np.nanmean(values[:, known], axis=0), t_quantile(places) * widening(places) * np.nanstd(values[:, known], axis=0)
        found[:, known] = middle - half, middle + half
        return found.T
    from scipy.special import ndtr  # a third of a second, which no command but `stats` waits for

    tail = float(ndtr(-widening(places) * t_quantile(places)))
    found[:, lacking == 0] = np.quantile(values[:, lacking == 0], (tail, 1 - tail), axis=0)
    some = known & (lacking > 0)
    found[:, some] = np.nanquantile(values[:, some], (tail, 1 - tail), axis=0) if some.any() else np.nan  # which is slow
    return found.T


def widening(places: int) -> float:
    """How much more the mean over places varies than over draws of them."""
    return float(np.sqrt(places / (places - 1)))


def t_quantile(places: int) -> float:
    """Student's t that is exceeded with half of what LEVEL leaves, either way."""
    from scipy.special import stdtrit

    return float(-stdtrit(places - 1, (1 - LEVEL) / 2))
