"""All checkpoints side by side, with what changed from one to another of its series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from pipeline.run.directory import Run
from pipeline.stats.reduce import drift_to
from pipeline.stats.staleness import FigureInputs
from pipeline.store.fences import Fence
from pipeline.store.groups import JOINED
from pipeline.store.tables import read_dataset, without_attributes, write_dataset
from pipeline.work.executors import run_blocks


def write_joined(run: Run, inputs: Sequence[FigureInputs], mark: str, fence: Fence) -> None:
    """Join the checkpoints, and add the drift between those of a series, from the figures of their images."""
    drifts = run_blocks(run.settings.compute, lambda one: xr.merge([drift_to(run, one, kind) for kind in one.others]), inputs)
    parts = [without_attributes(read_dataset(run.stats_path, one.name)).merge(drift) for one, drift in zip(inputs, drifts, strict=True)]
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
    write_dataset(run.stats_path, JOINED, joined, {"stamp": mark}, fence)


def _shape(part: xr.Dataset) -> dict[str, int]:
    return {str(dim): size for dim, size in part.sizes.items() if dim in ("y", "x", "ring", "part")}
