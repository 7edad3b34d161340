"""What a person waits for in a run of 120 checkpoints x 50,000 images x 45 maps: looks, stages with nothing to do, and one more of each.

The run is laid out with stub numbers, see stub_run.py: what is timed is everything but the network, at its full count of checkpoints, images, arrays,
blocks and files. The maps have 8 x 8 cells, so what one more costs is that of small maps. Smaller runs beside it show what grows with what.

Usage: python benchmarks/bench_full.py [--checkpoints 1 10 40 120] [--images 5000 50000] [--methods 15] [--rounds 3]
    [--drift previous last] [--one-more checkpoint image method] [--folder runs]

Laying out a checkpoint takes 3 to 6 s of a slow core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from machine import Cost, cost, print_table, scratch
from stub_run import ONE_MORE_METHOD, Size, add_checkpoints, assignments, stub_run, write_checkpoint, write_photo

from pipeline.run.directory import Run

LOOKS = ("status", "plan", "open_run")
NOTHING_TO_DO = ("extract", "cam", "stats", "render", "report")
OPEN = "import sys, time, pipeline\nfrom pipeline import open_run\nbegan = time.process_time(), time.perf_counter()\nopen_run(sys.argv[1])\n"
OPEN += "print(time.process_time() - began[0], time.perf_counter() - began[1])"


def main() -> None:
    """Lay out one run after the other, and measure."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--checkpoints", type=int, nargs="+", default=[1, 10, 40, 120])
    options.add_argument("--images", type=int, nargs="+", default=[5_000, 50_000])
    options.add_argument("--methods", type=int, default=Size(1, 1).methods)
    options.add_argument("--drift", nargs="*", default=Size(1, 1).drift, help="as stats.drift")
    options.add_argument("--one-more", nargs="*", default=list(ONE_MORE), choices=list(ONE_MORE))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--folder", type=Path, help="where the runs are laid out; default: runs/")
    chosen = options.parse_args()
    for images in chosen.images:
        for checkpoints in chosen.checkpoints:
            size = Size(checkpoints, images, chosen.methods, tuple(chosen.drift))
            with tempfile.TemporaryDirectory(dir=chosen.folder or scratch()) as folder:
                measure(Path(folder), size, chosen.rounds, chosen.one_more)


def measure(folder: Path, size: Size, rounds: int, more: Sequence[str]) -> None:
    """Lay out a run and print what each command takes."""
    run = stub_run(folder, size)
    rows = [[name, f"{cpu:.2f}", f"{wall:.2f}", said] for name, cpu, wall, said in _rows(run, size, rounds, more)]
    title = f"{size.checkpoints} checkpoints x {size.images:,} images x {3 * size.methods} maps"
    print_table(title, ("", "CPU, s", "wall, s", ""), rows)
    sys.stdout.flush()


def _rows(run: Run, size: Size, rounds: int, more: Sequence[str]) -> Iterator[tuple[str, float, float, str]]:
    yield from idle(run, size, rounds)
    for name in (name for name in ONE_MORE if name in more):
        yield from ONE_MORE[name](run, size)


def idle(run: Run, size: Size, rounds: int) -> Iterator[tuple[str, float, float, str]]:
    """Looks and stages that find nothing to do, as processes of their own, imports included; of `open_run` the call alone."""
    for name in (*LOOKS, *NOTHING_TO_DO):
        found = [cost(_command(run, size, name)) for _ in range(rounds + 1)][1:]  # the first warms the page cache
        costs = [tuple(map(float, one.output.split())) if name == "open_run" else one[:2] for one in found]
        cpu, wall = (median(column) for column in zip(*costs, strict=True))
        yield name, cpu, wall, _said(found[-1]) if name in NOTHING_TO_DO else ""


def one_more_checkpoint(run: Run, size: Size) -> Iterator[tuple[str, float, float, str]]:
    """What the stages do about one more checkpoint, whose features are a stub."""
    write_checkpoint(run.directory.parent, size.checkpoints)
    add_checkpoints(run, ("extract",))
    yield from _stages(run, size, "one more checkpoint", ("cam", "stats"))


def one_more_image(run: Run, size: Size) -> Iterator[tuple[str, float, float, str]]:
    """What the stages do about one more image; its features are real."""
    write_photo(run.directory.parent, size.images)
    yield from _stages(run, size, "one more image", ("index", "extract", "cam", "stats"))


def one_more_method(run: Run, size: Size) -> Iterator[tuple[str, float, float, str]]:
    """What the stages do about one more method."""
    yield from _stages(run, size, "one more method", ("cam", "stats"), f"cam.methods={[*size.method_names, ONE_MORE_METHOD]}")


ONE_MORE = {"checkpoint": one_more_checkpoint, "image": one_more_image, "method": one_more_method}


def _stages(run: Run, size: Size, what: str, names: Sequence[str], *more: str) -> Iterator[tuple[str, float, float, str]]:
    for name in names:
        found = cost(_command(run, size, name, *more))
        yield f"{what}: {name}", *found[:2], _said(found)


def _command(run: Run, size: Size, name: str, *more: str) -> list[str]:
    if name == "open_run":
        return [sys.executable, "-c", OPEN, str(run.directory)]
    sets = [part for assignment in (*assignments(run.directory.parent, size), *more) for part in ("--set", assignment)]
    return [sys.executable, "-m", "pipeline", name, "--run", str(run.directory), *sets]


def _said(found: Cost) -> str:
    """The line in which a stage says what it did."""
    return next((line.partition(": ")[2] for line in found.output.splitlines() if "up to date" in line), "")


if __name__ == "__main__":
    main()
