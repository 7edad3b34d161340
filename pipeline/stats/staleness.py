"""What the figures of a checkpoint are made from, and whether stored figures are up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.cam.staleness import finished_stamps
from pipeline.cam.wanted import wanted_map_keys
from pipeline.disk.places import FEW, each
from pipeline.disk.stamps import stamp
from pipeline.features.finished import content_stamp, finished_checkpoints, images_stamp
from pipeline.features.state import layout_notes
from pipeline.features.texts import texts_of, valid_samples
from pipeline.features.variants import chosen_of, stored_variants, texts_digest
from pipeline.run.directory import MissingProductError, Run
from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import JOINED
from pipeline.store.tables import group_attributes, is_made_of, read_dataset
from safenet.architecture import Architecture
from stages.cam.map_keys import MapKey
from stages.index.variants import chosen_samples
from stages.labels import CheckpointName, series_of
from stages.recent import Recent
from stages.stats.compared import COMPARED
from stages.stats.figures import FIGURE_NAMES
from stages.stats.groups import Groups

VERSION = 8


@dataclass(frozen=True)
class FigureInputs:
    """What the figures of a checkpoint are made of.

    Attributes
    ----------
    blocks : sequence of Block
        Of the features.
    others : mapping
        Key of COMPARED -> name of the checkpoint of its series that it is compared with, where there is one of the same images and grid.
    compared : str
        Digest of the maps of these. It is not part of `made_with`: drift is added where the checkpoints are joined.
    """

    name: str
    map_keys: Sequence[MapKey]
    variants: Sequence[str]
    groups: Groups
    blocks: Sequence[Block]
    made_with: Mapping[str, Any]
    epoch: int | None
    series: str
    others: Mapping[str, str] = field(default_factory=dict)
    compared: str = ""

    @property
    def stamp(self) -> str:
        """Digest of what the figures are made with."""
        return stamp(self.made_with)


def all_inputs(run: Run, names: Sequence[str]) -> list[FigureInputs]:
    """Say what the figures of some checkpoints are to be made of."""
    grouped: Recent[tuple[str, bytes], tuple[list[str], Groups]] = Recent(2)  # the same of nearly all
    return _with_neighbours(run, each(run.features_path, lambda name: _inputs_of(run, name, grouped), names, at_once=FEW))


def _with_neighbours(run: Run, inputs: Sequence[FigureInputs]) -> list[FigureInputs]:
    """Say which checkpoints each is compared with, series by series: what one training changed says nothing of another."""
    found = list(inputs)
    grids = {one.name: _grid(run, one.name) for one in inputs}
    for numbers in series_of([CheckpointName(one.name, one.epoch, one.series) for one in inputs]).values():
        for place, number in enumerate(numbers):
            one = inputs[number]
            places = {kind: COMPARED[kind](place, len(numbers)) for kind in run.settings.stats.drift}
            others = {kind: inputs[numbers[other]] for kind, other in places.items() if other is not None}
            there = {kind: other for kind, other in others.items() if grids[other.name] == grids[one.name]}
            maps = {kind: stamp([other.made_with[key] for key in ("heat_maps", "features")]) for kind, other in there.items()}
            names = {kind: other.name for kind, other in there.items()}
            found[number] = replace(one, others=names, compared=stamp(maps))
    return found


def _grid(run: Run, name: str) -> tuple[str, int]:
    """Which images a checkpoint's samples are, and the cells along a side of its maps: only equal ones can be compared."""
    features = run.features(name)
    return images_stamp(run, features), Architecture(**features.attributes["architecture"]).grid


def _inputs_of(run: Run, name: str, grouped: Recent[tuple[str, bytes], tuple[list[str], Groups]]) -> FigureInputs:
    """Say what a checkpoint's figures are to be made of.

    Raises
    ------
    MissingProductError
        If heat maps are missing, or flight heights that the settings ask for.
    """
    map_keys = wanted_map_keys(run, name)
    features = run.features(name)
    stamps = finished_stamps(run, name, map_keys)
    valid = valid_samples(run, features)
    same = layout_notes(features)["texts"] or name, valid.tobytes()
    variants, groups = grouped.get(same, lambda: _grouped(run, features, valid))
    settings = run.settings.stats.model_dump(mode="json", exclude={"drift"})
    made_with = {
        "heat_maps": stamp(stamps),
        "features": content_stamp(features),
        "texts": texts_digest(run, features),
        "settings": settings,
        "version": VERSION,
        "figures": stamp(FIGURE_NAMES),
        "variants": variants,
    }
    attributes = features.attributes
    return FigureInputs(name, map_keys, variants, groups, features.blocks, made_with, attributes["epoch"], attributes.get("series", ""))


def _grouped(run: Run, features: GroupStore, valid: NDArray[np.bool_]) -> tuple[list[str], Groups]:
    """Return the flight heights that figures are of, and the groups of images."""
    variant = stored_variants(run, features)
    variants = chosen_of(run, variant, str(features))
    looked_at = valid & chosen_samples(variant, variants)
    return variants, Groups.of(texts_of(run, features, "split"), texts_of(run, features, "view"), looked_at.tolist(), variant)


def is_fresh(run: Run, group: str, mark: str) -> bool:
    """Whether a stored group is made of this, and its files have not been touched since, or are undamaged."""
    return is_made_of(run.stats_path, group, mark)


def stale_ones(run: Run, inputs: Sequence[FigureInputs]) -> list[FigureInputs]:
    """Those whose stored figures are not made of this, or damaged."""
    fresh = each(run.stats_path, lambda one: is_fresh(run, one.name, one.stamp), inputs, at_once=FEW)
    return [one for one, found in zip(inputs, fresh, strict=True) if not found]


def joined_stamp(inputs: Sequence[FigureInputs]) -> str:
    """Digest of what the group that joins all checkpoints is made of."""
    return stamp([[one.stamp, one.epoch, one.series, list(one.others)] for one in inputs])


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
