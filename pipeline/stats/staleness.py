"""What the figures of a checkpoint are made from, and whether stored figures are up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from pipeline.cam.staleness import finished_stamps
from pipeline.cam.wanted import wanted_map_keys
from pipeline.disk.places import FEW, each
from pipeline.disk.stamps import difference, stamp
from pipeline.features.finished import content_stamp, finished_checkpoints
from pipeline.features.variants import chosen_of, stored_variants, texts_digest
from pipeline.run.directory import MissingProductError, Run
from pipeline.store.blocks import Block
from pipeline.store.groups import JOINED
from pipeline.store.tables import dataset_seal, group_attributes, read_dataset
from stages.cam.map_keys import MapKey
from stages.index.variants import chosen_samples
from stages.stats.groups import Groups

VERSION = 5


@dataclass(frozen=True)
class FigureInputs:
    """What the figures of a checkpoint are made of."""

    name: str
    map_keys: Sequence[MapKey]
    variants: Sequence[str]
    groups: Groups
    blocks: Sequence[Block]
    made_with: Mapping[str, Any]
    epoch: int | None
    series: str

    @property
    def stamp(self) -> str:
        """Digest of what the figures are made with."""
        return stamp(self.made_with)


def all_inputs(run: Run, names: Sequence[str]) -> list[FigureInputs]:
    """Say what the figures of some checkpoints are to be made of."""
    return each(run.features_path, lambda name: inputs_of(run, name), names, at_once=FEW)


def inputs_of(run: Run, name: str) -> FigureInputs:
    """Say what a checkpoint's figures are to be made of.

    Raises
    ------
    MissingProductError
        If heat maps are missing, or flight heights that the settings ask for.
    """
    map_keys = wanted_map_keys(run, name)
    features = run.features(name)
    stamps = finished_stamps(run, name, map_keys)
    variant = stored_variants(run, features)
    variants = chosen_of(run, variant, str(features))
    looked_at = features.values("valid") & chosen_samples(variant, variants)
    groups = Groups.of(features.values("split").tolist(), features.values("view").tolist(), looked_at.tolist(), variant)
    settings = run.settings.stats.model_dump(mode="json")
    made_with = {
        "heat_maps": stamp(stamps),
        "features": content_stamp(features),
        "texts": texts_digest(run, features),
        "settings": settings,
        "version": VERSION,
        "variants": variants,
    }
    attributes = features.attributes
    return FigureInputs(name, map_keys, variants, groups, features.blocks, made_with, attributes["epoch"], attributes.get("series", ""))


def is_fresh(run: Run, group: str, mark: str) -> bool:
    """Whether a stored group is made of this, and undamaged."""
    return group_attributes(run.stats_path, group).get("stamp") == mark and not dataset_seal(run.stats_path, group).faults()


def stale_ones(run: Run, inputs: Sequence[FigureInputs]) -> list[FigureInputs]:
    """Those whose stored figures are not made of this, or damaged."""
    fresh = each(run.stats_path, lambda one: is_fresh(run, one.name, one.stamp), inputs, at_once=FEW)
    return [one for one, found in zip(inputs, fresh, strict=True) if not found]


def stale_figures(run: Run, names: Sequence[str]) -> dict[str, str]:
    """Name of a checkpoint (or JOINED) whose figures are missing or stale -> why."""
    inputs = all_inputs(run, names)
    found = {one.name: _why_stale(run, one) for one in stale_ones(run, inputs)}
    if not is_fresh(run, JOINED, joined_stamp(inputs)):
        found[JOINED] = "a checkpoint's figures change" if found else "the checkpoints changed, or its files are damaged"
    return found


def _why_stale(run: Run, one: FigureInputs) -> str:
    made = group_attributes(run.stats_path, one.name)
    return difference(made.get("made_with", {}), one.made_with) or "its files are damaged" if made else "not computed yet"


def joined_stamp(inputs: Sequence[FigureInputs]) -> str:
    """Digest of what the group that joins all checkpoints is made of."""
    return stamp([[one.stamp, one.epoch, one.series] for one in inputs])


def open_stats(run: Run) -> xr.Dataset:
    """Open the figures of all checkpoints, dims (checkpoint, group, product, ...), in memory.

    Raises
    ------
    MissingProductError
        If there are none, or they were made of other heat maps than those that the settings ask for.
    """
    made = group_attributes(run.stats_path, JOINED).get("stamp")
    if made is None:
        raise MissingProductError(f"{run.stats_path}: no figures; run `atlas stats` first")
    if made != joined_stamp(all_inputs(run, finished_checkpoints(run, partial=True))):
        raise MissingProductError(f"{run.stats_path}: older than the heat maps or the settings; run `atlas stats` again")
    return read_dataset(run.stats_path, JOINED)
