"""What one process of the stats stage does: it computes and writes the figures of the images of a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.run.directory import Run
from pipeline.stats.blocks import figures_of_block
from pipeline.stats.state import sources_of
from pipeline.store.blocks import Block
from pipeline.store.fences import Fence
from pipeline.work.log import log
from pipeline.work.stops import check_stop
from stages.cam.map_keys import MapKey


@dataclass(frozen=True)
class FigurePiece:
    """Figures that one block lacks.

    Attributes
    ----------
    name, map_keys, others
        As in FigureInputs.
    stamps : mapping
        Key of an array -> what its figures are made of: see `pipeline.stats.state.figure_stamps`.
    fence : Fence
        Under which the piece is given out.
    """

    name: str
    map_keys: Sequence[MapKey]
    others: Mapping[str, str]
    block: Block
    stamps: dict[str, str]
    fence: Fence

    def __len__(self) -> int:
        """Images."""
        return len(self.block)


@dataclass(frozen=True)
class FiguresWork:
    """Figures of one block after the other, as `pipeline.work.executors` takes it."""

    run: Run

    def open(self, tell: Callable[[int], None]) -> Callable[[FigurePiece], None]:
        """Once in each process."""

        def write(piece: FigurePiece) -> None:
            check_stop()
            piece.fence.check()  # before anything is computed in vain
            figures = self.run.figures(piece.name)
            if not (figures.ledger.is_done(piece.block, piece.stamps) and figures.holds(piece.block, piece.stamps)):
                found = figures_of_block(sources_of(self.run, piece), piece.block, frozenset(piece.stamps), self.run.settings.stats)
                figures.write_block(piece.block, {key: values.astype(np.float32) for key, values in found.items()}, piece.stamps, piece.fence)
                log(f"{figures} {piece.block}: {len(found)} arrays of figures written")
            tell(len(piece))

        return write
