"""One heat map of some images, and what several figures of it share: each is computed when a figure first asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.cam.facts import FACTS
from stages.finite import finite_rows
from stages.stats.ranks import Ranking, ranking

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Masks:
    """The target's masks.

    Attributes
    ----------
    share : float64 [n, N]
        Share of each cell under the mask; NaN without a mask.
    centre : int [n, N]
        1 where a cell's centre lies in the mask, 0 where not, -1 without a mask.
    """

    share: Float
    centre: NDArray[np.integer]


@dataclass(frozen=True)
class Heat:
    """One map of n images on a grid of N = H x W cells.

    Parameters
    ----------
    values : float32 or float64 [n, H, W]
        Raw and signed. A map is finite, or NaN in all its cells.
    kind : {"statistic", "gradient"}
    facts : float [n, fact]
        As `stages.cam.facts` lists them.
    ring : int [H, W]
        Ring of each cell, 0 outside of all rings.
    low_contrast_below, top_share : float
        As in StatsSettings.
    masks : Masks, optional
        Frame: the photo's.
    on_photo : float [n, H, W], optional
        The map in the photo's frame, NaN where the network read nothing. Default: `values`.
    is_exact : bool
        Whether the cells add up to the score less its constant.
    exact : float [n, H, W], optional
        The exact map of the same score at the same position, which deletion is measured with.
    """

    values: NDArray[np.floating]
    kind: str
    facts: NDArray[np.floating]
    ring: NDArray[np.integer]
    low_contrast_below: float
    top_share: float
    masks: Masks | None = None
    on_photo: NDArray[np.floating] | None = None
    is_exact: bool = False
    exact: NDArray[np.floating] | None = None

    @cached_property
    def defined(self) -> NDArray[np.bool_]:
        """Which maps are finite, [n]."""
        return finite_rows(self.values)

    @cached_property
    def flat(self) -> NDArray[np.floating]:
        """The maps as they are stored, [n, N]; zeros where undefined."""
        cells = self.values.reshape(len(self.values), -1)
        return cells if self.defined.all() else np.where(self.defined[:, None], cells, cells.dtype.type(0))

    @cached_property
    def raw(self) -> Float:
        """The same in float64."""
        return self.flat.astype(np.float64)

    @cached_property
    def drawn(self) -> Float:
        """The maps as pictures draw them, [n, N]: gradient maps ReLU'd, statistics from their coldest cell."""
        return np.maximum(self.raw, 0) if self.kind == "gradient" else self.raw - self.raw.min(axis=1, keepdims=True)

    @cached_property
    def total(self) -> Float:
        """Sum of the heat that is drawn, [n]."""
        return np.asarray(self.drawn.sum(axis=1))

    @cached_property
    def no_heat(self) -> NDArray[np.bool_]:
        """Which maps have no heat to draw, [n]: gradient maps without a positive cell, and constant statistics."""
        return ~(self.total > 0)

    @cached_property
    def is_zero(self) -> NDArray[np.bool_]:
        """Which gradient maps have no positive heat, and which statistics are 0 everywhere, [n]."""
        return self.no_heat if self.kind == "gradient" else ~np.asarray(self.raw.any(axis=1))

    @cached_property
    def ranking(self) -> Ranking:
        """The cells in order; undefined maps count as constant."""
        return ranking(self.flat)

    @cached_property
    def variation(self) -> Float:
        """Standard deviation over |mean| of the cells, [n]: of the raw map for statistics, of the ReLU'd one for gradient methods."""
        cells = self.raw if self.kind == "statistic" else self.drawn
        mean = cells.mean(axis=1)
        centred = cells - mean[:, None]
        found = np.sqrt(np.einsum("ij,ij->i", centred, centred) / cells.shape[1]) / positive(np.abs(mean))
        return self.blank(found, self.is_zero)

    @cached_property
    def inside(self) -> tuple[NDArray[np.bool_], Float]:
        """In the photo's frame: which images have a map and a mask, [n]; and their heat as drawn, [n, N], zeros where the network read nothing."""
        assert self.masks is not None
        on_photo = self.values if self.on_photo is None else self.on_photo
        cells = on_photo.reshape(len(on_photo), -1).astype(np.float64)
        known = np.asarray(np.isfinite(self.masks.share).all(axis=1) & ~np.isnan(cells).all(axis=1) & ~np.isinf(cells).any(axis=1))
        read = known[:, None] & np.isfinite(cells)
        coldest = 0.0 if self.kind == "gradient" else np.where(read, cells, np.inf).min(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):  # of images without a map
            return known, np.where(read, np.maximum(cells - coldest, 0), 0)

    @cached_property
    def hottest(self) -> Float:
        """Share that each cell has of the hottest point, in the photo's frame, [n, N]: cells that tie share it; zeros of a map without heat."""
        cells = self.inside[1]
        found = (cells == cells.max(axis=1, keepdims=True)) & (cells > 0)
        return found / positive(found.sum(axis=1))[:, None]

    @cached_property
    def shares(self) -> Float:
        """Share that each cell has of the heat, in the photo's frame, [n, N]; zeros of a map without heat."""
        return np.asarray(self.inside[1] / positive(self.inside[1].sum(axis=1))[:, None])

    def fact(self, name: str) -> NDArray[np.floating]:
        """One of the facts, [n]."""
        found: NDArray[np.floating] = self.facts[:, FACTS.index(name)]
        return found

    def blank(self, values: NDArray, also: NDArray[np.bool_] | None = None) -> Float:
        """NaN in the place of undefined maps, and of those that `also` [n] names."""
        undefined = ~self.defined if also is None else ~self.defined | also
        return np.where(undefined.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values)


def positive(value: Float) -> Float:
    """Divide by this: 1 in place of 0, where the dividend is 0 as well."""
    return np.where(value > 0, value, 1.0)
