"""The head-randomisation check of a checkpoint, on a few images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.cam.references import OtherHeads, References
from pipeline.features.reading import read_features
from pipeline.run.directory import Run
from pipeline.stats.staleness import FigureInputs
from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from pipeline.work.stops import check_stop
from safenet.architecture import Architecture
from stages.cam.compute import compute_cams, needed_features
from stages.spreading import spread
from stages.stats.reductions import mean
from stages.stats.sanity import can_be_checked, fresh_heads, sanity_figures

_SEED = 0
_COMPARED_WITH = 1024  # images, in whole blocks, beside those of the places that are looked at


def sanity_of(run: Run, one: FigureInputs) -> xr.Dataset:
    """Agreement of the maps with those under fresh heads, dims (product,).

    Fresh heads embed only the images of the places that are looked at, and some others for what compares with the rest of the gallery.
    """
    features, cams, wanted = run.features(one.name), run.cams(one.name), run.settings.stats.sanity_samples
    map_keys = [map_key for map_key in one.map_keys if can_be_checked(map_key)]
    with_images = [block for block in one.blocks if (one.groups.index[block.rows] >= 0).any()]
    if not map_keys or not wanted or not with_images:
        return xr.Dataset()
    network = Architecture(**features.attributes["architecture"])
    heads = OtherHeads(fresh_heads(network, _SEED), features.attributes["class_names"], network.head_activation)
    blocks = _few_blocks(with_images, wanted)
    looked_at = {block: np.flatnonzero(one.groups.index[block.rows] >= 0)[: -(-wanted // len(blocks))] for block in blocks}
    references = References(features, heads, _compared_with(features, with_images, [block.start + looked_at[block] for block in blocks]))
    references.prepare(map_keys)
    rows = []
    for block, chosen in looked_at.items():
        check_stop()
        within = slice(block.start + int(chosen[0]), block.start + int(chosen[-1]) + 1)
        read = references.attach(read_features(features, needed_features(map_keys), within), within, map_keys)
        numbers = chosen - chosen[0]
        randomised = compute_cams(read.isel(sample=numbers), map_keys, references.context)
        stored = {key: maps[numbers] for key, maps in cams.arrays([map_key.key for map_key in map_keys], within).items()}
        rows.append(sanity_figures(stored, {key.key: randomised[key.key].values for key in map_keys}, map_keys))
    found = dict(zip(map_keys, mean(np.concatenate(rows), {}), strict=True))
    names = np.array([map_key.key for map_key in one.map_keys], dtype=object)
    return xr.Dataset({"sanity": ("product", np.array([found.get(key, np.nan) for key in one.map_keys]))}, coords={"product": names})


def _few_blocks(blocks: Sequence[Block], samples: int) -> list[Block]:
    """Evenly spread blocks that have at least so many samples together, or all."""
    count = min(len(blocks), -(-samples // len(blocks[0])))
    return [blocks[index] for index in spread(len(blocks), count)]


def _compared_with(features: GroupStore, blocks: Sequence[Block], looked_at: Sequence[NDArray[np.intp]]) -> NDArray[np.bool_]:
    """The images of the places that are looked at, and evenly spread blocks of others, [sample]."""
    place = features.values("place")
    found: NDArray[np.bool_] = np.isin(place.astype(str), place[np.concatenate(looked_at)].astype(str))
    for block in _few_blocks(blocks, _COMPARED_WITH):
        found[block.rows] = True
    return found
