"""What one process of the pixels stage takes at once, and what it returns; nothing here imports the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pipeline.pixels.inputs import CurveInputs
from pipeline.run.directory import Run
from pipeline.store.fences import Fence
from pipeline.work.stops import loading


@dataclass(frozen=True)
class CurvePiece:
    """A checkpoint, and the images that its curves are measured on, by number."""

    inputs: CurveInputs
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """What became of a piece: on how many images, and what a reader is told of it."""

    images: int
    note: str


@dataclass(frozen=True)
class CurveWork:
    """Curves of one checkpoint after the other, as `pipeline.work.executors` takes it."""

    run: Run
    fence: Fence

    def open(self, tell: Callable[[int], None]) -> Callable[[CurvePiece], Measured]:
        """Once in each process that has something to do: this imports the network."""
        with loading():
            from pipeline.pixels.curves import measure
        return partial(measure, self.run, self.fence, tell)
