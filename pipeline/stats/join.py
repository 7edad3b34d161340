"""All checkpoints side by side, with what changed from one to another of its series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from pipeline.disk.stamps import stamp
from pipeline.run.directory import Run
from pipeline.stats.reduce import drift_to
from pipeline.stats.staleness import FigureInputs
from pipeline.stats.state import FIGURES_VERSION
from pipeline.store.fences import Fence
from pipeline.store.groups import JOINED, DamagedStoreError
from pipeline.store.tables import group_attributes, read_dataset, without_attributes, write_dataset
from pipeline.work.executors import run_blocks


def write_joined(run: Run, inputs: Sequence[FigureInputs], mark: str, fence: Fence) -> None:
    """Join the checkpoints, and add the drift between those of a series, from the figures of their images.

    Drift that was joined before and is of the same maps is taken from there: a new checkpoint need not read the figures of all others.
    """
    parts = [without_attributes(read_dataset(run.stats_path, one.name)).merge(drift) for one, drift in zip(inputs, _drifts(run, inputs), strict=True)]
    odd = [one.name for one, part in zip(inputs, parts, strict=True) if _shape(part) != _shape(parts[0])]
    if odd:
        raise ValueError(
            f"{run.stats_path}: {inputs[0].name} and {odd[0]} differ in grid or parts, so their figures cannot be joined; use a run for each"
        )
    joined = xr.concat(parts, dim="checkpoint", join="outer", data_vars="all")
    joined = joined.assign_coords(
        checkpoint=("checkpoint", np.array([one.name for one in inputs], dtype=object)),
        epoch=("checkpoint", np.array([np.nan if one.epoch is None else one.epoch for one in inputs], float)),
        series=("checkpoint", np.array([one.series for one in inputs], dtype=object)),
    )
    about = {"stamp": mark, "drift": list(run.settings.stats.drift), "drifts": {one.name: _drift_stamp(one) for one in inputs}}
    write_dataset(run.stats_path, JOINED, joined, about, fence)


def _drifts(run: Run, inputs: Sequence[FigureInputs]) -> list[xr.Dataset]:
    noted = group_attributes(run.stats_path, JOINED).get("drifts", {})
    same = {one.name for one in inputs if noted.get(one.name) == _drift_stamp(one)}
    joined = _joined_before(run) if same else xr.Dataset()
    there = same & set(joined.get("checkpoint", xr.DataArray([])).values.tolist())
    missing = [one for one in inputs if one.name not in there]
    made = dict(zip((one.name for one in missing), run_blocks(run.settings.compute, lambda one: _drift_of(run, one), missing), strict=True))
    return [_taken(joined, one) if one.name in there else made[one.name] for one in inputs]


def _joined_before(run: Run) -> xr.Dataset:
    try:
        return without_attributes(read_dataset(run.stats_path, JOINED))
    except DamagedStoreError:
        return xr.Dataset()


def _drift_of(run: Run, one: FigureInputs) -> xr.Dataset:
    return xr.merge([drift_to(run, one, kind) for kind in one.others])


def _taken(joined: xr.Dataset, one: FigureInputs) -> xr.Dataset:
    """The drift of a checkpoint, as `_drift_of` returns it."""
    at = joined.sel(checkpoint=one.name).drop_vars(["checkpoint", "epoch", "series"])
    at = at[[name for name in at.data_vars if str(name).endswith(tuple(f"_to_{kind}" for kind in one.others))]]
    labels = {"group": list(one.groups.name), "product": [key.key for key in one.map_keys]}
    return at.sel({dim: wanted for dim, wanted in labels.items() if dim in at.dims})


def _drift_stamp(one: FigureInputs) -> str:
    """Digest of what the drift of a checkpoint is made of: its own maps and groups, and the maps of the others."""
    return stamp([one.stamp, one.compared, FIGURES_VERSION])


def _shape(part: xr.Dataset) -> dict[str, int]:
    return {str(dim): size for dim, size in part.sizes.items() if dim in ("y", "x", "ring", "part")}
