"""Figures of images -> figures of a checkpoint: means over groups of images, mean maps, retrieval."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.features.variants import stored_variants
from pipeline.run.directory import Run
from pipeline.stats.blocks import Sources
from pipeline.stats.staleness import FigureInputs
from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from pipeline.work.executors import run_blocks
from stages.cam.map_keys import MapKey
from stages.stats.agreement import by_position
from stages.stats.gallery import Gallery
from stages.stats.groups import labelled
from stages.stats.images import Variables, reduced_images
from stages.stats.mean_maps import MapSums
from stages.stats.variants import retrieval_by_variant


def reduce_figures(run: Run, one: FigureInputs, sources: Sources, read: Callable[[str], NDArray[np.floating]]) -> xr.Dataset:
    """Return the figures of a checkpoint, dims (group, product, ...).

    Parameters
    ----------
    run : Run
    one : FigureInputs
    sources : Sources
    read : callable
        Key of an array of figures -> its values, float [sample, column].
    """
    found = reduced_images(read, one.groups, one.map_keys, sources.network, masks=sources.has_masks, kinds=sources.others)
    if one.map_keys:
        found |= _mean_maps(run, one, sources.cams)
    return labelled(found, one.groups, one.map_keys)


def _mean_maps(run: Run, one: FigureInputs, cams: GroupStore) -> Variables:
    """Fold the maps position by position and block by block; only sums are kept."""
    folded = [_folded(run, one, cams, map_keys) for map_keys in by_position(one.map_keys).values()]
    order = [key for map_keys in by_position(one.map_keys).values() for key in map_keys]
    numbers = [order.index(key) for key in one.map_keys]
    joined = {name: np.concatenate([part[name] for part in folded], axis=1)[:, numbers] for name in folded[0]}
    return {name: (("group", "product", "y", "x")[: values.ndim], values) for name, values in joined.items()}


def _folded(run: Run, one: FigureInputs, cams: GroupStore, map_keys: Sequence[MapKey]) -> dict[str, NDArray[np.float64]]:
    def work(block: Block) -> MapSums:
        maps = cams.arrays([key.key for key in map_keys], block.rows)
        return MapSums.of(list(maps.values()), one.groups.index[block.rows], len(one.groups.name))

    sums: MapSums | None = None
    for part in run_blocks(run.settings.compute, work, cams.blocks):
        sums = part if sums is None else sums + part
    assert sums is not None
    return sums.statistics()


def gallery_of(one: FigureInputs, features: GroupStore) -> Gallery:
    """The images of a checkpoint as queries and gallery images; embeddings are read where they are asked for."""
    keys = ["embedding", "flip_embedding"] if features.has("flip_embedding") else ["embedding"]
    size = features.attributes["block_samples"]

    def embedding(rows: NDArray[np.intp]) -> Sequence[NDArray[np.floating]]:
        parts = np.split(rows, np.flatnonzero(np.diff(rows // size)) + 1)
        read = [_rows_of(features, keys, part, size) for part in parts]
        return [np.concatenate([part[key] for part in read]) for key in keys]

    place, view, roles = (features.values(key).tolist() for key in ("place", "view", "roles"))
    return Gallery.of(embedding, place, view, roles, (one.groups.index >= 0).tolist())


def _rows_of(features: GroupStore, keys: Sequence[str], rows: NDArray[np.intp], size: int) -> dict[str, NDArray[np.floating]]:
    """Read some images of one block."""
    start = int(rows[0]) // size * size
    read = features.arrays(keys, slice(start, min(start + size, features.attributes["samples"])))
    return {key: values[rows - start] for key, values in read.items()}


def reduce_retrieval(run: Run, one: FigureInputs, gallery: Gallery, figures: NDArray[np.floating], features: GroupStore) -> xr.Dataset:
    """Of all images that are looked at, and by flight height where there are several."""
    return gallery.reduced(figures).merge(retrieval_by_variant(gallery, stored_variants(run, features), one.variants))
