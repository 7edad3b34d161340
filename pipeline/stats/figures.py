"""The figures of one checkpoint. They are reduced where its blocks are read, so only one group is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipeline.cam.references import OtherHeads, References
from pipeline.features.reading import read_features
from pipeline.features.variants import stored_variants
from pipeline.run.directory import Run
from pipeline.stats.staleness import FigureInputs
from pipeline.store.blocks import Block
from pipeline.store.fences import Fence
from pipeline.store.tables import write_dataset
from pipeline.work.executors import run_blocks
from pipeline.work.log import log
from pipeline.work.stops import check_stop
from safenet.architecture import Architecture
from stages.cam.compute import compute_cams, needed_features
from stages.finite import whole_or_nothing
from stages.schema import MASKS
from stages.spreading import spread
from stages.stats.groups import NEEDED_FEATURES, BlockSummary, combine, finalize, retrieval, summarise_block
from stages.stats.sanity import can_be_checked, fresh_heads, sanity_figures
from stages.stats.variants import retrieval_by_variant

_SANITY_SEED = 0


@dataclass(frozen=True)
class FiguresWork:
    """Figures of one checkpoint after the other, as `pipeline.work.executors` takes it."""

    run: Run
    fence: Fence

    def open(self, tell: Callable[[int], None]) -> Callable[[FigureInputs], None]:
        """Once in each process."""

        def write(one: FigureInputs) -> None:
            self.fence.check()  # before anything is computed in vain
            about = {"stamp": one.stamp, "made_with": one.made_with, "epoch": one.epoch}
            write_dataset(self.run.stats_path, one.name, figures_of(self.run, one), about, self.fence)
            log(f"{self.run.stats_path.name}/{one.name}: figures written")
            tell(1)

        return write


def figures_of(run: Run, one: FigureInputs) -> xr.Dataset:
    """Reduce a checkpoint's heat maps and features, block by block, dims (group, product, ...)."""
    features, cams, settings = run.features(one.name), run.cams(one.name), run.settings.stats
    wanted = [*NEEDED_FEATURES, *(key for key in MASKS if features.has(key))]
    network = Architecture(**features.attributes["architecture"])

    def work(block: Block) -> BlockSummary:
        maps = cams.read([key for map_key in one.map_keys for key in (map_key.key, map_key.facts_key)], block.rows)
        group = one.groups.index[block.rows]
        return summarise_block(maps, features.read(wanted, block.rows), group, len(one.groups.name), network, settings)

    found = finalize(combine(list(run_blocks(run.settings.compute, work, one.blocks))), one.groups, one.map_keys, settings)
    return found.merge(_sanity(run, one)).merge(_retrieval(run, one))  # the products keep their order


def _sanity(run: Run, one: FigureInputs) -> xr.Dataset:
    """Agreement of the maps with those under fresh heads, on a few images, dims (product,)."""
    features, wanted = run.features(one.name), run.settings.stats.sanity_samples
    map_keys = [map_key for map_key in one.map_keys if can_be_checked(map_key)]
    if not map_keys or not wanted:
        return xr.Dataset()
    network = Architecture(**features.attributes["architecture"])
    heads = fresh_heads(network, _SANITY_SEED)
    references = References(features, OtherHeads(heads, features.attributes["class_names"], network.head_activation))
    references.prepare(map_keys)
    rows, with_images = [], [block for block in one.blocks if (one.groups.index[block.rows] >= 0).any()]
    if not with_images:
        return xr.Dataset()
    for block in _few_blocks(with_images, wanted):
        check_stop()
        block_features = references.attach(read_features(features, needed_features(map_keys), block.rows), block.rows, map_keys)
        randomised = compute_cams(block_features, map_keys, references.context)
        stored = run.cams(one.name).read([map_key.key for map_key in map_keys], block.rows)
        rows.append(sanity_figures(stored, randomised, map_keys).isel(sample=one.groups.index[block.rows] >= 0))
    mean = xr.concat(rows, dim="sample").mean("sample")
    figures = xr.Dataset({"sanity": mean.assign_coords(product=np.array([map_key.key for map_key in map_keys], dtype=object))})
    return figures.reindex(product=np.array([map_key.key for map_key in one.map_keys], dtype=object))


def _few_blocks(blocks: Sequence[Block], samples: int) -> list[Block]:
    """Evenly spread blocks that have at least so many samples together, or all."""
    count = min(len(blocks), -(-samples // len(blocks[0])))
    return [blocks[index] for index in spread(len(blocks), count)]


def _retrieval(run: Run, one: FigureInputs) -> xr.Dataset:
    """Of all images that are looked at, and by flight height where there are several."""
    features = run.features(one.name)
    keys = ["embedding", "flip_embedding"] if features.has("flip_embedding") else ["embedding"]
    read = features.read([*keys, "place", "view", "roles"])
    embedding = np.sum([whole_or_nothing(read[key].values) for key in keys], axis=0)
    place, view, roles = (read[key].values.tolist() for key in ("place", "view", "roles"))
    looked_at = (one.groups.index >= 0).tolist()
    found = retrieval(embedding, place, view, roles, looked_at)
    return found.merge(retrieval_by_variant(embedding, place, view, roles, looked_at, stored_variants(run, features), one.variants))
