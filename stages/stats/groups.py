"""Heat maps and features of a checkpoint -> small arrays per group of images; and what changes between checkpoints.

The work is cut as chunk, combine, finalize: `summarise_block` takes a block of samples in memory, `combine` joins the
blocks in any number, `finalize` takes means over the groups. A group is a split and a view, such as "test drone", and the
flight height where there are several: "test drone 150".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from safenet.architecture import Architecture, Sampling
from safenet.rings import ring_numbers
from stages.cam.frames import to_photo_frame
from stages.cam.map_keys import FACTS_PREFIX, MapKey
from stages.cam.methods import METHODS
from stages.cam.names import ON_ALIGNED_GRID
from stages.finite import finite_rows, whole_or_nothing
from stages.schema import MASKS
from stages.stats.maps import drift_figures, map_figures, mask_figures
from stages.stats.modules import WARP_FIGURES, boundary_counts, decompose_theta, moved_share
from stages.stats.retrieval import descriptors, retrieval_metrics
from stages.stats.settings import StatsSettings
from stages.stats.trust import STATUS_NAMES, trust_figures

NEEDED_FEATURES = ("valid", "theta", "source_cell", "fam_change", "saliency", "boundary")
RETRIEVAL_FIGURES = ("recall_1", "recall_5", "recall_10", "recall_top1pct", "average_precision")
RETRIEVAL_COUNTS = ("queries", "queries_unmatched", "queries_not_finite", "gallery_not_finite")
DIRECTIONS: Mapping[str, tuple[str, str]] = {"drone to satellite": ("drone", "satellite"), "satellite to drone": ("satellite", "drone")}


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
        index = [names.index(label) if ok else -1 for label, ok in zip(labels, valid, strict=True)]
        return cls(names, np.array(index, np.int64))


@dataclass(frozen=True)
class BlockSummary:
    """Figures a sample (`samples`, dims sample, product, ...), and sums of maps a group (`sums`, dims group, product, y, x)."""

    samples: xr.Dataset
    sums: xr.Dataset


def summarise_block(
    cams: xr.Dataset, features: xr.Dataset, group: NDArray[np.int64], groups: int, network: Architecture, settings: StatsSettings
) -> BlockSummary:
    """Take all figures of one block of samples.

    Parameters
    ----------
    cams : Dataset
        Variables named by product keys, (sample, y, x), and their facts, named facts/<key>, (sample, fact), in memory.
    features : Dataset
        NEEDED_FEATURES, and MASKS where there are masks, of the same samples, in memory.
    group : int64 [sample]
        Group of each sample, -1 for none.
    groups : int
        Number of groups.
    network : Architecture
        FAM's sampling, and whether scores are affine in the map.
    settings : StatsSettings
    """
    keys = [str(key) for key in cams.data_vars if not str(key).startswith(FACTS_PREFIX)]
    cams = cams.assign({key: (cams[key].dims, whole_or_nothing(cams[key].values)) for key in keys})
    ring = ring_numbers((features.sizes["y"], features.sizes["x"]))
    figures = [_product_figures(MapKey.parse(key), cams[key].values, features, ring, network.sampling, settings) for key in keys]
    samples = xr.Dataset({name: _stack(name, [f[name] for f in figures], features.sizes["sample"]) for name in figures[0]} if keys else {})
    samples = samples.assign(_module_figures(features))
    if keys:
        samples = samples.assign(trust_figures(cams, [MapKey.parse(key) for key in keys], network.is_linear))
    sums = [_group_sums(cams[key].values, group, groups) for key in keys]
    dims = ("group", "product", "y", "x")
    total = xr.Dataset({name: (dims[: value.ndim + 1], np.stack([s[name] for s in sums], axis=1)) for name, value in sums[0].items()} if keys else {})
    return BlockSummary(samples, total)


def combine(blocks: Sequence[BlockSummary]) -> BlockSummary:
    """Join the summaries of consecutive blocks."""
    samples = xr.concat([block.samples for block in blocks], dim="sample")
    sums = blocks[0].sums.copy(deep=True)
    for block in blocks[1:]:
        sums = sums + block.sums
    return BlockSummary(samples, sums)


def finalize(summary: BlockSummary, groups: Groups, map_keys: Sequence[MapKey], settings: StatsSettings) -> xr.Dataset:
    """Return the figures of a checkpoint: means over each group's defined samples, dims (group, product, ...)."""
    samples = summary.samples
    rows = {name: _group_rows(samples[name], groups) for name in samples if name not in ("boundary", "theta", "low", "high")}
    stats = xr.Dataset({name: xr.concat([_mean(row) for row in per_group], dim="group") for name, per_group in rows.items()})
    if map_keys:
        stats = stats.assign(_map_statistics(summary, groups, settings))
    stats = stats.assign(_warp_statistics(samples, groups)).assign(
        count=("group", np.bincount(groups.index[groups.index >= 0], minlength=len(groups.name)))
    )
    names = [map_key.key for map_key in map_keys]
    coords = {"group": list(groups.name), "product": names, "other": names, "status": STATUS_NAMES, "warp": list(WARP_FIGURES)}
    return stats.assign_coords({dim: (dim, np.array(value, dtype=object)) for dim, value in coords.items() if dim in stats.dims}).transpose(
        "group", "product", ..., missing_dims="ignore"
    )


