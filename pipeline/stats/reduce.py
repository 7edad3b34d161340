"""Figures of images -> figures of a checkpoint: means over groups of images, mean maps, retrieval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.features.texts import texts_of
from pipeline.features.variants import stored_variants
from pipeline.run.directory import Run
from pipeline.stats.baselines import baselines
from pipeline.stats.sanity import sanity_of
from pipeline.stats.staleness import FigureInputs
from pipeline.stats.state import RETRIEVAL, lacks_retrieval, retrieval_stamp, sources_of
from pipeline.store.blocks import Block
from pipeline.store.fences import Fence
from pipeline.store.group_store import GroupStore
from pipeline.store.tables import write_dataset
from pipeline.work.executors import run_blocks
from pipeline.work.log import log
from stages.cam.map_keys import MapKey
from stages.stats.agreement import by_position
from stages.stats.bootstrap import PlaceBootstrap
from stages.stats.drift import boundary_changed
from stages.stats.gallery import Gallery
from stages.stats.groups import labelled
from stages.stats.images import Variables, reduced_drifts, reduced_images
from stages.stats.mean_maps import MapSums
from stages.stats.reductions import mean
from stages.stats.variants import retrieval_by_variant


@dataclass(frozen=True)
class ReduceWork:
    """Figures of one checkpoint after the other from those of its images, as `pipeline.work.executors` takes it."""

    run: Run
    fence: Fence

    def open(self, tell: Callable[[int], None]) -> Callable[[FigureInputs], None]:
        """Once in each process."""

        def write(one: FigureInputs) -> None:
            self.fence.check()  # before anything is computed in vain
            about = {"stamp": one.stamp, "made_with": one.made_with, "epoch": one.epoch}
            write_dataset(self.run.stats_path, one.name, _figures_of(self.run, one, self.fence), about, self.fence)
            log(f"{self.run.stats_path.name}/{one.name}: figures written")

        return write


def _figures_of(run: Run, one: FigureInputs, fence: Fence) -> xr.Dataset:
    """Return the figures of a checkpoint, dims (group, product, ...)."""
    sources, figures = sources_of(run, one), run.figures(one.name)
    bootstrap = _bootstrap_of(run, one)
    found = reduced_images(figures.values, one.groups, one.map_keys, sources.network, masks=sources.has_masks, bootstrap=bootstrap)
    if one.map_keys:
        found |= _mean_maps(run, one, sources.cams) | baselines(run.settings, sources, one.groups, bootstrap)
    gallery = gallery_of(one, sources.features)
    retrieval = gallery.reduced(_queries(run, one, gallery, fence), bootstrap).merge(
        retrieval_by_variant(gallery, stored_variants(run, sources.features), one.variants)
    )
    return labelled(found, one.groups, one.map_keys).merge(sanity_of(run, one)).merge(retrieval)  # the maps keep their order


def drift_to(run: Run, one: FigureInputs, kind: str) -> xr.Dataset:
    """Drift between a checkpoint and one of those that it is compared with; `kind` is a key of `one.others`."""
    found = reduced_drifts(run.figures(one.name).values, one.groups, one.map_keys, kind, _bootstrap_of(run, one))
    features = [run.features(name).arrays(["boundary", "saliency"]) for name in (one.others[kind], one.name)]
    if features[0]["boundary"].shape == features[1]["boundary"].shape:
        changed = boundary_changed(features[0], features[1])
        found[f"boundary_changed_to_{kind}"] = (("group",), np.array([mean(changed[chosen], {}) for chosen in one.groups.members]))
    return labelled(found, one.groups, one.map_keys)


def _bootstrap_of(run: Run, one: FigureInputs) -> PlaceBootstrap:
    features = run.features(one.name)
    return PlaceBootstrap.of(texts_of(run, features, "place"), texts_of(run, features, "split"))


def _queries(run: Run, one: FigureInputs, gallery: Gallery, fence: Fence) -> NDArray[np.floating]:
    """Figures of every query; they are stored where they are not."""
    figures = run.figures(one.name)
    if not lacks_retrieval(run, one):
        return figures.values(RETRIEVAL)
    mark = retrieval_stamp(run, one)
    found = gallery.figures().astype(np.float32)
    fence.check()  # what is written now must be of this call
    for block in figures.blocks:
        figures.write_block(block, {RETRIEVAL: found[block.rows]}, {RETRIEVAL: mark})
    return found


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
