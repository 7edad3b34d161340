"""The extract stage against a bare forward loop, side by side in one run.

Usage: python benchmarks/bench_extract.py [--images 64] [--preset upstream] [--every-tensor]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from machine import print_table, scratch, seconds
from PIL import Image

from pipeline.extract.stage import extract
from pipeline.index.stage import index
from pipeline.run.directory import Run
from pipeline.settings.all import load_settings
from safenet import PRESETS, SafeNet, save_checkpoint
from safenet.devices import pick_device
from safenet.preprocess import load_image
from stages.extract.precision import resolve_precision

ROUNDS = 3


def main() -> None:
    """Run the comparison."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=64)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--preset", default="upstream", choices=sorted(PRESETS))
    options.add_argument("--every-tensor", action="store_true", help="also block maps, attention and the flip embedding")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        bench_stage(Path(folder), chosen)


def bench_stage(folder: Path, chosen: argparse.Namespace) -> None:
    """Time `extract` on n and 2 n images: the difference leaves its start-up out; a bare loop runs before and after each pair."""
    torch.manual_seed(0)
    model = SafeNet(PRESETS[chosen.preset]).eval()
    save_checkpoint(folder / "net_000.pth", model, epoch=0)
    for count in (chosen.images, 2 * chosen.images):
        make_photos(folder / f"photos{count}", count)
    device = torch.device(pick_device("auto"))
    model.to(device)
    paths = sorted((folder / f"photos{chosen.images}").rglob("*.jpg"))
    images = torch.stack([load_image(path, model.architecture.image_size) for path in paths]).to(device)
    precision = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(resolve_precision("auto", str(device)))
    bare, stage = [], []
    for round_number in range(ROUNDS):
        bare.append(seconds(lambda: forward_all(model, images, chosen.batch, precision)))
        runs = [stage_run(folder, count, chosen, round_number) for count in (chosen.images, 2 * chosen.images)]
        times = [seconds(lambda run=run: extract(run)) for run in runs]
        stage.append(times[1] - times[0])
        print(f"round {round_number}: bare {bare[-1]:.2f} s, extract {times[0]:.2f} s and {times[1]:.2f} s", flush=True)
    one, other = median(bare), median(stage)
    rows = [
        ["bare forward loop", f"{chosen.images / one:.2f}", "1.00"],
        ["extract, decoding and writing included", f"{chosen.images / other:.2f}", f"{one / other:.2f}"],
    ]
    what = "every tensor" if chosen.every_tensor else "default variables"
    print_table(f"extract, {chosen.preset} network, {chosen.images} photos of 512 px, batch {chosen.batch}, {what}", ["", "images/s", "ratio"], rows)


def forward_all(model: SafeNet, images: torch.Tensor, batch: int, precision: torch.dtype | None) -> None:
    """Forward passes over images that are on the device already, and nothing else."""
    with torch.inference_mode(), torch.autocast(images.device.type, precision, enabled=precision is not None):
        for start in range(0, len(images), batch):
            model(images[start : start + batch])
    if images.device.type == "cuda":
        torch.cuda.synchronize()


def stage_run(folder: Path, count: int, chosen: argparse.Namespace, round_number: int) -> Run:
    """Index `count` photos into a fresh run of what is asked for."""
    more = every_tensor(chosen.preset) if chosen.every_tensor else {}
    one = "extract.workers=1"  # for few and many photos alike, so that their difference holds no start-up
    return photo_run(folder, count, folder / f"run{count}-{round_number}", chosen.batch, one, *assignments(more))


def every_tensor(preset: str) -> dict[str, Any]:
    """Settings that ask for block maps, attention and the flip embedding, too."""
    return {"store": ["image", "cls_attention", "rollout", "flip_embedding"], "blocks": list(range(PRESETS[preset].depth))}


def assignments(settings: Mapping[str, Any]) -> list[str]:
    """Settings of the [extract] table as the command line takes them."""
    return [f"extract.{name}={value}" for name, value in settings.items()]


def photo_run(folder: Path, count: int, directory: Path, batch: int, *more: str) -> Run:
    """Index `count` photos into a fresh run."""
    chosen = [
        f"dataset.root='{folder / f'photos{count}'}'",
        "dataset.layout='folder'",
        f"extract.checkpoints=['{folder / 'net_000.pth'}']",
        f"extract.batch_size={batch}",
        *more,
    ]
    shutil.rmtree(directory, ignore_errors=True)
    run = Run(directory, load_settings(None, chosen), progress=False)
    index(run)
    return run


def make_photos(folder: Path, count: int, size_px: int = 512) -> None:
    """Write smooth random photos."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / "place" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        coarse.resize((size_px, size_px), Image.Resampling.BICUBIC).save(path, quality=90)


if __name__ == "__main__":
    main()
