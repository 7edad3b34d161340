"""The head-randomisation check of a checkpoint, on a few images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from pipeline.cam.references import OtherHeads, References
from pipeline.features.reading import read_features
from pipeline.run.directory import Run
from pipeline.stats.staleness import FigureInputs
from pipeline.store.blocks import Block
from pipeline.work.stops import check_stop
from safenet.architecture import Architecture
from stages.cam.compute import compute_cams, needed_features
from stages.spreading import spread
from stages.stats.reductions import mean
from stages.stats.sanity import can_be_checked, fresh_heads, sanity_figures

_SEED = 0


def sanity_of(run: Run, one: FigureInputs) -> xr.Dataset:
    """Agreement of the maps with those under fresh heads, dims (product,); only the images that it looks at are read."""
    features, cams, wanted = run.features(one.name), run.cams(one.name), run.settings.stats.sanity_samples
    map_keys = [map_key for map_key in one.map_keys if can_be_checked(map_key)]
    with_images = [block for block in one.blocks if (one.groups.index[block.rows] >= 0).any()]
    if not map_keys or not wanted or not with_images:
        return xr.Dataset()
    network = Architecture(**features.attributes["architecture"])
    heads = fresh_heads(network, _SEED)
    references = References(features, OtherHeads(heads, features.attributes["class_names"], network.head_activation))
    references.prepare(map_keys)
    blocks, rows = _few_blocks(with_images, wanted), []
    for block in blocks:
        check_stop()
        chosen = np.flatnonzero(one.groups.index[block.rows] >= 0)[: -(-wanted // len(blocks))]
        within = slice(block.start + int(chosen[0]), block.start + int(chosen[-1]) + 1)
        read = references.attach(read_features(features, needed_features(map_keys), within), within, map_keys)
        looked_at = chosen - chosen[0]
        randomised = compute_cams(read.isel(sample=looked_at), map_keys, references.context)
        stored = {key: maps[looked_at] for key, maps in cams.arrays([map_key.key for map_key in map_keys], within).items()}
        rows.append(sanity_figures(stored, {key.key: randomised[key.key].values for key in map_keys}, map_keys))
    found = dict(zip(map_keys, mean(np.concatenate(rows), {}), strict=True))
    names = np.array([map_key.key for map_key in one.map_keys], dtype=object)
    return xr.Dataset({"sanity": ("product", np.array([found.get(key, np.nan) for key in one.map_keys]))}, coords={"product": names})


def _few_blocks(blocks: Sequence[Block], samples: int) -> list[Block]:
    """Evenly spread blocks that have at least so many samples together, or all."""
    count = min(len(blocks), -(-samples // len(blocks[0])))
    return [blocks[index] for index in spread(len(blocks), count)]
