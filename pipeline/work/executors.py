"""Ways to run independent pieces of work, one row each; all give the same results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import dask
from threadpoolctl import threadpool_limits

from pipeline.disk.places import Place
from pipeline.settings.compute import ComputeSettings
from pipeline.work import clusters
from pipeline.work.farm import dispatch
from pipeline.work.pieces import Done, Group, Needs, Work

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")

_WAVE = 4  # pieces a thread holds at once: results stream out, and memory stays flat in their number


@dataclass(frozen=True)
class Executor:
    """A row of EXECUTORS.

    Parameters
    ----------
    run_here : callable, optional
        (work, items, workers): in this process, results in the items' order.
    cluster : callable, optional
        (settings, needs, run's directory): opens a Dask cluster and gives its client.
    is_here : bool
        Whether the cluster's processes are on this machine, and so have its devices.
    """

    run_here: Callable[[Callable[[Any], Any], Sequence[Any], int], Iterator[Any]] | None = None
    cluster: Callable[[ComputeSettings, Needs, Place], AbstractContextManager[Client]] | None = None
    is_here: bool = False


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


EXECUTORS: Mapping[str, Executor] = MappingProxyType(  # what each is: EXECUTOR_MEANINGS in pipeline/settings/executor_names.py
    {
        "serial": Executor(run_here=serial),
        "threads": Executor(run_here=threads),
        "local": Executor(cluster=clusters.local, is_here=True),
        "cuda": Executor(cluster=clusters.cuda, is_here=True),
        "slurm": Executor(cluster=clusters.jobs_of("SLURMCluster", "account")),
        "pbs": Executor(cluster=clusters.jobs_of("PBSCluster", "account")),
        "lsf": Executor(cluster=clusters.jobs_of("LSFCluster", "project")),
        "sge": Executor(cluster=clusters.jobs_of("SGECluster", "project")),
        "scheduler": Executor(cluster=clusters.running),
    }
)


def runs_here(settings: ComputeSettings) -> bool:
    """Whether the executor uses this process alone."""
    return EXECUTORS[settings.executor].run_here is not None


def check_precision(settings: ComputeSettings, precision: str) -> None:
    """Refuse a precision that depends on the device, where the devices are other machines': the stamp would be of this one's."""
    row = EXECUTORS[settings.executor]
    if precision == "auto" and row.run_here is None and not row.is_here:
        raise ValueError(
            f"extract.precision = 'auto' with compute.executor = '{settings.executor}': it depends on the device, and this machine's may not be the "
            f"workers'. Set 'bfloat16' (of GPUs that have it) or 'float32'"
        )


def run_blocks(compute: ComputeSettings, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Run `work` on every item within this process; results come in the items' order.

    An executor that uses other processes does its blocks by threads within each.
    """
    row = EXECUTORS[compute.executor]
    run_here, workers = (row.run_here, compute.workers) if row.run_here is not None else (threads, compute.threads)
    return run_here(work, items, workers or os.cpu_count() or 1)


def run_groups(
    compute: ComputeSettings,
    work: Work,
    groups: Iterable[Group],
    *,
    directory: Place,
    say: Callable[[str], None],
    needs: Needs = "cpu",
    tell: Callable[[int], None] = lambda count: None,
) -> Iterator[Done]:
    """Run a stage's work on all items of all groups, where the settings say; pieces come back as they are done, in any order.

    Parameters
    ----------
    compute : ComputeSettings
    work : Work
    groups : iterable of Group
        Taken one after the other, when there is a process for them.
    directory : Place
        The run's, where logs lie.
    say : callable
        Tells the user a line.
    needs : {"cpu", "gpu"}
    tell : callable
        Told the progress within pieces, by work in this process.
    """
    row = EXECUTORS[compute.executor]
    if row.run_here is not None:
        do, workers = None, compute.workers or os.cpu_count() or 1
        for group in groups:
            do = do or work.open(tell)  # what has nothing to do is not opened
            run_here = row.run_here if len(group.items) > 1 else serial  # one piece has this thread to itself, and may start threads of its own
            for item, result in zip(group.items, run_here(do, group.items, workers), strict=True):
                yield Done(group.name, item, result)
        return
    waiting = (group for group in groups if group.items)
    first = next(waiting, None)
    if first is None:  # nothing to do: no cluster is started for it
        return
    assert row.cluster is not None
    with row.cluster(compute, needs, directory) as client:
        yield from dispatch(client, compute, work, chain([first], waiting), directory=directory, say=say, needs=needs)
