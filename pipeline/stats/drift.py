"""All checkpoints side by side, with what changed from one to the next and to the last of its series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipeline.features.finished import images_stamp
from pipeline.run.directory import Run
from pipeline.stats.blocks import Sources, figures_of_block
from pipeline.stats.staleness import FigureInputs
from pipeline.store.fences import Fence
from pipeline.store.groups import JOINED
from pipeline.store.tables import read_dataset, without_attributes, write_dataset
from pipeline.work.executors import run_batches, run_blocks
from pipeline.work.pieces import Batch
from stages.labels import CheckpointName, series_of
from stages.stats.drift import boundary_changed
from stages.stats.groups import labelled
from stages.stats.images import reduced_drifts
from stages.stats.reductions import mean


def write_joined(run: Run, inputs: Sequence[FigureInputs], mark: str, fence: Fence) -> None:
    """Join the checkpoints and add the drift from the previous and to the last one of each series."""
    pairs = pairs_of(inputs)
    compute, groups = run.settings.compute, [Batch(pair.one.name, [pair]) for pair in pairs]
    drifts = {done.batch: done.result for done in run_batches(compute, DriftWork(run), groups, directory=run.directory, say=run.say)}
    parts = [without_attributes(read_dataset(run.stats_path, one.name)).merge(drifts[one.name]) for one in inputs]
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


@dataclass(frozen=True)
class Pairs:
    """A checkpoint, and those of its series that it is compared with."""

    previous: FigureInputs | None
    one: FigureInputs
    last: FigureInputs


def pairs_of(inputs: Sequence[FigureInputs]) -> list[Pairs]:
    """Series by series: what one training changed says nothing of another."""
    named = [CheckpointName(one.name, one.epoch, one.series) for one in inputs]
    found = []
    for numbers in series_of(named).values():
        of_series = [inputs[number] for number in numbers]
        found += [Pairs(of_series[number - 1] if number else None, one, of_series[-1]) for number, one in enumerate(of_series)]
    return found


@dataclass(frozen=True)
class DriftWork:
    """What changed from the previous checkpoint to one, and from that to the last: small arrays."""

    run: Run

    def open(self, tell: Callable[[int], None]) -> Callable[[Pairs], xr.Dataset]:
        """Once in each process."""
        return self._compare

    def _compare(self, pairs: Pairs) -> xr.Dataset:
        return _drift(self.run, pairs.previous, pairs.one, "previous").merge(_drift(self.run, pairs.one, pairs.last, "last"))


def _shape(part: xr.Dataset) -> dict[str, int]:
    return {str(dim): size for dim, size in part.sizes.items() if dim in ("y", "x", "ring", "part")}


def _drift(run: Run, before: FigureInputs | None, after: FigureInputs, suffix: str) -> xr.Dataset:
    """Drift between two checkpoints; nothing where there is no earlier one, or its samples or grid differ."""
    if before is None or not _comparable(run, before, after):
        return xr.Dataset()
    sources = Sources(run.features(after.name), run.cams(after.name), after.map_keys, {suffix: run.cams(before.name)})
    wanted, members = frozenset(f"{suffix}/{key.key}" for key in after.map_keys), after.groups.members
    blocks = list(run_blocks(run.settings.compute, lambda block: figures_of_block(sources, block, wanted, run.settings.stats), sources.cams.blocks))
    found = reduced_drifts(lambda key: np.concatenate([block[key] for block in blocks]), members, after.map_keys, suffix)
    features = [run.features(one.name).arrays(["boundary", "saliency"]) for one in (before, after)]
    if features[0]["boundary"].shape == features[1]["boundary"].shape:
        changed = boundary_changed(features[0], features[1])
        found[f"boundary_changed_to_{suffix}"] = (("group",), np.array([mean(changed[chosen], {}) for chosen in members]))
    return labelled(found, after.groups, after.map_keys)


def _comparable(run: Run, before: FigureInputs, after: FigureInputs) -> bool:
    one, other = (run.features(inputs.name).attributes for inputs in (before, after))
    grids = [attributes["architecture"]["image_size"] // attributes["architecture"]["patch_size"] for attributes in (one, other)]
    same_images = images_stamp(run.features(before.name)) == images_stamp(run.features(after.name))
    return same_images and grids[0] == grids[1]
