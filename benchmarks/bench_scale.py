"""How work spreads over processes: two workers against one, what the scheduler costs, and where a farm bends.

Usage: python benchmarks/bench_scale.py [--images 256] [--checkpoints 120] [--farm 64]

The farm is simulated: stub workers in one process, which sleep for as long as a piece would take on a GPU. Scheduler, client,
messages and the placing of pieces are the real ones.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from bench_extract import make_photos
from distributed import Client, LocalCluster
from machine import print_table, scratch, seconds

from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.index.stage import index
from pipeline.run.directory import Run
from pipeline.settings.all import load_settings
from pipeline.work.executors import run_batches
from pipeline.work.pieces import Batch, Done
from safenet import PRESETS, SafeNet, save_checkpoint

FARM_IMAGES, GPU_RATE = 50_000, 500.0  # images a checkpoint; images a second of one simulated GPU
FARMS = (1, 8, 16, 32, 64)
PIECES_S = (0.05, 0.2, 1.0)


@dataclass(frozen=True)
class Sleep:
    """A piece that takes `seconds`."""

    seconds: float

    def open(self, tell: Callable[[int], None]) -> Callable[[object], None]:
        """As `pipeline.work.pieces.Work`."""
        return lambda item: time.sleep(self.seconds)


def main() -> None:
    """Run all comparisons."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=256)
    options.add_argument("--checkpoints", type=int, default=120)
    options.add_argument("--farm", type=int, default=64)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        bench_workers(Path(folder), chosen.images)
        bench_graph(Path(folder), chosen.checkpoints)
        bench_farm(Path(folder), chosen.farm)


def bench_workers(folder: Path, images: int) -> None:
    """Extract and cam by one and two workers of one thread; clusters stand already, and have done a quarter of the photos before they are timed."""
    make_photos(folder / "few", images // 4)
    make_photos(folder / "all", images)
    torch.manual_seed(0)
    save_checkpoint(folder / "net_000.pth", SafeNet(PRESETS["tiny"]), epoch=0)
    found: dict[tuple[str, int], float] = {}
    memory: dict[str, float] = {}
    for workers in (1, 2):
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
            Client(cluster) as client,
        ):
            for photos in ("few", "all"):
                run = farm_run(folder / f"{photos}-{workers}", folder, photos, cluster.scheduler_address)
                index(run)
                found["extract", workers] = seconds(lambda run=run: extract(run))
                found["cam", workers] = seconds(lambda run=run: cam(run))
                memory[photos] = max(client.run(memory_mb).values())
    print_table(
        f"one and two workers of one thread, small net, {images} photos, on 2 cores",
        ["stage", "1 worker, images/s", "2 workers, images/s", "efficiency"],
        [
            [stage, f"{images / found[stage, 1]:.1f}", f"{images / found[stage, 2]:.1f}", f"{found[stage, 1] / found[stage, 2] / 2:.2f}"]
            for stage in ("extract", "cam")
        ],
    )
    print(f"most memory of a worker: {memory['few']:.0f} MB after {images // 4} photos, {memory['all']:.0f} MB after {images}")


def farm_run(directory: Path, folder: Path, photos: str, address: str) -> Run:
    """A run whose stages work at a scheduler."""
    named = (f"dataset.root='{folder / photos}'", f"extract.checkpoints=['{folder / 'net_*.pth'}']", "dataset.layout='folder'")
    where = ("compute.executor='scheduler'", f"compute.address='{address}'", "compute.span_samples=32", "extract.precision='float32'")
    quick = ("extract.workers=0", "cam.targets=['predicted']")
    return Run(directory, load_settings(None, (*named, *where, *quick)), progress=False)


def spread(run: Run, work: Sleep, groups: Iterable[Batch]) -> Iterator[Done]:
    """Run pieces at the run's scheduler."""
    return run_batches(run.settings.compute, work, groups, directory=run.directory, say=run.say)


def bench_graph(folder: Path, checkpoints: int) -> None:
    """The pieces of a whole farm's extraction, with nothing in them: tasks, what the scheduler holds, the first piece, the client's memory."""
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        run = farm_run(folder / "graph", folder, "all", cluster.scheduler_address)
        span = 2048
        pieces = -(-FARM_IMAGES // span)
        list(spread(run, Sleep(0.0), [Batch("warm", [0, 1])]))
        before, began, first, most = memory_mb(), time.perf_counter(), 0.0, 0
        for count, _ in enumerate(spread(run, Sleep(0.0), (Batch(f"net_{number:03d}", range(pieces)) for number in range(checkpoints)))):
            first = first or time.perf_counter() - began
            if count % 200 == 0:
                most = max(most, client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))
        taken, total = time.perf_counter() - began, checkpoints * pieces
    print_table(
        f"{checkpoints} checkpoints x {FARM_IMAGES:,} images, {span} images a piece, two empty workers",
        ["tasks", "tasks per 10,000 images", "held by the scheduler at most", "first piece done, s", "ms a piece", "client's memory grew by, MB"],
        [[f"{total:,}", f"{total / (checkpoints * FARM_IMAGES / 10_000):.1f}", f"{most}", f"{first:.2f}", f"{1000 * taken / total:.1f}",
          f"{memory_mb() - before:.0f}"]],
    )  # fmt: skip
    work_s = total * span / GPU_RATE
    print(f"share of scheduler and client at {GPU_RATE:.0f} images/s a GPU: {100 * taken / work_s:.2f} % of one GPU's work")


def bench_farm(folder: Path, most: int) -> None:
    """Throughput of stub workers, by their number and by how long a piece takes: 1.00 is all of them busy all the time."""
    rows = []
    for length in PIECES_S:
        row = [f"{length:g}"]
        for workers in [count for count in FARMS if count <= most]:
            with LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=False,
                protocol="tcp",
                memory_limit=0,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
            ) as cluster:
                run = farm_run(folder / "farm", folder, "all", cluster.scheduler_address)
                list(spread(run, Sleep(0.0), [Batch("warm", range(2 * workers))]))
                each = max(3, round(4 / length))
                groups = [Batch(f"net_{number:03d}", range(each)) for number in range(workers)]
                taken = seconds(lambda run=run, groups=groups, length=length: list(spread(run, Sleep(length), groups)))
                row.append(f"{each * length / taken:.2f}")
        rows.append(row)
    print_table(
        "a simulated farm: share of the time that workers are busy",
        ["seconds a piece", *(f"{count} workers" for count in FARMS if count <= most)],
        rows,
    )


def memory_mb() -> float:
    """Most memory that this process has held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


if __name__ == "__main__":
    main()
