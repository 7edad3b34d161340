"""Where the CPU time of the extract stage goes: CPU-seconds an image of each step, over all threads and processes; beside another checkout.

Usage: python benchmarks/bench_extract_profile.py [--images 64] [--preset upstream] [--rounds 3] [--against CHECKOUT]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import extract_steps
import torch
from bench_extract import forward_all, make_photos, photo_run
from machine import print_table, scratch

from pipeline.extract.stage import extract
from safenet import PRESETS, SafeNet, load_checkpoint, save_checkpoint
from safenet.preprocess import load_image

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Profile this checkout and the other in turn, round by round, so that what else the machine does meets both alike."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=64)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--preset", default="upstream", choices=sorted(PRESETS))
    options.add_argument("--depth", type=int, help="transformer blocks; few leave more time for the other steps, which do not depend on it")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--against", type=Path, help="another checkout")
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of a process that is measured
    chosen = options.parse_args()
    if chosen.folder is not None:
        print(json.dumps(profile(chosen.folder, chosen.images, chosen.batch)))
        return
    checkouts = {"before": chosen.against.resolve(), "now": HERE} if chosen.against else {"now": HERE}
    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        folder = Path(name).resolve()
        torch.manual_seed(0)
        architecture = PRESETS[chosen.preset]
        save_checkpoint(folder / "net_000.pth", SafeNet(replace(architecture, depth=chosen.depth or architecture.depth)), epoch=0)
        for count in {chosen.batch, chosen.images, 2 * chosen.images}:
            make_photos(folder / f"photos{count}", count)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
        for round_number in range(chosen.rounds):
            for name, checkout in checkouts.items():
                found[name].append(profile_of(checkout, folder, chosen))
                print(f"round {round_number}, {name}: {found[name][-1]}", flush=True)
    medians = {name: {step: median(one[step] for one in rounds) for step in rounds[0]} for name, rounds in found.items()}
    rows = [[step, *(f"{found[step]:.2f}" for found in medians.values())] for step in medians["now"]]
    print_table(f"extract, {chosen.preset} network, photos of 512 px, batch {chosen.batch}, ms an image", ["", *checkouts], rows)


def profile_of(checkout: Path, folder: Path, chosen: argparse.Namespace) -> dict[str, float]:
    """Profile a checkout in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as sums:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{checkout}{os.pathsep}{HERE / 'benchmarks'}",
            "OMP_WAIT_POLICY": "passive",  # threads that wait for each other sleep: on a busy machine, turning round would count as work
            extract_steps.FOLDER: sums,
        }
        command = [sys.executable, __file__, "--folder", str(folder), "--images", str(chosen.images), "--batch", str(chosen.batch)]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def profile(folder: Path, images: int, batch: int) -> dict[str, float]:
    """Extract n and 2 n images, and run the bare forward loop on n; return milliseconds an image, start-up left out as the difference leaves it."""
    multiprocessing.set_forkserver_preload(["decoding_steps"])
    extract_steps.install(extract_steps.COMPUTING)
    sums = Path(os.environ[extract_steps.FOLDER])
    costs = []
    for count in (batch, images, 2 * images):
        run = photo_run(folder, count, folder / "run", batch)
        (before, others), cpu, wall = extract_steps.sums(sums), process_time(), perf_counter()
        extract(run)
        cpu, wall = process_time() - cpu, perf_counter() - wall
        after, others_after = extract_steps.sums(sums)
        costs.append([wall, cpu + others_after - others, *(after - before)])
    wall, total, *steps = (1e3 * (many - few) / images for few, many in zip(*costs[1:], strict=True))  # the first one imports
    bare_wall, bare_cpu = bare_forward(folder, images, batch)
    named = dict(zip(extract_steps.STEPS, steps, strict=True))
    return {
        **named,
        "rest": total - sum(steps),
        "all": total,
        "all but forward, % of forward": 100 * (total - named["forward"]) / named["forward"],
        "bare forward loop": bare_cpu,
        "wall": wall,
        "bare forward loop, wall": bare_wall,
        "ratio": bare_wall / wall,
    }


def bare_forward(folder: Path, images: int, batch: int) -> tuple[float, float]:
    """Wall and CPU milliseconds an image of forward passes over images in memory."""
    model = load_checkpoint(folder / "net_000.pth")
    paths = sorted((folder / f"photos{images}").rglob("*.jpg"))
    pixels = torch.stack([load_image(path, model.architecture.image_size) for path in paths])
    forward_all(model, pixels[:batch], batch, None)
    wall, cpu = perf_counter(), process_time()
    forward_all(model, pixels, batch, None)
    return 1e3 * (perf_counter() - wall) / images, 1e3 * (process_time() - cpu) / images


if __name__ == "__main__":
    main()
