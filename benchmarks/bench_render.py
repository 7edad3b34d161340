"""Drawing the pictures of a finished run: pictures a second and CPU-seconds a picture, by one process and by two; beside another checkout.

Usage: python benchmarks/bench_render.py [--run runs/demo] [--config configs/demo.toml] [--against CHECKOUT]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from machine import print_table, scratch

ROUNDS = 3
HERE = Path(__file__).resolve().parents[1]
DRAW = """
import json, resource, sys, time
from pathlib import Path
from pipeline.demo import demo_settings
from pipeline.render.stage import render
from pipeline.run.directory import Run
from pipeline.work.share import Share

config, directory, executor, number, count = sys.argv[1:]
run = Run(Path(directory), demo_settings(Path(config), Path(directory), (f"compute.executor='{executor}'",)), False, Share(int(number), int(count)))
before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
drawn = render(run).computed
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([drawn, time.perf_counter() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime]))
"""
WAYS = {"one thread": ("serial", 1), "threads": ("threads", 1), "two processes (--part 1/2 and 2/2)": ("serial", 2)}


def main() -> None:
    """Draw everything several times, this version and the other one in turn."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--run", type=Path, default=Path("runs/demo"))
    options.add_argument("--config", type=Path, default=HERE / "configs" / "demo.toml")
    options.add_argument("--against", type=Path, help="another checkout of this project")
    chosen = options.parse_args()
    checkouts = {"this version": HERE, **({"the other one": chosen.against.resolve()} if chosen.against else {})}
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        run = Path(shutil.copytree(chosen.run, Path(folder) / "run")).resolve()
        for _ in range(ROUNDS):
            for way, (executor, count) in WAYS.items():
                for name, checkout in checkouts.items():
                    found.setdefault((way, name), []).append(draw(checkout, run, chosen.config.resolve(), executor, count))
    rows = []
    for (way, name), rounds in found.items():
        drawn, wall, cpu = (median(column) for column in zip(*rounds, strict=True))
        rows.append([f"{way}, {name}", f"{drawn / wall:.2f}", f"{cpu / drawn:.3f}"])
    print_table(f"{round(drawn)} pictures of {chosen.run}", ["", "pictures a second", "CPU, s a picture"], rows)


def draw(checkout: Path, run: Path, config: Path, executor: str, count: int) -> tuple[float, float, float]:
    """Draw all pictures anew; return how many, the wall time of the slowest process, and the CPU time of all."""
    shutil.rmtree(run / "mosaics", ignore_errors=True)
    parts = [start(checkout, run, config, executor, number, count) for number in range(1, count + 1)]
    ends = [json.loads(part.communicate()[0].splitlines()[-1]) for part in parts]
    return sum(end[0] for end in ends), max(end[1] for end in ends), sum(end[2] for end in ends)


def start(checkout: Path, run: Path, config: Path, executor: str, number: int, count: int) -> subprocess.Popen[str]:
    """Begin one process of a checkout."""
    command: Sequence[str] = (sys.executable, "-c", DRAW, str(config), str(run), executor, str(number), str(count))
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout)


if __name__ == "__main__":
    main()
