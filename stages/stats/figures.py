"""The table of figures: what is told of every image, of every map, and of every map at two checkpoints; one row a figure.

A new figure is a function, a row here, and a slow version of it in the tests. Report, plots, `atlas figures` and docs read the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.cam.map_keys import MapKey
from stages.stats import drift, maps, modules, trust
from stages.stats.drift import RankedMaps
from stages.stats.heat import Heat
from stages.stats.reductions import Reduction, deviation, highest, lower_quartile, lowest, mean, median, ring_count, status_share, upper_quartile

Float = NDArray[np.float64]
Which = Literal["all", "exact", "beside an exact map", "with a mask"]
Shown = Literal["table", "plot"]
_MEAN = (Reduction("", mean),)


@dataclass(frozen=True)
class Figure:
    """A row of the tables below.

    Parameters
    ----------
    function : callable
        What computes it for n images: float64 [n, ...], NaN where undefined.
    which : str
        Maps that have it. "with a mask": the figure exists only where the dataset has masks.
    frame : {"map", "photo", ""}
        In which frame a place or a region is meant; empty: it has none.
    unit : str
        "1", "share" (0 to 1, shown in percent), "degrees", "cells", "code", ...
    label : str
        What the report calls it.
    reductions : tuple of Reduction
        What becomes of it over a group of images. Default: the mean, under the figure's name.
    dims : tuple of str
        Of one image's figure; without any, it is one number.
    shown : {"table", "plot"}
        Where the report shows it beside `stats.zarr`: in the tables of maps, and over the epochs.
    """

    function: Callable[..., Float]
    which: Which
    frame: str
    unit: str
    label: str
    reductions: tuple[Reduction, ...] = _MEAN
    dims: tuple[str, ...] = ()
    shown: frozenset[Shown] = frozenset()

    @property
    def meaning(self) -> str:
        """What it is, in the words of its function, without a full stop."""
        return (self.function.__doc__ or "").strip().splitlines()[0].removesuffix(".")


@dataclass(frozen=True)
class GroupFigure:
    """A figure of all maps of a group together: see mean_maps.py."""

    unit: str
    label: str
    meaning: str
    shown: frozenset[Shown] = frozenset()


def _quartiles(name: str) -> tuple[Reduction, ...]:
    """The mean of a figure, and its quartiles: of a figure with long tails."""
    return (
        *_MEAN,
        Reduction(f"{name}_lower_quartile", lower_quartile),
        Reduction(f"{name}_median", median),
        Reduction(f"{name}_upper_quartile", upper_quartile),
    )


_TABLE: frozenset[Shown] = frozenset({"table"})
_BOTH: frozenset[Shown] = frozenset({"table", "plot"})
MAP_FIGURES: Mapping[str, Figure] = MappingProxyType(  # of one map of an image
    {
        "low": Figure(maps.low, "all", "", "as the map", "coldest cell", (Reduction("range_low", lowest),)),
        "high": Figure(maps.high, "all", "", "as the map", "hottest cell", (Reduction("range_high", highest),)),
        "variation": Figure(maps.variation, "all", "", "1", "coefficient of variation", shown=_TABLE),
        "entropy": Figure(maps.entropy, "all", "", "1", "entropy", shown=_TABLE),
        "top": Figure(maps.top, "all", "", "share", "heat in top cells", shown=_TABLE),
        "centre_y": Figure(maps.centre_y, "all", "map", "heights of the map", "centre of mass, y"),
        "centre_x": Figure(maps.centre_x, "all", "map", "widths of the map", "centre of mass, x"),
        "ring_share": Figure(maps.ring_share, "all", "map", "share", "heat in each ring", dims=("ring",)),
        "zero": Figure(maps.zero, "all", "", "share", "zero", shown=_TABLE),
        "low_contrast": Figure(maps.low_contrast, "all", "", "share", "low contrast", shown=_TABLE),
        "pointing": Figure(maps.pointing, "with a mask", "photo", "share", "pointing", shown=_BOTH),
        "energy": Figure(maps.energy, "with a mask", "photo", "share", "energy", shown=_BOTH),
        "mask_area": Figure(maps.mask_area, "with a mask", "photo", "share", "share of the photo under the mask"),
        "status": Figure(trust.status, "all", "", "code", "status", (Reduction("status_share", status_share, "status"),)),
        "clipped": Figure(trust.clipped, "all", "", "share", "bad denominators"),
        "residual": Figure(trust.residual, "exact", "", "1", "residual"),
        "deletion": Figure(trust.deletion, "beside an exact map", "", "1", "deletion", _quartiles("deletion")),
        "insertion": Figure(trust.insertion, "beside an exact map", "", "1", "insertion", _quartiles("insertion")),
        "deletion_random": Figure(trust.deletion_random, "beside an exact map", "", "1", "deletion in random order"),
    }
)
DRIFT_FIGURES: Mapping[str, Figure] = MappingProxyType(  # of one map of an image at two checkpoints
    {
        "cosine": Figure(drift.cosine, "all", "map", "1", "cosine"),
        "pearson": Figure(drift.pearson, "all", "map", "1", "correlation"),
        "spearman": Figure(drift.spearman, "all", "map", "1", "rank correlation"),
        "overlap": Figure(drift.overlap, "all", "map", "share", "overlap of the hottest cells"),
    }
)
IMAGE_FIGURES: Mapping[str, Figure] = MappingProxyType(  # of an image, whatever the map
    {
        "moved_cells": Figure(modules.moved_cells, "all", "map", "share", "cells that FAM moves"),
        "fam_change": Figure(modules.fam_change, "all", "", "1", "change of the map by FAM"),
        "warp": Figure(
            modules.warp, "all", "photo", "1, degrees, half sides", "FAM's warp",
            (Reduction("warp_mean", mean), Reduction("warp_std", deviation)), ("warp",),
        ),
        "boundary": Figure(
            modules.boundary, "all", "map", "cells", "FPM's boundaries", (Reduction("boundary_count", ring_count, "ring"),), ("part",),
        ),
        "cut_as_constant": Figure(modules.cut_as_constant, "all", "map", "share", "cuts as of a constant map"),
    }
)  # fmt: skip
GROUP_FIGURES: Mapping[str, GroupFigure] = MappingProxyType(
    {
        "alike": GroupFigure("1", "correlation with the mean map", "mean correlation of a map with the mean map of its group", _TABLE),
        "map_mean": GroupFigure("as the map", "mean map", "mean over the images, cell by cell"),
        "map_std": GroupFigure("as the map", "standard deviation map", "standard deviation over the images, cell by cell"),
    }
)
_OF_IMAGES = {**IMAGE_FIGURES, **MAP_FIGURES, **DRIFT_FIGURES}
FIGURE_NAMES = [*([name, *(one.name for one in row.reductions)] for name, row in _OF_IMAGES.items()), *GROUP_FIGURES]  # a new row makes figures anew
_WHICH: Mapping[Which, Callable[[Heat], bool]] = MappingProxyType(
    {
        "all": lambda heat: True,
        "exact": lambda heat: heat.is_exact,
        "beside an exact map": lambda heat: heat.exact is not None,
        "with a mask": lambda heat: heat.masks is not None,
    }
)


def wanted_figures(table: Mapping[str, Figure], *, masks: bool) -> dict[str, Figure]:
    """Return the rows of a table that exist, with or without masks."""
    return {name: row for name, row in table.items() if masks or row.which != "with a mask"}


def figures_shown(where: Shown) -> dict[str, Figure | GroupFigure]:
    """Return the figures of maps that the report shows there, by name."""
    rows: dict[str, Figure | GroupFigure] = {**MAP_FIGURES, **GROUP_FIGURES}
    return {name: row for name, row in rows.items() if where in row.shown}


def columns_of(table: Mapping[str, Figure], sizes: Mapping[str, int]) -> list[str]:
    """Name the columns in which the figures of an image stand: one a figure, or several, as `warp_scale_x`, or counted from 1, as `ring_share_1`."""
    return [column for name, row in table.items() for column in _columns(name, row, sizes)]


def mean_columns(table: Mapping[str, Figure], sizes: Mapping[str, int]) -> dict[str, int]:
    """Those of `columns_of` whose mean is told of a group -> their numbers."""
    columns, means = columns_of(table, sizes), [name for name, row in table.items() if any(one.function is mean for one in row.reductions)]
    chosen = {column for name in means for column in _columns(name, table[name], sizes)}
    return {column: number for number, column in enumerate(columns) if column in chosen}


def _columns(name: str, row: Figure, sizes: Mapping[str, int]) -> list[str]:
    named = modules.WARP_FIGURES if row.dims == ("warp",) else range(1, _width(row, sizes) + 1)
    return [f"{name}_{one}" for one in named] if row.dims else [name]


def _width(row: Figure, sizes: Mapping[str, int]) -> int:
    return int(np.prod([sizes[dim] for dim in row.dims], dtype=int))


def figures_of_map(table: Mapping[str, Figure], heat: Heat, sizes: Mapping[str, int]) -> Float:
    """Compute the figures of one map of n images, float64 [n, column]; NaN in those that are not of this map."""
    nothing = np.nan
    found = [
        row.function(heat) if _WHICH[row.which](heat) else np.full((len(heat.values), *(sizes[dim] for dim in row.dims)), nothing)
        for row in table.values()
    ]
    return joined_columns(found)


def figures_of(table: Mapping[str, Figure], *subjects: Any) -> Float:
    """Compute the figures of n images of what their functions take, float64 [n, column]."""
    return joined_columns(row.function(*subjects) for row in table.values())


def drifts_of(before: Mapping[MapKey, RankedMaps], after: Mapping[MapKey, RankedMaps], overlap_share: float) -> dict[MapKey, Float]:
    """Compute DRIFT_FIGURES of n images, float64 [n, column] a map of `after`; NaN of a map that there was not before."""
    return {
        key: figures_of(DRIFT_FIGURES, before[key], maps, overlap_share)
        if key in before
        else np.full((len(maps.defined), len(DRIFT_FIGURES)), np.nan)
        for key, maps in after.items()
    }


def joined_columns(values: Iterable[NDArray]) -> Float:
    """Put figures [n, ...] side by side, float64 [n, column]."""
    return np.concatenate([value.reshape(len(value), -1) for value in values], axis=1, dtype=np.float64)


def reduced(
    table: Mapping[str, Figure], values: NDArray[np.floating], members: Sequence[NDArray[np.intp]], sizes: Mapping[str, int]
) -> dict[str, tuple[tuple[str, ...], Float]]:
    """Reduce the figures of all images to those of groups.

    Parameters
    ----------
    table : mapping
        The figures, in the order of the columns.
    values : float [sample, column]
    members : sequence of int arrays
        Numbers of the samples of each group.
    sizes : mapping
        Of the dims of figures, and of those that reductions add.

    Returns
    -------
    dict
        Name -> (dims behind `group`, float64 [group, ...]).
    """
    found, start = {}, 0
    for name, row in table.items():
        stop = start + _width(row, sizes)
        shape = [sizes[dim] for dim in row.dims]
        own = values[:, start:stop].reshape(len(values), *shape)
        for reduction in row.reductions:
            groups = [reduction.function(own[chosen].astype(np.float64), sizes) for chosen in members]
            found[reduction.name or name] = ((*row.dims, *([reduction.adds] if reduction.adds else [])), np.stack(groups))
        start = stop
    return found
