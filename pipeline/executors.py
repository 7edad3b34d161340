"""Ways to run independent blocks of CPU work, one row each; all give the same results in the same order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import dask
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")

_WAVE = 4  # blocks a worker holds at once: results stream out, and memory stays flat in the number of blocks


def serial(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """One after the other, in this thread: what a debugger wants."""
    yield from map(work, items)


def threads(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Dask's threaded scheduler, a wave of blocks at a time; numpy, torch and zarr let go of the interpreter lock.

    Each thread computes alone: matrix products that start threads of their own would fight over the cores.
    """
    size = workers * _WAVE
    for start in range(0, len(items), size):
        tasks = [dask.delayed(work, pure=False)(item) for item in items[start : start + size]]
        with threadpool_limits(1):
            found = dask.compute(*tasks, scheduler="threads", num_workers=workers)
        yield from found


EXECUTORS: Mapping[str, Callable[[Callable[[Item], Result], Sequence[Item], int], Iterator[Result]]] = MappingProxyType(
    {"serial": serial, "threads": threads}
)


def run_blocks(executor: str, workers: int | None, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Run `work` on every item by the named executor; results come in the items' order."""
    return EXECUTORS[executor](work, items, workers or os.cpu_count() or 1)
