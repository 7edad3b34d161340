"""The one way in which a stage brings its product up to date: compare, share, lay out, compute in pieces, account, finish, note the rate.

`PieceStage` is what a stage is asked for; `bring_up_to_date` asks, in the order in which the methods stand there, and does
all the bookkeeping: locks, parts, progress, stops and rates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pipeline.run.directory import Run
from pipeline.run.outcome import Outcome
from pipeline.run.preparing import finishing, preparing
from pipeline.run.rates import note_rate
from pipeline.work.executors import run_batches
from pipeline.work.pieces import Batch, Done, Needs, Work
from pipeline.work.progress import Progress
from pipeline.work.stops import check_stop, telling_what_is_left
from pipeline.work.threads import one_thread_a_product


class Subject(Protocol):
    """What a stage makes its product of and for, such as a checkpoint."""

    @property
    def name(self) -> str:
        """Of its lock, and of the batch of its pieces."""


SubjectType = TypeVar("SubjectType", bound=Subject)


class PieceStage(ABC, Generic[SubjectType]):
    """A stage during one call.

    Parameters
    ----------
    run : Run

    Attributes
    ----------
    name : str
        Of the command, and of its rate.
    product : str
        What it writes, as its locks are called.
    image_unit : str
        What the progress counts, in the singular.
    needs : {"cpu", "gpu"}
        Which workers of a cluster take its pieces; in this process, pieces that need a GPU come one after the other.
    one_lock : bool
        Whether one lock guards the whole product, instead of one a subject.
    """

    name: ClassVar[str]
    product: ClassVar[str]
    image_unit: ClassVar[str] = "image"
    needs: ClassVar[Needs] = "cpu"
    one_lock: ClassVar[bool] = False

    def __init__(self, run: Run) -> None:
        self.run = run
        self.mine: Sequence[SubjectType] = ()  # what this process sees to, and which units of it by the subject's name: known once
        self.shared: Mapping[str, Sequence[Any]] = {}  # the work is shared out

    @abstractmethod
    def subjects(self) -> Sequence[SubjectType]:
        """Return what there is to see to. Refuse what cannot be done; write nothing."""

    def units(self, subject: SubjectType) -> Sequence[Any]:
        """Return a subject's units of work, done or not: these are what parts share out."""
        return [subject]

    def size(self, item: Any) -> int:
        """Return how much progress a unit, or a piece, stands for."""
        return 1

    def inspect(self) -> None:
        """Look at what this process sees to, before any lock is held. Refuse; write nothing."""

    def prepare(self, alone: Collection[str]) -> None:
        """Sweep leftovers and compare, with the locks held. Refuse before anything is laid out.

        `alone` names the subjects that no other process writes: only these may be swept.
        """

    @abstractmethod
    def lay_out(self, subject: SubjectType, *, alone: bool) -> Sequence[Any]:
        """Make room for a subject's product where it is `alone`, and return the pieces of this process's share that nothing proves to be done."""

    @abstractmethod
    def work(self) -> Work:
        """Return what is done with a piece, in this process or another."""

    def take(self, subject: SubjectType, piece: Any, result: Any) -> None:
        """Account for a piece that is done."""

    def finish(self, subject: SubjectType) -> None:
        """Note that a subject's product is whole. A part must look first whether the others are done, too."""

    def join(self) -> None:
        """Write what is made of all subjects together. A part must look first whether the others are done, too."""

    def left(self) -> str:
        """Say what is left to do when the work is stopped."""
        return f"left: run `atlas {self.name}` again"

    def amount(self) -> float:
        """Return how much was computed, in the unit of the stage's rate."""
        return 0

    @abstractmethod
    def outcome(self) -> Outcome:
        """Say what was done."""


@dataclass
class _Open:
    """A subject that is laid out, and how many of its pieces are not done."""

    subject: Any
    waiting: int


