"""The figures of one block of images, computed position by position: no more maps are in memory than those of one position."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from safenet.architecture import Architecture
from stages.cam.map_keys import MapKey
from stages.schema import MASKS, Arrays
from stages.stats.agreement import by_position
from stages.stats.images import IMAGES, image_figures, map_figures, read_for
from stages.stats.modules import MODULE_FEATURES
from stages.stats.settings import StatsSettings

_AT_ONCE = 256  # images: their maps of one method lie in the cache of a core


@dataclass(frozen=True)
class Sources:
    """The stores that the figures of a checkpoint are made of.

    Attributes
    ----------
    others : mapping
        Key of COMPARED -> heat maps of the checkpoint that this one is compared with, where there is one.
    """

    features: GroupStore
    cams: GroupStore
    map_keys: Sequence[MapKey]
    others: Mapping[str, GroupStore] = field(default_factory=dict)

    @property
    def network(self) -> Architecture:
        """Of the features."""
        return Architecture(**self.features.attributes["architecture"])

    @property
    def has_masks(self) -> bool:
        """Whether there are masks of the targets."""
        return all(self.features.has(key) for key in MASKS)


def figures_of_block(sources: Sources, block: Block, wanted: Collection[str], settings: StatsSettings) -> dict[str, NDArray[np.float64]]:
    """Return the wanted arrays of a block: key -> float64 [n, column], as `stages.stats.images` names them."""
    masks = MASKS if sources.has_masks else ()
    features = sources.features.arrays([*MODULE_FEATURES, *masks], block.rows)
    found = {IMAGES: image_figures(features)} if IMAGES in wanted else {}
    for map_keys in by_position(sources.map_keys).values():
        if needed := read_for(map_keys, wanted, sources.network):
            found |= _figures_of_maps(sources, map_keys, block, needed, wanted, features, settings)
    return found


def _figures_of_maps(
    sources: Sources,
    map_keys: Sequence[MapKey],
    block: Block,
    needed: Sequence[str],
    wanted: Collection[str],
    features: Arrays,
    settings: StatsSettings,
) -> dict[str, NDArray[np.float64]]:
    cams = sources.cams.arrays(needed, block.rows)
    others = {
        kind: _maps_there(store, [key.key for key in map_keys if f"{kind}/{key.key}" in wanted], block) for kind, store in sources.others.items()
    }
    parts = [
        map_figures(
            _cut(cams, rows),
            _cut(features, rows),
            {kind: _cut(maps, rows) for kind, maps in others.items()},
            map_keys,
            wanted,
            sources.network,
            settings,
        )
        for rows in slices(len(block))
    ]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _maps_there(store: GroupStore, keys: Sequence[str], block: Block) -> Arrays:
    there = store.present(keys)
    return store.arrays([key for key in keys if key in there], block.rows)


def _cut(arrays: Arrays, rows: slice) -> Arrays:
    return {name: values[rows] for name, values in arrays.items()}


def slices(count: int) -> Iterator[slice]:
    """Cut so many images into parts whose maps are in the cache together."""
    return (slice(start, start + _AT_ONCE) for start in range(0, count, _AT_ONCE))
