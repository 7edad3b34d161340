"""Sending the pieces of a stage to the workers of a Dask cluster, a few at a time.

Dask moves tasks and notices lost workers. What it cannot know is that a worker which has a checkpoint's network at hand
should get that checkpoint's next piece: the worker of each piece is chosen here. So a lost worker's pieces are sent again
from here, too: Dask itself would try one that kills its worker on the next and the next, with whatever else is there. Only
what the workers can hold is submitted, so that neither the scheduler nor this process ever holds the whole work.
"""

from __future__ import annotations

import queue
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pipeline.disk.places import Place
from pipeline.disk.records import write_atomically
from pipeline.settings.compute import ComputeSettings
from pipeline.work.farm_worker import Answer, Order, carry_out
from pipeline.work.pieces import Batch, Done, Needs, Work
from pipeline.work.stops import check_stop

if TYPE_CHECKING:
    from distributed import Client, Future

AHEAD = 1  # pieces that wait at a worker, so that it need not wait for the next
_LOOK_S = 0.5  # how often the list of workers is read
MOST_LOSSES = 3  # workers that one piece may cost
_TRIES = 20  # to fetch an answer that is said to be there, and looks for its worker in between
_PATIENCE_S = 20  # without a worker, before that is said


class LostWorkersError(OSError):
    """Every worker that took a piece was lost."""


@dataclass(frozen=True)
class Piece:
    """An item of a batch, and how many workers were lost with it."""

    batch: str
    item: Any
    losses: int = 0


@dataclass
class Queue:
    """Pieces that are not submitted yet, by batch; batches are opened when a worker has nothing of its own left.

    Parameters
    ----------
    batches : iterator of Batch
    """

    batches: Iterator[Batch]
    open: dict[str, deque[Piece]] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)  # worker -> the batch it is at

    def next_for(self, worker: str) -> Piece | None:
        """Take a piece for a worker: of its own batch, else of a new one, else of that which has most left. None: all are taken."""
        name = self.owners.get(worker, "")
        if name not in self.open:
            name = self._open_next() or max(self.open, key=lambda key: len(self.open[key]), default="")
        if not name:
            return None
        self.owners[worker] = name
        piece = self.open[name].popleft()
        if not self.open[name]:
            del self.open[name]
        return piece

    def put_back(self, piece: Piece) -> None:
        """It is to be done once more: what it has written already is found by its marks."""
        self.open.setdefault(piece.batch, deque()).append(piece)

    def _open_next(self) -> str:
        for batch in self.batches:
            if batch.items:
                self.open[batch.name] = deque(Piece(batch.name, item) for item in batch.items)
                return batch.name
        return ""


def dispatch(
    client: Client, compute: ComputeSettings, work: Work, batches: Iterable[Batch], *, directory: Place, say: Callable[[str], None], needs: Needs
) -> Iterator[Done]:
    """Run all pieces on the cluster's workers.

    Parameters
    ----------
    client : distributed.Client
    compute, work, batches, directory, say, needs
        As `run_groups` takes them.

    Yields
    ------
    Done
        In the order in which they are done.

    Raises
    ------
    LostWorkersError
        If one piece has cost several workers their life.
    """
    with ExitStack() as stack:
        if compute.performance_report:
            stack.enter_context(_reporting(directory / "logs" / f"{type(work).__name__}-performance.html"))
        say(f"dask: scheduler {client.scheduler.address}, dashboard {client.dashboard_link}")
        order = Order(uuid4().hex, work, None, str(directory), needs, compute.threads)
        yield from _Dispatcher(client, order, Queue(iter(batches)), say).results()


@contextmanager
def _reporting(path: Place) -> Iterator[None]:
    """Dask's own report of what the workers did, as a page."""
    from distributed import performance_report

    with TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        with performance_report(filename=str(page)):
            yield
        write_atomically(path, page.read_bytes())


