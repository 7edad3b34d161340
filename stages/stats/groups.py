"""Groups of images, and the figures of a checkpoint as labelled arrays.

A group is a split and a view, such as "test drone", and the flight height where there are several: "test drone 150".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stages.cam.map_keys import MapKey
from stages.stats.modules import WARP_FIGURES
from stages.stats.trust import STATUS_NAMES


@dataclass(frozen=True)
class Groups:
    """The group of each sample: `name[index[i]]`, index -1 for samples without a valid image."""

    name: tuple[str, ...]
    index: NDArray[np.int64]

    @classmethod
    def of(cls, split: Sequence[str], view: Sequence[str], valid: Sequence[bool], variant: Sequence[str] | None = None) -> Groups:
        """Group samples by split and view, and by flight height where there are several; what all heights share has none in its name."""
        heights = variant if variant is not None else [""] * len(split)
        several = len({height for height, ok in zip(heights, valid, strict=True) if ok and height}) > 1
        labels = [f"{s} {v} {h}" if several and h else f"{s} {v}" for s, v, h in zip(split, view, heights, strict=True)]
        names = tuple(sorted({label for label, ok in zip(labels, valid, strict=True) if ok}))
        numbers = {name: number for number, name in enumerate(names)}
        index = [numbers[label] if ok else -1 for label, ok in zip(labels, valid, strict=True)]
        return cls(names, np.array(index, np.int64))

    @property
    def members(self) -> list[NDArray[np.intp]]:
        """Numbers of the samples of each group."""
        return [np.flatnonzero(self.index == number) for number in range(len(self.name))]

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Number of samples of each group."""
        return np.bincount(self.index[self.index >= 0], minlength=len(self.name))


def labelled(values: Mapping[str, tuple[tuple[str, ...], NDArray[Any]]], groups: Groups, map_keys: Sequence[MapKey]) -> xr.Dataset:
    """Name the groups, maps, statuses and figures of the warp along the dims of some arrays."""
    names = [map_key.key for map_key in map_keys]
    coords = {"group": list(groups.name), "product": names, "other": names, "status": STATUS_NAMES, "warp": list(WARP_FIGURES)}
    found = xr.Dataset(dict(values))
    return found.assign_coords({dim: (dim, np.array(value, dtype=object)) for dim, value in coords.items() if dim in found.dims})
