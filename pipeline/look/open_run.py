"""A run opened for analysis: the manifest, and lazy labelled arrays with the checkpoints side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import dask.array
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.cam.explain import Explainer
from pipeline.cam.staleness import current_maps, refuse_swapping
from pipeline.disk.places import FEW, Place, each, place_of
from pipeline.features.finished import content_stamp, finished_checkpoints
from pipeline.features.reading import describe_features, read_features, sample_texts
from pipeline.features.schema_versions import figures_of_today
from pipeline.run.directory import MissingProductError, Run
from pipeline.settings.all import Settings
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import JOINED
from pipeline.store.replacing import is_swapping
from pipeline.store.stored_arrays import StoredArray
from pipeline.store.tables import group_attributes, read_dataset
from stages.cam.facts import FACTS
from stages.cam.map_keys import FACTS_PREFIX

_NO_SIZES = ("sampling", "drop_path", "head_activation", "pooling")  # of an architecture; earlier versions did not tell the last two


@dataclass(frozen=True)
class OpenRun:
    """The contents of a run. Arrays are read when they are used.

    Attributes
    ----------
    manifest : DataFrame
        One row per sample.
    features : Dataset
        Dims (checkpoint, sample, ...), as stages/schema.py lists them.
    cams : Dataset
        One variable per product, named position/target/method, dims (checkpoint, sample, y, x); raw and signed.
    facts : Dataset
        One variable for each of `cams`, of the same name, dims (checkpoint, sample, fact): status, raw range, bad denominators, score, constant; see
        stages/cam/facts.py. Maps that an earlier version made have none.
    stats : Dataset
        Dims (checkpoint, group, product, ...), in memory; empty before `atlas stats`.
    provenance : mapping
        Checkpoint -> how its features were made: resolved config, digests, libraries, host, device, precision, times,
        `made_by`, and the names of classes and heads.
    explain : Explainer
        Computes any heat map on request: all classes, other targets, the heads of one checkpoint on the features of another, deletion curves.
    """

    manifest: pd.DataFrame
    features: xr.Dataset
    cams: xr.Dataset
    facts: xr.Dataset
    stats: xr.Dataset
    provenance: Mapping[str, Mapping[str, Any]]
    explain: Explainer


def open_run(directory: str | Place, *, partial: bool = False) -> OpenRun:
    """Open the stores of a run, with the checkpoints side by side along `checkpoint`; `epoch` and `series` are coordinates.

    Parameters
    ----------
    directory : str or path
        For instance runs/demo, or s3://bucket/runs/demo.
    partial : bool
        Leave out unfinished checkpoints instead of refusing.

    Returns
    -------
    OpenRun
        `cams` holds the maps that all its checkpoints have.

    Raises
    ------
    FileNotFoundError
        If there is no manifest or no finished features, or if some features or heat maps are unfinished.
    ValueError
        If the networks of the checkpoints differ in size, so they do not fit side by side.
    """
    run = Run(place_of(directory), Settings())
    names = finished_checkpoints(run, partial)
    stores = [run.features(name) for name in names]
    each(run.features_path, lambda store: store.attributes, stores)  # asked for below one by one
    odd = [store.name for store in stores if _shape(store) != _shape(stores[0])]
    if odd:
        raise ValueError(
            f"{run.features_path}: {names[0]} and {odd[0]} are networks or datasets of different sizes, which do not fit side by side; "
            f"open each with xarray.open_zarr(..., group=NAME)"
        )
    described, texts = describe_features(stores[0]), sample_texts(stores[0])
    features = {key: _side_by_side(stores, key, array) for key, array in described.items() if key not in texts}
    finished = each(run.cams_path, lambda store: _finished_maps(run, store.name, partial), stores, at_once=FEW)
    drawn = [(store, keys) for store, keys in zip(stores, finished, strict=True) if keys is not None]
    maps = [run.cams(store.name) for store, _ in drawn]
    shared = sorted(set.intersection(*(keys for _, keys in drawn))) if drawn else []
    cams = {key: _side_by_side(maps, key, maps[0].described(key)) for key in shared}
    facts_keys = {key: f"{FACTS_PREFIX}{key}" for key in shared}
    there = each(run.cams_path, lambda store: store.present(facts_keys.values()), maps)
    noted = {key: name for key, name in facts_keys.items() if all(name in found for found in there)}
    columns = min((store.described(name).shape[1] for store in maps for name in noted.values()), default=0)  # earlier versions had the first ones
    facts = {key: _side_by_side(maps, name, maps[0].described(name))[..., :columns] for key, name in noted.items()}
    return OpenRun(
        run.manifest,
        _labelled(features, texts, stores),
        _labelled(cams, texts, [store for store, _ in drawn]),
        _labelled(facts, texts, [store for store, _ in drawn]).assign_coords(fact=np.array(FACTS[:columns], dtype=object)),
        _figures(run, stores, partial),
        {store.name: store.attributes for store in stores},
        Explainer(run),
    )


@dataclass(frozen=True)
class _SideBySide:
    """One variable of several checkpoints as one array; a block is read, and checked against its mark, where it is indexed."""

    stores: Sequence[GroupStore]
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    per_sample: bool

    @property
    def ndim(self) -> int:
        """Number of dims, `checkpoint` the first."""
        return len(self.shape)

    def __getitem__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        chosen, samples, *rest = index
        if isinstance(chosen, slice):
            return np.stack([self._read(store, samples, rest) for store in self.stores[chosen]])
        return self._read(self.stores[chosen], samples, rest)

    def _read(self, store: GroupStore, samples: int | slice, rest: Sequence[int | slice]) -> NDArray[Any]:
        if not self.per_sample:
            whole: NDArray[Any] = store.values(self.key)[samples, *rest]
            return whole
        wanted = range(self.shape[1])[samples]
        numbers = wanted if isinstance(wanted, range) else [wanted]
        start = min(numbers, default=0)
        rows = slice(start, max(numbers, default=-1) + 1)
        values = read_features(store, [self.key], rows)[self.key].values
        within = [number - start for number in numbers]
        found: NDArray[Any] = (values if within == list(range(len(values))) else values[within])[:, *rest]
        return found if isinstance(wanted, range) else found[0]


def _side_by_side(stores: Sequence[GroupStore], key: str, described: StoredArray) -> xr.DataArray:
    shape, per_sample = (len(stores), *described.shape), described.dims[0] == "sample"
    source = _SideBySide(stores, key, shape, described.dtype, per_sample)
    whole = tuple((length,) for length in described.shape)
    cut = (tuple(len(block) for block in stores[0].blocks), *whole[1:]) if per_sample else whole
    name = f"{key}-{uuid4().hex}"  # opened again, the store may have changed
    lazy = dask.array.from_array(source, chunks=((1,) * len(stores), *cut), name=name, meta=np.empty((0,) * source.ndim, source.dtype))
    attributes = {key: value for key, value in described.attributes.items() if key != "stamp"}  # each checkpoint's map has its own
    return xr.DataArray(lazy, dims=("checkpoint", *described.dims), attrs=attributes)


def _labelled(variables: Mapping[str, xr.DataArray], texts: Mapping[str, xr.Variable], stores: Sequence[GroupStore]) -> xr.Dataset:
    epochs = [store.attributes["epoch"] for store in stores]
    coordinates = {
        **texts,
        "checkpoint": np.array([store.name for store in stores], dtype=object),
        "epoch": ("checkpoint", np.array([np.nan if epoch is None else epoch for epoch in epochs], float)),
        "series": ("checkpoint", np.array([store.attributes.get("series", "") for store in stores], dtype=object)),
    }
    return xr.Dataset(dict(variables), coords=coordinates)


def _figures(run: Run, stores: Sequence[GroupStore], partial: bool) -> xr.Dataset:
    """Read the figures, if they are of the features as they are."""
    if not group_attributes(run.stats_path, JOINED):
        return xr.Dataset()
    found = read_dataset(run.stats_path, JOINED)

    def is_older(store: GroupStore) -> bool:
        made_with = group_attributes(run.stats_path, store.name).get("made_with", {})
        return store.seal.exists and made_with.get("features") != content_stamp(store)

    looked_at = () if partial else stores
    for store, older in zip(looked_at, each(run.stats_path, is_older, looked_at, at_once=FEW), strict=True):
        if older:
            raise MissingProductError(f"{run.stats_path}: older than {store}; run `atlas stats`, or pass partial=True to get them as they are")
    return figures_of_today(found).assign_coords(checkpoint=found["checkpoint"].astype(object))


def _finished_maps(run: Run, name: str, partial: bool) -> set[str] | None:
    """Keys of a checkpoint's maps that are complete and made of its features as they are; None where there are none and that is allowed."""
    cams, features = run.cams(name), run.features(name)
    if not cams.exists or (partial and is_swapping(cams)):
        if partial or not run.cams_path.is_dir():
            return None
        raise MissingProductError(f"{cams}: no heat maps; run `atlas cam`, or pass partial=True to leave it out")
    if not cams.seal.exists and cams.attributes.get("schema_version", 1) == 1:
        return set(cams.all_keys())
    refuse_swapping(cams)
    current = current_maps(features, cams)
    if not partial and (not current or current < set(cams.ledger.whole()["products"])):
        raise MissingProductError(f"{cams}: unfinished, or older than the features; run `atlas cam`, or pass partial=True to leave these maps out")
    return current or None


def _shape(store: GroupStore) -> tuple[Any, ...]:
    attributes = store.attributes
    sizes = {key: value for key, value in attributes["architecture"].items() if key not in _NO_SIZES}
    chosen = [attributes["made_with"].get(key) or [] for key in ("blocks", "gradient_targets", "gradient_blocks")]
    return sizes, chosen, attributes["samples"], sorted({*attributes["block_arrays"], "aligned_map"})
