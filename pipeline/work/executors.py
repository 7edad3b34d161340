"""Ways to run independent pieces of work, one row each; all give the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.disk.places import Place
from pipeline.settings.compute import ComputeSettings
from pipeline.work import clusters
from pipeline.work.cores import cores
from pipeline.work.farm import dispatch
from pipeline.work.pieces import Batch, Done, Needs, Work
from pipeline.work.threads import threads

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")
_RunHere = Callable[[Callable[[Any], Any], Iterable[Any], int], Iterator[Any]]


@dataclass(frozen=True)
class Executor:
    """A row of EXECUTORS.

    Parameters
    ----------
    run_here : callable, optional
        (work, items, threads): in this process, results in the items' order.
    cluster : callable, optional
        (settings, needs, run's directory): opens a Dask cluster and gives its client.
    is_here : bool
        Whether the cluster's processes are on this machine, and so have its devices.
    """

    run_here: _RunHere | None = None
    cluster: Callable[[ComputeSettings, Needs, Place], AbstractContextManager[Client]] | None = None
    is_here: bool = False


def serial(work: Callable[[Item], Result], items: Iterable[Item], count: int) -> Iterator[Result]:
    """One after the other, in this thread: what a debugger wants."""
    yield from map(work, items)


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

    An executor that uses other processes does its blocks by threads within each, which all pieces of a process have between them.
    """
    row = EXECUTORS[compute.executor]
    run_here, count = (row.run_here, compute.workers) if row.run_here is not None else (threads, compute.threads)
    return run_here(work, items, count or cores())


def run_batches(
    compute: ComputeSettings,
    work: Work,
    batches: Iterable[Batch],
    *,
    directory: Place,
    say: Callable[[str], None],
    needs: Needs = "cpu",
    tell: Callable[[int], None] = lambda count: None,
) -> Iterator[Done]:
    """Run a stage's work on all items of all batches, where the settings say; pieces come back as they are done, in any order.

    Parameters
    ----------
    compute : ComputeSettings
    work : Work
    batches : iterable of Batch
        Taken one after the other, when there is a process for them.
    directory : Place
        The run's, where logs lie.
    say : callable
        Tells the user a line.
    needs : {"cpu", "gpu"}
    tell : callable
        Told the progress within pieces, by work in this process.
    """
    row, waiting = EXECUTORS[compute.executor], (batch for batch in batches if batch.items)
    if row.run_here is not None:
        yield from _run_batches_here(row.run_here, lambda: work.open(tell), waiting, compute.workers or cores())
        return
    first = next(waiting, None)
    if first is None:  # nothing to do: no cluster is started for it
        return
    assert row.cluster is not None
    with row.cluster(compute, needs, directory) as client:
        yield from dispatch(client, compute, work, chain([first], waiting), directory=directory, say=say, needs=needs)


def _run_batches_here(run_here: _RunHere, open_work: Callable[[], Callable[[Any], Any]], batches: Iterable[Batch], count: int) -> Iterator[Done]:
    """Batches follow each other without a pause; a batch of one piece has this thread to itself, and may start threads of its own."""
    do = None
    for is_alone, some in groupby(batches, lambda batch: len(batch.items) == 1):
        do = do or open_work()  # what has nothing to do is not opened
        pieces = ((batch.name, item) for batch in some for item in batch.items)
        yield from (serial if is_alone else run_here)(partial(_piece_done, do), pieces, count)


def _piece_done(do: Callable[[Any], Any], piece: tuple[str, Any]) -> Done:
    name, item = piece
    return Done(name, item, do(item))
