"""The pixels stage's work as a plain value; the network is imported by the process that opens it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pipeline.pixels.pieces import CurvePiece, Measured
from pipeline.run.directory import Run
from pipeline.store.fences import Fence
from pipeline.work.stops import loading


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
