"""The stats stage: heat maps and small features -> figures.zarr, of every image, and stats.zarr, of every checkpoint and of all together."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.features.finished import finished_checkpoints
from pipeline.features.schema_versions import refuse_later
from pipeline.run.bring_up import PieceStage, bring_up_to_date
from pipeline.run.directory import Run
from pipeline.run.outcome import Outcome
from pipeline.run.preparing import take_over
from pipeline.stats.figures import FigurePiece, FiguresWork
from pipeline.stats.join import write_joined
from pipeline.stats.reduce import ReduceWork
from pipeline.stats.staleness import FigureInputs, all_inputs, is_fresh, joined_stamp, stale_ones
from pipeline.stats.state import figure_stamps, lacks_retrieval, lay_out_figures, own_pending, pending_figures, whole_stamp
from pipeline.store.blocks import Block
from pipeline.store.fences import Fence
from pipeline.store.groups import JOINED
from pipeline.work.executors import run_batches
from pipeline.work.pieces import Batch
from pipeline.work.stops import check_stop


def stats(run: Run, *, partial: bool = False) -> Outcome:
    """Bring the figures up to date: those of each image, then those of each checkpoint, then all together.

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
    """What the stats stage compares, computes and joins; a block of a checkpoint is one piece."""

    name, product, one_lock = "stats", "stats", True

    def __init__(self, run: Run, partial: bool) -> None:
        super().__init__(run)
        self._partial = partial
        self._everything: list[FigureInputs] = []
        self._stale: set[str] = set()
        self._whole: set[str] = set()  # whose images lacked nothing when they were looked at
        self._images = 0
        self._fence: Fence

    def subjects(self) -> list[FigureInputs]:
        """What each checkpoint's figures are made of."""
        self._everything = all_inputs(self.run, finished_checkpoints(self.run, self._partial))
        return self._everything

    def units(self, subject: FigureInputs) -> list[Block]:
        """Blocks of its heat maps."""
        return self.run.cams(subject.name).blocks

    def size(self, item: Block | FigurePiece) -> int:
        """Images."""
        return len(item)

    def prepare(self, alone: Collection[str]) -> None:
        """Sweep what stopped calls left, and compare."""
        self._stale = {one.name for one in stale_ones(self.run, self.mine)}
        self._fence = take_over(self.run, self.product, [self.run.stats_path], alone=bool(alone), stale=bool(self._stale))

    def lay_out(self, subject: FigureInputs, *, alone: bool) -> list[FigurePiece]:
        """Make room for the figures of the images, and say what each block lacks."""
        figures = self.run.figures(subject.name)
        pending = pending_figures(self.run, subject)
        if alone:
            figures.sweep()
            refuse_later(figures)
            if pending or not figures.is_laid_out:
                figures.take_over()
            lay_out_figures(self.run, subject)
            if pending:
                figures.ledger.forget_whole()
        if own_pending(pending) or lacks_retrieval(self.run, subject):
            self._stale.add(subject.name)
        if not pending:
            self._whole.add(subject.name)
            return []
        mine = {block.index for block in self.shared[subject.name]}
        wanted = [(block, keys) for block, keys in pending if block.index in mine]
        stamps = figure_stamps(self.run, subject, [block for block, _ in wanted])
        about = (subject.name, subject.map_keys, subject.others)
        return [FigurePiece(*about, block, {key: stamps[block][key] for key in sorted(keys)}, figures.fence) for block, keys in wanted]

    def work(self) -> FiguresWork:
        """Figures of blocks."""
        return FiguresWork(self.run)

    def take(self, subject: FigureInputs, piece: FigurePiece, result: None) -> None:
        """Count its images."""
        self._images += len(piece)

    def join(self) -> None:
        """Reduce the checkpoints whose images are done, and write the group that joins all; of parts the one that finds them all done."""
        done = [one for one in self._everything if one.name in self._whole or not pending_figures(self.run, one)]
        unsure = [one for one in done if one.name not in self._whole - self._stale]
        stale = {one.name for one in stale_ones(self.run, unsure)}
        todo = [one for one in unsure if one.name in stale or lacks_retrieval(self.run, one)]
        batches = [Batch(one.name, [one]) for one in todo]
        work = ReduceWork(self.run, self._fence)
        for _ in run_batches(self.run.settings.compute, work, batches, directory=self.run.directory, say=self.run.say):
            check_stop()
        for one in done:
            self._note_whole(one)
        mark = joined_stamp(self._everything)
        if len(done) == len(self._everything) and not is_fresh(self.run, JOINED, mark):
            write_joined(self.run, self._everything, mark, self._fence)

    def _note_whole(self, one: FigureInputs) -> None:
        figures, mark = self.run.figures(one.name), whole_stamp(self.run, one)
        noted = figures.ledger.whole()
        if noted.get("stamp") != mark or "bytes" not in noted:
            figures.ledger.mark_whole({"stamp": mark, "bytes": figures.ledger.marked_bytes(figures.blocks)})
        figures.consolidate()

    def left(self) -> str:
        """Checkpoints without figures."""
        left = stale_ones(self.run, self.mine)
        return f"left: figures of {len(left)} of {len(self.mine)} checkpoints; finished blocks are kept"

    def amount(self) -> int:
        """Images."""
        return self._images

    def outcome(self) -> Outcome:
        """Count checkpoints."""
        return Outcome(self.name, len(self._stale), len(self.mine) - len(self._stale), "checkpoints")