class _Dispatcher:
    """Sends pieces, and takes what comes back; `order` is that of every piece but for its item."""

    def __init__(self, client: Client, order: Order, waiting: Queue, say: Callable[[str], None]) -> None:
        self._client, self._order, self._waiting, self._say = client, order, waiting, say
        self._done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._sent: dict[str, tuple[Future, str, Piece]] = {}  # by the future's key, with the worker that it was sent to
        self._load: Counter[str] = Counter()
        self._slots: dict[str, int] = {}
        self._looked = self._seen = monotonic()
        self._told = False

    def results(self) -> Iterator[Done]:
        self._look()
        while True:
            self._send()
            if not self._sent and self._slots:
                return
            check_stop()
            try:
                future = self._done.get(timeout=_LOOK_S)
            except queue.Empty:
                self._look()
                continue
            if str(future.key) not in self._sent:  # of a worker that is gone: sent to another since
                continue
            if (answer := self._answer(future)) is None:
                self._lose(str(future.key))
            else:
                piece = self._take(str(future.key))
                yield Done(piece.batch, piece.item, answer.result, answer.worker, answer.seconds)
            if monotonic() - self._looked > _LOOK_S:
                self._look()

    def _look(self) -> None:
        """Read which workers there are; those that are gone take no more."""
        found = self._client.scheduler_info(n_workers=-1)["workers"]
        before, self._slots = self._slots, {address: about["nthreads"] for address, about in found.items()}
        self._looked = monotonic()
        for worker in dict.fromkeys(worker for _, worker, _ in self._sent.values()):
            if worker not in self._slots:
                self._take_back(worker, before.get(worker, 1))
        if self._slots:
            self._seen = self._looked
        elif self._looked - self._seen > _PATIENCE_S and not self._told:
            self._told = True
            self._say(f"no worker for {_PATIENCE_S} s; waiting for the cluster to provide some")

    def _take_back(self, worker: str, slots: int) -> None:
        """Send a lost worker's pieces again: Dask waits for that very worker.

        A worker takes its pieces in the order in which they were sent. Only those that were at work may have cost it its life:
        the first ones that are not done, as many as it has threads. Somebody is always charged, so that this ends.
        """
        sent = {key: future for key, (future, address, _) in self._sent.items() if address == worker}
        unfinished = [key for key, future in sent.items() if future.status not in ("finished", "lost")]
        at_work = (unfinished or list(sent))[:slots]
        self._client.cancel(list(sent.values()), force=True)
        for key in sent:
            piece = self._take(key)
            self._again(piece, was_at_work=key in at_work)

    def _lose(self, key: str) -> None:
        """Send a piece again whose worker was lost, as far as Dask can tell."""
        self._look()
        if key in self._sent:  # there is a worker of that name all the same
            piece = self._take(key)
            self._again(piece, was_at_work=True)

    def _take(self, key: str) -> Piece:
        """Strike a piece off the list of those that were sent."""
        _, worker, piece = self._sent.pop(key)
        self._load[worker] -= 1
        return piece

    def _send(self) -> None:
        """Give every worker what it can hold, round by round, so that none is served twice before all are served once."""
        hungry = True
        while hungry:
            hungry = False
            for worker, slots in self._slots.items():
                if self._load[worker] < slots + AHEAD and (found := self._waiting.next_for(worker)) is not None:
                    self._submit(worker, found)
                    hungry = True

    def _again(self, piece: Piece, was_at_work: bool) -> None:
        if not was_at_work:
            self._waiting.put_back(piece)
            return
        if piece.losses >= MOST_LOSSES:
            raise LostWorkersError(
                f"a piece of {piece.batch} was lost with each of {piece.losses + 1} workers, often because memory ran out. What is done is kept; "
                f"see {self._order.directory}/logs, give workers more memory or a smaller extract.batch_size, and call again"
            )
        self._waiting.put_back(replace(piece, losses=piece.losses + 1))

    def _submit(self, worker: str, piece: Piece) -> None:
        order = replace(self._order, item=piece.item)
        key = f"{type(order.work).__name__}-{piece.batch}-{uuid4().hex}"
        future = self._client.submit(carry_out, order, key=key, workers=[worker], pure=False)
        self._sent[key] = future, worker, piece
        self._load[worker] += 1
        future.add_done_callback(self._done.put)

    def _answer(self, future: Future) -> Answer | None:
        """What came back; None where the worker was lost, before it was done or with what it had done."""
        from distributed import CancelledError, KilledWorker

        if future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                return None
            raise error
        for _ in range(_TRIES):
            try:
                answer: Answer = future.result(timeout=_LOOK_S)
                return answer
            except CancelledError:
                return None
            except TimeoutError:
                self._look()
                if str(future.key) not in self._sent:
                    return None
        return None
