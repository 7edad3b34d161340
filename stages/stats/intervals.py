"""Intervals of the means over groups of images, and of those over all test images in which views count alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.stats.bootstrap import PlaceBootstrap, PlaceSums
from stages.stats.groups import Groups
from stages.stats.means import mean_over_views, tested

BOUNDS = ("low", "high")
_BY_GROUP = frozenset({"known", "interval"})
Float = NDArray[np.float64]
Variables = dict[str, tuple[tuple[str, ...], NDArray[Any]]]


@dataclass(frozen=True)
class Intervals:
    """Makes the intervals of one checkpoint's figures.

    Parameters
    ----------
    groups : Groups
    bootstrap : PlaceBootstrap
    """

    groups: Groups
    bootstrap: PlaceBootstrap

    def sums(self, values: NDArray[np.floating], columns: Mapping[str, int]) -> list[PlaceSums]:
        """Add up figures [sample, column] of all images by place, for each group: all that need be kept of them."""
        own = values[:, list(columns.values())]
        return [self.bootstrap.sums(own[chosen], chosen) for chosen in self.groups.members]

    def of(self, subjects: Sequence[Sequence[PlaceSums]]) -> dict[str, Float]:
        """Return the means of several subjects, such as maps, with their intervals.

        Parameters
        ----------
        subjects : sequence of sequences of PlaceSums
            Of `sums`: subject, then group.

        Returns
        -------
        dict
            `known` float64 [group, subject, figure], how many images have the figure; `interval` [group, subject, figure, 2]; `of_views` [subject,
            figure], the mean over the groups of test images in which each view counts alike (see `mean_of_views`), and `of_views_interval` [subject,
            figure, 2]. Bounds as BOUNDS; NaN where fewer than two places have the figure.
        """
        of_groups = [PlaceSums.beside([subject[number] for subject in subjects]) for number in range(len(self.groups.name))]
        draws = [self.bootstrap.means(sums) for sums in of_groups]
        shown = tested(self.groups.name)
        numbers = [self.groups.name.index(name) for name in shown]
        found = {
            "known": np.stack([sums.count.sum(axis=0) for sums in of_groups]),
            "interval": np.stack([self.bootstrap.interval(*both) for both in zip(draws, self.groups.members, strict=True)]),
            "of_views": mean_over_views(np.stack([of_groups[number].mean for number in numbers]), shown),
            "of_views_interval": self.bootstrap.interval(
                _over_views([draws[number] for number in numbers], [of_groups[number].mean for number in numbers], shown),
                np.flatnonzero(np.isin(self.groups.index, numbers)),
            ),
        }
        return {
            name: values.reshape(*values.shape[: name in _BY_GROUP], len(subjects), -1, *[2] * name.endswith("interval"))
            for name, values in found.items()
        }


def _over_views(draws: Sequence[Float], told: Sequence[Float], groups: Sequence[str]) -> Float:
    """Means over the views of each draw; NaN of a draw that lacks a group which the figure itself has."""
    lacking = np.any([np.isnan(of_group) & np.isfinite(mean) for of_group, mean in zip(draws, told, strict=True)], axis=0)
    return np.where(lacking, np.nan, mean_over_views(np.stack(draws), groups))


def joined(parts: Sequence[Mapping[str, Float]]) -> dict[str, Float]:
    """Join what `Intervals.of` returned of some subjects, one after the other."""
    return {name: np.concatenate([part[name] for part in parts], axis=int(name in _BY_GROUP)) for name in parts[0]}


def of_maps(found: Mapping[str, Float], columns: Mapping[str, int], dim: str) -> Variables:
    """Give `Intervals.of` several maps its dims, and names that begin with what it is of: `dim` is that of the figures, as "map_figure"."""
    return _named(found, columns, dim, ("product",))


def of_images(found: Mapping[str, Float], columns: Mapping[str, int], dim: str) -> Variables:
    """The same of one subject that is no map."""
    return _named({name: values[:, 0] if name in _BY_GROUP else values[0] for name, values in found.items()}, columns, dim, ())


def _named(found: Mapping[str, Float], columns: Mapping[str, int], dim: str, subject: tuple[str, ...]) -> Variables:
    dims = {
        "known": ("group", *subject, dim),
        "interval": ("group", *subject, dim, "bound"),
        "of_views": (*subject, dim),
        "of_views_interval": (*subject, dim, "bound"),
    }
    coords = {dim: ((dim,), np.array(list(columns), dtype=object)), "bound": (("bound",), np.array(BOUNDS, dtype=object))}
    return {f"{dim.removesuffix('_figure')}_{name}": (dims[name], values) for name, values in found.items()} | coords
