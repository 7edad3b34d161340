"""The figures of one checkpoint. They are reduced where its blocks are read, so only one group is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipeline.run.directory import Run
from pipeline.stats.blocks import Sources, figures_of_block
from pipeline.stats.reduce import gallery_of, reduce_figures, reduce_retrieval
from pipeline.stats.sanity import sanity_of
from pipeline.stats.staleness import FigureInputs
from pipeline.store.fences import Fence
from pipeline.store.tables import write_dataset
from pipeline.work.executors import run_blocks
from pipeline.work.log import log
from stages.stats.images import keys_of


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
    """Compute the figures of a checkpoint's images, block by block, and reduce them, dims (group, product, ...)."""
    features, cams = run.features(one.name), run.cams(one.name)
    sources = Sources(features, cams, one.map_keys)
    wanted = frozenset(keys_of(one.map_keys))
    blocks = list(run_blocks(run.settings.compute, lambda block: figures_of_block(sources, block, wanted, run.settings.stats), cams.blocks))
    found = reduce_figures(run, one, sources, lambda key: np.concatenate([block[key] for block in blocks]))
    gallery = gallery_of(one, features)
    retrieval = reduce_retrieval(run, one, gallery, gallery.figures(), features)
    return found.merge(sanity_of(run, one)).merge(retrieval)  # the maps keep their order