def bring_up_to_date(stage: PieceStage[Any]) -> Outcome:
    """Bring a stage's product up to date, or this part's share of it; what is done is not done again.

    Raises
    ------
    LockedError
        If another process writes the product.
    Stopped
        If a signal came; a note tells what is left.
    Exception
        Whatever the stage refuses.
    """
    started = perf_counter()
    with one_thread_a_product() if stage.needs == "cpu" else nullcontext():
        _bring_up_to_date(stage)
    note_rate(stage.run.directory, stage.name, stage.amount(), perf_counter() - started)
    return stage.outcome()


def _bring_up_to_date(stage: PieceStage[Any]) -> None:
    run = stage.run
    _share_out(stage)
    stage.inspect()
    locks = {subject.name: stage.product if stage.one_lock else f"{stage.product}/{subject.name}" for subject in stage.mine}
    with preparing(run, stage.product, [stage.product] if stage.one_lock else list(locks.values())) as preparation:
        alone = {name for name, lock in locks.items() if lock in preparation.alone}
        stage.prepare(alone)
        total = sum(stage.size(unit) for units in stage.shared.values() for unit in units)
        with telling_what_is_left(stage.left, run.directory), Progress(stage.name, total, stage.image_unit, shown=run.progress) as progress:
            opened: dict[str, _Open] = {}
            batches: Iterable[Batch] = _laid_out(stage, alone, opened, progress)
            if not run.share.is_whole:  # the next part may only look when all of this one's is laid out
                batches = list(batches)
                preparation.let_in()
            for done in _done(stage, _todo(stage, batches, opened), progress):
                check_stop()
                one = opened[done.batch]
                one.waiting -= 1
                stage.take(one.subject, done.item, done.result)
                if not one.waiting:
                    _finish(stage, one.subject)
            with finishing(run, stage.product):
                stage.join()


def _share_out(stage: PieceStage[Any]) -> None:
    """Say what this process sees to: everything, or a part's consecutive units and their subjects."""
    share, subjects = stage.run.share, stage.subjects()
    units = [(subject.name, unit) for subject in subjects for unit in stage.units(subject)]
    shared: dict[str, list[Any]] = {subject.name: [] for subject in subjects} if share.is_whole else {}
    for name, unit in share.of(units):
        shared.setdefault(name, []).append(unit)
    stage.mine, stage.shared = [subject for subject in subjects if subject.name in shared], shared


def _laid_out(stage: PieceStage[Any], alone: Collection[str], opened: dict[str, _Open], progress: Progress) -> Iterator[Batch]:
    """Lay out one subject after the other, when there is a process for it."""
    for subject in stage.mine:
        pieces = stage.lay_out(subject, alone=subject.name in alone)
        opened[subject.name] = _Open(subject, len(pieces))
        progress.leave_out(sum(map(stage.size, stage.shared[subject.name])) - sum(map(stage.size, pieces)))
        yield Batch(subject.name, pieces)


def _todo(stage: PieceStage[Any], batches: Iterable[Batch], opened: Mapping[str, _Open]) -> Iterator[Batch]:
    """Leave out the subjects that lack nothing: they are finished at once, after a part has let go of the lock that finishing takes."""
    for batch in batches:
        if batch.items:
            yield batch
        else:
            _finish(stage, opened[batch.name].subject)


def _done(stage: PieceStage[Any], batches: Iterable[Batch], progress: Progress) -> Iterator[Done]:
    """Have the pieces done; the progress counts what work in this process tells, and whole pieces of other processes."""
    run = stage.run
    for done in run_batches(run.settings.compute, stage.work(), batches, directory=run.directory, say=run.say, needs=stage.needs, tell=progress.add):
        if done.worker:
            progress.add(stage.size(done.item), done.worker, done.seconds)
        yield done


def _finish(stage: PieceStage[Any], subject: Any) -> None:
    with finishing(stage.run, stage.product):
        stage.finish(subject)
