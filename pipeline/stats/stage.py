"""The stats stage: cams.zarr and the small features -> stats.zarr, a group a checkpoint, and one that joins them."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.features.finished import finished_checkpoints
from pipeline.run.bring_up import PieceStage, bring_up_to_date
from pipeline.run.directory import Run
from pipeline.run.outcome import Outcome
from pipeline.run.preparing import take_over
from pipeline.stats.drift import write_joined
from pipeline.stats.figures import FiguresWork
from pipeline.stats.staleness import FigureInputs, all_inputs, is_fresh, joined_stamp, stale_ones
from pipeline.store.fences import Fence
from pipeline.store.groups import JOINED


def stats(run: Run, *, partial: bool = False) -> Outcome:
    """Bring the figures up to date: those of each checkpoint, then what changes from one to the next.

    Parameters
    ----------
    run : Run
    partial : bool
        Leave out unfinished checkpoints instead of refusing.

    Raises
    ------
    MissingProductError
        If features or heat maps are missing or unfinished.
    """
    return bring_up_to_date(StatsStage(run, partial))


class StatsStage(PieceStage[FigureInputs]):
    """What the stats stage compares, computes and joins; a checkpoint is one piece."""

    name, product, image_unit, one_lock = "stats", "stats", "checkpoint", True

    def __init__(self, run: Run, partial: bool) -> None:
        super().__init__(run)
        self._partial = partial
        self._everything: list[FigureInputs] = []
        self._stale: set[str] = set()
        self._done = 0
        self._fence: Fence

    def subjects(self) -> list[FigureInputs]:
        """What each checkpoint's figures are made of."""
        self._everything = all_inputs(self.run, finished_checkpoints(self.run, self._partial))
        return self._everything

    def prepare(self, alone: Collection[str]) -> None:
        """Sweep what stopped calls left, and compare."""
        self._stale = {one.name for one in stale_ones(self.run, self.mine)}
        self._fence = take_over(self.run, self.product, [self.run.stats_path], alone=bool(alone), stale=bool(self._stale))

    def lay_out(self, subject: FigureInputs, *, alone: bool) -> list[FigureInputs]:
        """A group is written whole: there is nothing to lay out."""
        return [subject] if subject.name in self._stale else []

    def work(self) -> FiguresWork:
        """Figures of checkpoints."""
        return FiguresWork(self.run, self._fence)

    def finish(self, subject: FigureInputs) -> None:
        """Count it."""
        self._done += subject.name in self._stale

    def join(self) -> None:
        """Write the group that joins all checkpoints; of parts the one that finds them all done."""
        mark = joined_stamp(self._everything)
        if not stale_ones(self.run, self._everything) and not is_fresh(self.run, JOINED, mark):
            write_joined(self.run, self._everything, mark, self._fence)

    def left(self) -> str:
        """Checkpoints without figures."""
        return f"left: figures of {len(self._stale) - self._done} of {len(self.mine)} checkpoints"

    def amount(self) -> int:
        """Images."""
        return len(self._stale) * len(self.run.manifest)

    def outcome(self) -> Outcome:
        """Count checkpoints."""
        return Outcome(self.name, len(self._stale), len(self.mine) - len(self._stale), "checkpoints")
