"""Intervals of the means over groups of images, and of those over all test images in which views count alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.stats.bootstrap import PlaceBootstrap
from stages.stats.groups import Groups
from stages.stats.means import mean_over_views, tested
from stages.stats.reductions import mean

BOUNDS = ("low", "high")
Float = NDArray[np.float64]
Variables = dict[str, tuple[tuple[str, ...], NDArray[Any]]]


def intervals(values: NDArray[np.floating], columns: Mapping[str, int], groups: Groups, bootstrap: PlaceBootstrap) -> dict[str, Float]:
    """Means of some figures with their intervals.

    Parameters
    ----------
    values : float [sample, column]
    columns : mapping
        Figure -> its column.
    groups : Groups
    bootstrap : PlaceBootstrap

    Returns
    -------
    dict
        `interval` float64 [group, figure, 2]; `of_views` [figure], the mean over the groups of test images in which each view counts alike (see
        `mean_of_views`), and `of_views_interval` [figure, 2]. Bounds as BOUNDS; NaN where fewer than two places have the figure.
    """
    own = values[:, list(columns.values())].astype(np.float64)
    draws = {name: bootstrap.means(own[chosen], chosen) for name, chosen in zip(groups.name, groups.members, strict=True)}
    of_groups = [bootstrap.interval(draws[name], chosen) for name, chosen in zip(groups.name, groups.members, strict=True)]
    shown = tested(groups.name)
    images = np.flatnonzero(np.isin(groups.index, [groups.name.index(name) for name in shown]))
    found = mean_over_views(np.stack([draws[name] for name in shown]), shown)
    told = mean_over_views(np.stack([mean(own[groups.index == groups.name.index(name)], {}) for name in shown]), shown)
    return {"interval": np.stack(of_groups), "of_views": told, "of_views_interval": bootstrap.interval(found, images)}


def side_by_side(of_maps: Sequence[Mapping[str, Float]], columns: Mapping[str, int], dim: str) -> Variables:
    """Join the `intervals` of several maps along `product`, each with its dims and prefixed by what it is of.

    `dim`, "map_figure", is that of the figures; their names are its coordinate.
    """
    of = dim.removesuffix("_figure")
    return {
        f"{of}_interval": (("group", "product", dim, "bound"), np.stack([one["interval"] for one in of_maps], axis=1)),
        f"{of}_of_views": (("product", dim), np.stack([one["of_views"] for one in of_maps])),
        f"{of}_of_views_interval": (("product", dim, "bound"), np.stack([one["of_views_interval"] for one in of_maps])),
        **_names(columns, dim),
    }


def of_no_map(found: Mapping[str, Float], columns: Mapping[str, int], dim: str) -> Variables:
    """Give the `intervals` of figures that no map has their dims and names; `dim` as in `side_by_side`."""
    of = dim.removesuffix("_figure")
    return {
        f"{of}_interval": (("group", dim, "bound"), found["interval"]),
        f"{of}_of_views": ((dim,), found["of_views"]),
        f"{of}_of_views_interval": ((dim, "bound"), found["of_views_interval"]),
        **_names(columns, dim),
    }


def _names(columns: Mapping[str, int], dim: str) -> Variables:
    return {dim: ((dim,), np.array(list(columns), dtype=object)), "bound": (("bound",), np.array(BOUNDS, dtype=object))}
