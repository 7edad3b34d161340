"""Threads of this process: a window of items at a time, without a pause between one and the next."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW = 4  # items a thread that wait, are worked on or are done and not taken: results stream out, and memory stays flat in their number


@dataclass(frozen=True)
class _Threads:
    pool: ThreadPoolExecutor
    count: int


_shared: _Threads | None = None


def threads(work: Callable[[Item], Result], items: Iterable[Item], count: int) -> Iterator[Result]:
    """Work on items by threads, and yield the results in the items' order; numpy, torch and zarr let go of the interpreter lock.

    Each thread computes alone: matrix products that start threads of their own would fight over the cores. The first failure
    is raised behind the results of the items before it; no item is begun after it. Closed early, it waits for what is being
    worked on, and begins nothing more.

    Parameters
    ----------
    work : callable
    items : iterable
        Taken as there is room in the window, in the calling thread.
    count : int
        Of threads; a process that called `share_threads` has as many as it said there.
    """
    with _opened(count) as ours:
        yield from _in_order(ours.pool, work, items, ours.count * WINDOW)


@contextmanager
def one_thread_a_product() -> Iterator[None]:
    """Let matrix products of this process start no threads: after small ones, these spin for longer than they have computed."""
    with threadpool_limits(1, "blas"):
        yield


def share_threads(count: int) -> None:
    """Let all calls of `threads` in this process have `count` threads between them from now on: the process is one of several on a machine."""
    global _shared  # noqa: PLW0603  (threads are the process's own)
    if _shared is None or _shared.count != count:
        _shared = _Threads(_pool(count), count)


@contextmanager
def _opened(count: int) -> Iterator[_Threads]:
    if _shared is not None:
        threadpool_limits(1)  # for good: calls overlap, and the first to end would take the limit from the others
        yield _shared
        return
    pool = _pool(count)
    try:
        with threadpool_limits(1):
            yield _Threads(pool, count)
    finally:
        pool.shutdown()


def _pool(count: int) -> ThreadPoolExecutor:
    """OpenMP counts its threads for each thread that calls it, the other libraries for the whole process."""
    return ThreadPoolExecutor(count, thread_name_prefix="block", initializer=threadpool_limits, initargs=(1, "openmp"))


def _in_order(pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], window: int) -> Iterator[Result]:
    failed = math.inf  # number of an item that failed

    def do(number: int, item: Item) -> Result:
        nonlocal failed
        if number > failed:
            raise CancelledError  # nobody sees it: the failure is raised first
        try:
            return work(item)
        except BaseException:
            failed = min(failed, number)
            raise

    rest = enumerate(items)
    begun: deque[Future[Result]] = deque()
    try:
        begun.extend(pool.submit(do, *numbered) for numbered in islice(rest, window))
        while begun:
            result = begun[0].result()
            begun.popleft()
            begun.extend(pool.submit(do, *numbered) for numbered in islice(rest, 1))
            yield result
    finally:
        for future in begun:
            future.cancel()
        wait(begun)
