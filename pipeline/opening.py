"""A run opened for analysis: the manifest, and lazy labelled arrays with the checkpoints side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from pipeline.config import Settings
from pipeline.features import open_features
from pipeline.run import Run
from pipeline.stats_run import JOINED
from pipeline.status import map_keys
from pipeline.stores import group_attributes, open_lazily


@dataclass(frozen=True)
class OpenRun:
    """What a run holds; arrays are read where they are used.

    Attributes
    ----------
    manifest : DataFrame
        One row a sample.
    features : Dataset
        Dims (checkpoint, sample, ...), as stages/schema.py lists them.
    cams : Dataset
        One variable a product, named position/target/method, dims (checkpoint, sample, y, x); raw and signed.
    stats : Dataset
        Dims (checkpoint, group, product, ...); empty before `atlas stats`.
    """

    manifest: pd.DataFrame
    features: xr.Dataset
    cams: xr.Dataset
    stats: xr.Dataset


def open_run(directory: str | Path, *, partial: bool = False) -> OpenRun:
    """Open a run's stores, checkpoints along `checkpoint` with `epoch` as a coordinate.

    Parameters
    ----------
    directory : path
        For instance runs/demo.
    partial : bool
        Leave unfinished checkpoints out instead of refusing.

    Raises
    ------
    FileNotFoundError
        If there is no manifest, or there are no finished features.
    ValueError
        If the checkpoints' networks differ in size, so that they do not fit side by side.
    """
    run = Run(Path(directory), Settings())
    names = run.checkpoints(partial)
    features = [open_features(run.features(name)) for name in names]
    odd = [name for name, found in zip(names, features, strict=True) if dict(found.sizes) != dict(features[0].sizes)]
    if odd:
        raise ValueError(
            f"{run.features_path}: {names[0]} and {odd[0]} are networks of different sizes, which do not fit side by side; "
            f"open each with xarray.open_zarr(..., group=NAME)"
        )
    texts = features[0].coords
    cams = [_cams(run, name).assign_coords(texts) for name in names]
    has_stats = bool(group_attributes(run.stats_path, JOINED))
    return OpenRun(
        run.manifest,
        _side_by_side(run, names, features),
        _side_by_side(run, names, cams),
        open_lazily(run.stats_path, JOINED) if has_stats else xr.Dataset(),
    )


def _cams(run: Run, name: str) -> xr.Dataset:
    store = run.cams(name)
    found = {}
    for key in map_keys(store):
        group, _, method = key.rpartition("/")
        found[key] = store.lazy(group)[method]
    return xr.Dataset(found)


def _side_by_side(run: Run, names: list[str], datasets: list[xr.Dataset]) -> xr.Dataset:
    epochs = [run.features(name).attributes["epoch"] for name in names]
    joined = xr.concat(datasets, dim="checkpoint", coords="minimal", compat="override", data_vars="all", combine_attrs="drop")
    labels = np.array(names, dtype=object)
    return joined.assign_coords(checkpoint=labels, epoch=("checkpoint", np.array([np.nan if epoch is None else epoch for epoch in epochs], float)))
