"""Pointing and energy of a checkpoint's maps against the masks of other places, folded block by block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.settings.all import Settings
from pipeline.stats.blocks import Sources, slices
from pipeline.store.blocks import Block
from pipeline.work.executors import run_blocks
from stages.cam.map_keys import MapKey
from stages.schema import MASKS
from stages.stats.agreement import by_position
from stages.stats.baselines import KINDS, MaskSums
from stages.stats.bootstrap import PlaceBootstrap, PlaceSums
from stages.stats.groups import Groups
from stages.stats.heats import heats_of
from stages.stats.images import Variables
from stages.stats.intervals import Intervals, of_maps

_DIM = "shuffled_figure"


def baselines(settings: Settings, sources: Sources, groups: Groups, bootstrap: PlaceBootstrap) -> Variables:
    """Return `shuffled` and `of_mean_map`, dims (group, product, shuffled_figure), and the intervals of the first; nothing without masks."""
    if not (sources.has_masks and sources.map_keys):
        return {}
    pairs, pair = np.unique(np.stack([groups.index, bootstrap.place], axis=1), axis=0, return_inverse=True)
    pair = np.where(groups.index >= 0, pair.reshape(-1), -1)
    found: dict[MapKey, tuple[list[PlaceSums], NDArray[np.floating]]] = {}
    for map_keys in by_position(sources.map_keys).values():
        sums = _folded(settings, sources, map_keys, pair, len(pairs))
        shuffled = [_of_all_places(sums.shuffled(pairs[:, 0], number), pairs, number, bootstrap) for number in range(len(groups.name))]
        of_mean_map = np.stack([sums.of_mean_map(pairs[:, 0], number) for number in range(len(groups.name))])
        for number, key in enumerate(map_keys):
            found[key] = [_of_map(group, number) for group in shuffled], of_mean_map[:, :, number]
    subjects = [found[key][0] for key in sources.map_keys]
    columns = {kind: number for number, kind in enumerate(KINDS)}
    return {
        "shuffled": (("group", "product", _DIM), np.stack([[sums.mean for sums in subject] for subject in subjects], axis=1)),
        "of_mean_map": (("group", "product", _DIM), np.stack([found[key][1] for key in sources.map_keys], axis=1)),
        **of_maps(Intervals(groups, bootstrap).of(subjects), columns, _DIM),
    }


def _folded(settings: Settings, sources: Sources, map_keys: Sequence[MapKey], pair: NDArray[np.integer], pairs: int) -> MaskSums:
    """Add up the maps of one position, a few images at a time."""

    def work(block: Block) -> list[MaskSums]:
        cams = sources.cams.arrays([name for key in map_keys for name in (key.key, key.facts_key)], block.rows)
        features = sources.features.arrays(["theta", "source_cell", *MASKS], block.rows)
        parts = []
        for rows in slices(len(block)):
            few, beside = ({name: values[rows] for name, values in arrays.items()} for arrays in (cams, features))
            heats = heats_of(few, beside, map_keys, {}, sources.network, settings.stats)
            parts.append(MaskSums.of(list(heats.values()), pair[block.rows][rows]))
        return parts

    total = MaskSums.nothing(len(map_keys), pairs, sources.network.grid**2)
    for parts in run_blocks(settings.compute, work, sources.cams.blocks):
        for part in parts:
            total.include(part)
    return total


def _of_all_places(kinds: Sequence[PlaceSums], pairs: NDArray[np.integer], number: int, bootstrap: PlaceBootstrap) -> list[PlaceSums]:
    """Give the sums of a group's places a row for every place of the dataset."""
    places = pairs[pairs[:, 0] == number, 1]
    found = []
    for sums in kinds:
        full = np.zeros((2, bootstrap.drawn.shape[1], sums.count.shape[1]))
        full[:, places] = sums.count, sums.total
        found.append(PlaceSums(*full))
    return found


def _of_map(kinds: Sequence[PlaceSums], number: int) -> PlaceSums:
    """Figures of one map, a column for each of KINDS."""
    return PlaceSums.beside([PlaceSums(sums.count[:, [number]], sums.total[:, [number]]) for sums in kinds])