def retrieval(embedding: NDArray[np.floating], place: Sequence[str], view: Sequence[str], roles: Sequence[str], valid: Sequence[bool]) -> xr.Dataset:
    """Recall and average precision in both directions, dims (direction,); NaN where there are no queries or no gallery.

    Parameters
    ----------
    embedding : [sample, head, E]
        Of the images, or the sum with those of their flips.

    Returns
    -------
    Dataset
        The figures of `retrieval_metrics`, and counts: `queries`; `queries_unmatched`, of places without a gallery image; `queries_not_finite`,
        which count as misses as those do; `gallery_not_finite`, images that are left out of the gallery.
    """
    places, views, role, ok = (np.asarray(values) for values in (place, view, roles, valid))
    finite = finite_rows(np.asarray(embedding))
    has_role = {name: np.array([name in text.split("+") for text in role], bool) & ok.astype(bool) for name in ("query", "gallery")}
    rows = []
    for query_view, gallery_view in DIRECTIONS.values():
        query, gallery = has_role["query"] & (views == query_view), has_role["gallery"] & (views == gallery_view)
        rows.append(_one_direction(np.asarray(embedding), places, finite, query, gallery))
    figures = {name: ("direction", np.array([row.get(name, np.nan) for row in rows])) for name in (*RETRIEVAL_FIGURES, *RETRIEVAL_COUNTS)}
    return xr.Dataset(figures, coords={"direction": np.array(list(DIRECTIONS), dtype=object)})


def _one_direction(
    embedding: NDArray[np.floating], places: NDArray, finite: NDArray[np.bool_], query: NDArray[np.bool_], gallery: NDArray[np.bool_]
) -> dict[str, float]:
    """Figures and counts of the queries and the gallery that two masks [sample] name."""
    asked, offered = query & finite, gallery & finite
    counts = {
        "queries": query.sum(),
        "queries_unmatched": (query & ~np.isin(places, places[gallery])).sum(),
        "queries_not_finite": (query & ~finite).sum(),
        "gallery_not_finite": (gallery & ~finite).sum(),
    }
    if not (query.any() and gallery.any()):
        return {name: float(count) for name, count in counts.items()}
    names = [places[chosen].tolist() for chosen in (asked, offered)]
    found = retrieval_metrics(descriptors(embedding[asked]), names[0], descriptors(embedding[offered]), names[1], int(query.sum() - asked.sum()))
    return {**found, **{name: float(count) for name, count in counts.items()}}


def drift_block(before: xr.Dataset, after: xr.Dataset, settings: StatsSettings) -> xr.Dataset:
    """Figures of `drift_figures` a sample and product, dims (sample, product); both blocks in memory, same samples."""
    rows = [drift_figures(before[key].values, after[key].values, settings.overlap_share) for key in after.data_vars]
    return xr.Dataset({name: (("sample", "product"), np.stack([row[name] for row in rows], axis=1)) for name in rows[0]})


def finalize_drift(drift: xr.Dataset, groups: Groups, map_keys: Sequence[MapKey], suffix: str) -> xr.Dataset:
    """Mean drift a group, dims (group, product), variables named `<figure>_to_<suffix>`."""
    means = {f"{name}_to_{suffix}": xr.concat([_mean(row) for row in _group_rows(drift[name], groups)], dim="group") for name in drift}
    coords = {"group": list(groups.name), "product": [map_key.key for map_key in map_keys]}
    return xr.Dataset(means).assign_coords({dim: (dim, np.array(value, dtype=object)) for dim, value in coords.items()})


def changed_boundaries(before: xr.Dataset, after: xr.Dataset, groups: Groups) -> xr.DataArray:
    """Share of each group's samples whose boundaries differ between two checkpoints, dims (group,).

    Parameters
    ----------
    before, after : Dataset
        `boundary` and `saliency` of the same samples; a boundary that was cut by a saliency that is not finite is none.
    """
    changed = (before["boundary"].values != after["boundary"].values).any(axis=1)
    known = finite_rows(before["saliency"].values) & finite_rows(after["saliency"].values)
    rows = [known & (groups.index == number) for number in range(len(groups.name))]
    share = [changed[chosen].mean() if chosen.any() else np.nan for chosen in rows]
    return xr.DataArray(np.array(share), dims="group", coords={"group": np.array(groups.name, dtype=object)})


