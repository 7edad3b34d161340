"""What a process of a cluster does with a piece of work: it makes once what its pieces share, and logs what it did."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from threadpoolctl import threadpool_limits

from pipeline.disk.places import place_of
from pipeline.work.log import log, open_work_log
from pipeline.work.pieces import Needs, Work
from pipeline.work.threads import share_threads


@dataclass(frozen=True)
class Order:
    """A piece of work, as it is sent. Pieces with one `token` share one opened `work`; `threads`: of a process, where the settings say."""

    token: str
    work: Work
    item: Any
    directory: str
    needs: Needs
    threads: int | None = None


@dataclass(frozen=True)
class Answer:
    """What comes back: small, as it passes through the scheduler."""

    result: Any
    worker: str
    seconds: float


_lock = threading.Lock()
_opened: dict[str, Callable[[Any], Any]] = {}


def carry_out(order: Order) -> Answer:
    """Do one piece; runs in a worker, in one of its threads."""
    from distributed import get_worker

    worker = get_worker()
    name = f"{worker.name}" if isinstance(worker.name, str) and "://" not in worker.name else worker.address
    began = perf_counter()
    try:
        result = _open(order, worker.state.nthreads)(order.item)
    except Exception as error:
        log(f"failed: {type(error).__name__}: {error}")
        raise
    return Answer(result, name, perf_counter() - began)


def _open(order: Order, own_threads: int) -> Callable[[Any], Any]:
    """One stage at a time: what the last one had opened is let go."""
    with _lock:
        if order.token not in _opened:
            _opened.clear()
            open_work_log(place_of(order.directory))
            _opened[order.token] = order.work.open(lambda count: None)  # the client counts whole pieces
            if order.needs == "cpu":
                _limit_threads(order.threads or own_threads)
        return _opened[order.token]


def _limit_threads(count: int) -> None:
    """Blocks of maps are many at a time, `count` in a process: each computes alone, in what the work has imported, too."""
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    threadpool_limits(1)
    share_threads(count)
