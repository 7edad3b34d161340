"""Sums of heat maps over groups of images, folded block by block; and what they say: mean maps, deviations, and how alike maps are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.finite import finite_rows

Float = NDArray[np.float64]


@dataclass(frozen=True)
class MapSums:
    """Sums over the defined maps of each group.

    Attributes
    ----------
    count : float64 [group, map]
    total, squares, units : float64 [group, map, y, x]
        Of the maps, of their squares, and of the maps less their mean and over their length.
    """

    count: Float
    total: Float
    squares: Float
    units: Float

    @classmethod
    def of(cls, maps: Sequence[NDArray[np.floating]], group: NDArray[np.integer], groups: int) -> MapSums:
        """Sum the maps [n, y, x] of some images; `group` [n] is -1 for images that are in none."""
        sums = [_sums(some, group, groups) for some in maps]
        count, *cells = (np.stack(values, axis=1) for values in zip(*sums, strict=True))
        return cls(count, *(values.reshape(*values.shape[:2], *maps[0].shape[1:]) for values in cells))

    def __add__(self, other: MapSums) -> MapSums:
        return MapSums(self.count + other.count, self.total + other.total, self.squares + other.squares, self.units + other.units)

    def statistics(self) -> dict[str, Float]:
        """`defined` (number of defined maps), `map_mean`, `map_std`, and `alike`: the mean correlation of a map with the mean of the unit maps."""
        count = np.where(self.count > 0, self.count, np.nan)
        cells = count[:, :, None, None]
        mean = self.total / cells
        alike = np.sqrt(((self.units / cells) ** 2).sum(axis=(2, 3)))
        return {
            "map_mean": mean,
            "map_std": np.sqrt(np.maximum(self.squares / cells - mean**2, 0)),
            "alike": np.where(self.count > 1, alike, np.nan),
            "defined": self.count,
        }


def _sums(maps: NDArray[np.floating], group: NDArray[np.integer], groups: int) -> tuple[Float, Float, Float, Float]:
    defined = finite_rows(maps)
    cells = np.where(defined[:, None, None], maps, 0).reshape(len(maps), -1).astype(np.float64)
    member = ((group == np.arange(groups)[:, None]) & defined).astype(np.float64)
    centred = cells - cells.mean(axis=1, keepdims=True)
    length = np.sqrt(np.einsum("ij,ij->i", centred, centred))[:, None]
    return member.sum(axis=1), member @ cells, member @ cells**2, member @ (centred / np.where(length > 0, length, 1))