def _product_figures(
    map_key: MapKey, maps: NDArray[np.float32], features: xr.Dataset, ring: NDArray[np.integer], sampling: Sampling, settings: StatsSettings
) -> dict[str, NDArray[np.float64]]:
    method = METHODS[map_key.method]
    figures = map_figures(maps, method.kind, ring, settings.top_share)
    figures["low_contrast"] = np.where(np.isnan(figures["variation"]), np.nan, figures["variation"] < settings.low_contrast_below)
    if all(name in features for name in MASKS):
        on_photo = maps
        if map_key.position in ON_ALIGNED_GRID:
            on_photo = to_photo_frame(maps, features["theta"].values, features["source_cell"].values, sampling, map_key.additive)
        figures |= mask_figures(on_photo, features["mask_share"].values, features["mask_centre"].values)
    return figures


def _module_figures(features: xr.Dataset) -> dict[str, tuple[tuple[str, ...], NDArray[np.floating]]]:
    void = ~features["valid"].values.astype(bool)
    moved = moved_share(features["source_cell"].values)
    moved[void | ~finite_rows(features["theta"].values)] = np.nan
    change = whole_or_nothing(features["fam_change"].values.astype(np.float64)).copy()
    change[void] = np.nan
    boundary = np.where(finite_rows(features["saliency"].values)[:, None], features["boundary"].values, 0)  # 0 is no ring
    return {
        "moved_cells": (("sample",), moved),
        "fam_change": (("sample",), change),
        "theta": (("sample", "warp"), decompose_theta(features["theta"].values)),
        "boundary": (("sample", "part", "ring"), _one_hot(boundary, features.sizes["y"] // 2)),
    }


def _one_hot(boundary: NDArray[np.integer], rings: int) -> NDArray[np.float64]:
    return np.stack([boundary_counts(row[None], rings) for row in boundary]).astype(np.float64)


def _group_sums(maps: NDArray[np.float32], group: NDArray[np.int64], groups: int) -> dict[str, NDArray[np.float64]]:
    chosen = (group >= 0) & np.isfinite(maps).all(axis=(1, 2))
    values = maps[chosen].astype(np.float64)
    of_cells = {"total": values, "squares": values**2, "units": _unit_maps(values)}
    sums = {"n": np.zeros(groups), **{name: np.zeros((groups, *maps.shape[1:])) for name in of_cells}}
    np.add.at(sums["n"], group[chosen], 1)
    for name, summand in of_cells.items():
        np.add.at(sums[name], group[chosen], summand)
    return sums


def _unit_maps(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maps less their mean, over their length; zeros where all cells are the same."""
    centred = maps - maps.mean(axis=(1, 2), keepdims=True)
    length = np.linalg.norm(centred, axis=(1, 2), keepdims=True)
    return np.asarray(centred / np.where(length > 0, length, 1))


def _stack(name: str, values: list[NDArray[np.float64]], samples: int) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    dims = ("sample", "product", "ring") if values[0].ndim == 2 else ("sample", "product")
    return dims, np.stack(values, axis=1)


def _group_rows(values: xr.DataArray, groups: Groups) -> list[xr.DataArray]:
    return [values.isel(sample=np.flatnonzero(groups.index == number)) for number in range(len(groups.name))]


def _mean(values: xr.DataArray) -> xr.DataArray:
    """Mean over the defined samples, NaN without a warning where there are none."""
    count = values.notnull().sum("sample")
    return values.sum("sample", skipna=True).where(count > 0) / count.where(count > 0)


def _map_statistics(summary: BlockSummary, groups: Groups, settings: StatsSettings) -> dict[str, Any]:
    """Mean and standard deviation maps, how far all maps of a group are one map, and the range that `dataset` scales take."""
    sums = summary.sums
    count = sums["n"].where(sums["n"] > 0)
    mean = sums["total"] / count
    deviation = np.sqrt(np.maximum(sums["squares"] / count - mean**2, 0))
    alike = (((sums["units"] / count) ** 2).sum(["y", "x"]) ** 0.5).where(count > 1)  # the mean correlation with the mean of the unit maps
    ranges = {}
    for name, figure, quantile in (("low", "low", 0.01), ("high", "high", 0.99)):
        ranges[f"range_{name}"] = xr.concat([_quantile(row, quantile) for row in _group_rows(summary.samples[figure], groups)], dim="group")
    return {"map_mean": mean, "map_std": deviation, "alike": alike, "defined": sums["n"], **ranges}


def _quantile(values: xr.DataArray, quantile: float) -> xr.DataArray:
    columns = [column[np.isfinite(column)] for column in values.values.T]
    return xr.DataArray([np.quantile(column, quantile) if len(column) else np.nan for column in columns], dims="product")


def _warp_statistics(samples: xr.Dataset, groups: Groups) -> dict[str, xr.DataArray]:
    warp = _group_rows(samples["theta"], groups)
    counts = _group_rows(samples["boundary"], groups)
    return {
        "warp_mean": xr.concat([row.mean("sample") for row in warp], dim="group"),
        "warp_std": xr.concat([row.std("sample") for row in warp], dim="group"),
        "boundary_count": xr.concat([row.sum("sample") for row in counts], dim="group"),
    }
