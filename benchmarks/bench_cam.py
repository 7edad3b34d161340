"""Heat maps from the store: against just reading it, against the peers, all classes at once, and in how much memory. Side by side in one run.

Only the first 64 photos go through the network. The features of all others are those of these again, in blocks of their own that the stage
writes as ever: reading and computing cost what they cost, and 4,096 photos are not an hour's work of a CPU.

Usage: python benchmarks/bench_cam.py [--images 4096] [--peer-images 8] [--preset upstream] [--cold] [--only-reading]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import process_time
from typing import ClassVar
from unittest.mock import patch

import numpy as np
import torch
from bench_extract import make_photos
from machine import print_table, scratch, seconds

from pipeline.cam.references import References
from pipeline.cam.stage import cam
from pipeline.cam.wanted import wanted_map_keys
from pipeline.extract import extractor
from pipeline.extract.stage import extract
from pipeline.features.reading import feature_arrays
from pipeline.index.stage import index
from pipeline.run.directory import Run
from pipeline.settings.all import load_settings
from pipeline.work.executors import run_blocks
from safenet import PRESETS, SafeNet, save_checkpoint
from safenet.alignment import resample
from safenet.partition import pool_rings
from safenet.preprocess import load_image
from stages.cam.class_maps import class_maps
from stages.cam.compute import needed_features
from stages.cam.methods import METHODS
from stages.cam.positions import POSITIONS
from stages.extract.batch import FeatureExtractor

ROUNDS = 3
AT_MAPS = [name for name, method in METHODS.items() if method.where != "blocks"]
SETS = {
    "l2_norm, max, mean, grad_cam, hires_cam": ["l2_norm", "max", "mean", "grad_cam", "hires_cam"],
    "all but the two with eigenvectors": [name for name in AT_MAPS if "eigen" not in name],
    "all": AT_MAPS,
}
REAL_BATCHES = 2  # of 32 photos
PEER_CLASSES = 8
MEMORY_IMAGES = (128, 512, 2048)


def main() -> None:
    """Extract once, then time everything against it."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=4096)
    options.add_argument("--peer-images", type=int, default=8)
    options.add_argument("--preset", default="upstream", choices=sorted(PRESETS))
    options.add_argument("--cold", action="store_true", help="also with the page cache emptied first, where that is allowed")
    options.add_argument("--only-reading", action="store_true", help="table (a) alone")
    options.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.memory:
        measure_memory(chosen.folder, chosen.memory)
        return
    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        folder = Path(name)
        prepare(folder, chosen.images, chosen.preset)
        ours = against_reading(folder, chosen)
        if chosen.only_reading:
            return
        against_peers(folder, chosen, ours)
        every_class(folder, chosen)
        memory(folder)


class RepeatedBatches(FeatureExtractor):
    """The network, for the first few batches; then what it gave for them, again and again."""

    given: ClassVar[list[dict[str, torch.Tensor]]] = []

    def __call__(self, photos: torch.Tensor, class_index: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """As FeatureExtractor."""
        if len(self.given) < REAL_BATCHES:
            self.given.append(super().__call__(photos, class_index))
            return self.given[-1]
        self.given.append(self.given.pop(0))
        return {name: values[: len(photos)] for name, values in self.given[-1].items()}


def prepare(folder: Path, images: int, preset: str) -> None:
    """Extract random photos with a random network."""
    RepeatedBatches.given.clear()
    torch.manual_seed(0)
    save_checkpoint(folder / "net_000.pth", SafeNet(PRESETS[preset]), epoch=0, class_names=[str(c) for c in range(PRESETS[preset].classes)])
    make_photos(folder / "photos", images, size_px=64)
    run = open_run(folder, SETS["all"])
    index(run)
    with patch.object(extractor, "FeatureExtractor", RepeatedBatches):
        extract(run)


def open_run(folder: Path, methods: Sequence[str], *more: str) -> Run:
    """The run with these methods at patch, aligned and part, of one target."""
    return Run(folder / "run", load_settings(None, [*asked(folder), f"cam.methods={list(methods)}", *more]), progress=False)


def asked(folder: Path) -> list[str]:
    """Settings of all runs."""
    return [
        f"dataset.root='{folder / 'photos'}'",
        "dataset.layout='folder'",
        f"extract.checkpoints=['{folder / 'net_000.pth'}']",
        "extract.store=[]",
        "cam.targets=['predicted']",
    ]


def against_reading(folder: Path, chosen: argparse.Namespace) -> float:
    """(a) Reading the features by the same threads, from the page cache or the disk, and all maps, stored; wall seconds an image of the last."""
    rows = []
    for name, methods in SETS.items():
        run = open_run(folder, methods)
        count = len(wanted_map_keys(run, "net_000"))
        for cold in (False, True) if chosen.cold and drop_caches() else (False,):
            times = []
            for _ in range(ROUNDS):
                reading = timed(lambda run=run: read_all(run), cold)
                run.cams("net_000").clear()
                times.append((*reading, *timed(lambda run=run: cam(run), cold)))
            read, read_cpu, made, made_cpu = (1e3 * median(column) / chosen.images for column in zip(*times, strict=True))
            cells = [f"{read:.2f}", f"{made:.2f}", f"{made / read:.1f}", f"{read_cpu:.2f}", f"{made_cpu:.2f}", f"{made_cpu / read_cpu:.1f}"]
            rows.append([f"{name}: {count} maps{', page cache emptied first' if cold else ''}", *cells])
    head = ["ms an image", "reading", "atlas cam", "ratio", "reading, CPU", "atlas cam, CPU", "ratio"]
    print_table(f"(a) against reading, {chosen.preset} network, {chosen.images} images", head, rows)
    return made / 1e3


def timed(work: Callable[[], object], cold: bool) -> tuple[float, float]:
    """Wall and CPU seconds, from the disk where `cold`."""
    if cold:
        drop_caches()
    started = process_time()
    return seconds(work), process_time() - started


def drop_caches() -> bool:
    """Empty the page cache, where that is allowed."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True


def read_all(run: Run) -> None:
    """Read, block by block and by as many threads as `cam` uses, every feature that the maps are made of."""
    store = run.features("net_000")
    needed = needed_features(wanted_map_keys(run, "net_000"))
    for _ in run_blocks(run.settings.compute, lambda block: len(feature_arrays(store, needed, block.rows)), store.blocks):
        pass


def against_peers(folder: Path, chosen: argparse.Namespace, ours: float) -> None:
    """(b) One Grad-CAM of the peers, from the image, against all of ours from the store."""
    model = SafeNet(PRESETS[chosen.preset]).eval()
    paths = sorted((folder / "photos").rglob("*.jpg"))[: chosen.peer_images]
    images = torch.stack([load_image(path, model.architecture.image_size) for path in paths])
    run = open_run(folder, ["grad_cam"], "cam.positions=['patch']")
    run.cams("net_000").clear()
    alone = seconds(lambda: cam(run)) / chosen.images
    rows = [
        ["ours: Grad-CAM at the patch map, read, computed and stored", f"{1e3 * alone:.2f}", "-"],
        ["ours: all maps of an image", f"{1e3 * ours:.2f}", "-"],
    ]
    for name, work in (("pytorch-grad-cam, Grad-CAM", peer_gradcam), ("torch-cam, Grad-CAM", peer_torchcam)):
        peer = seconds(lambda work=work: work(model, images)) / len(images)
        rows.append([name, f"{1e3 * peer:.0f}", f"{peer / alone:,.0f} x our Grad-CAM, {peer / ours:,.0f} x all our maps"])
    print_table(f"(b) against the peers from {len(images)} images", ["", "ms an image", ""], rows)


class PatchMap(torch.nn.Module):
    """The network with its patch map [B, K, y, x] as a layer of its own, to be hooked; mean part logits out."""

    def __init__(self, model: SafeNet) -> None:
        super().__init__()
        self.model, self.map = model, torch.nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Backbone, map, and the rest."""
        tokens = self.model.transformer.forward_features(images)
        side = self.model.architecture.grid
        patch = self.map(tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side)))
        aligned = resample(patch, self.model.loc_net(tokens[:, 0]), self.model.architecture.sampling)
        with torch.no_grad():
            boundary = self.model(images).boundary if self.boundary is None else self.boundary
        part = pool_rings(aligned, boundary)
        return torch.stack([head(value)[1] for head, value in zip(self.model.heads[:-1], part.unbind(2), strict=True)]).mean(dim=0)

    boundary: torch.Tensor | None = None


def peer_gradcam(model: SafeNet, images: torch.Tensor) -> None:
    """Hooks on the backbone's last norm, gradients through the whole network."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    side = model.architecture.grid

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.model(images).logit[:, :, :-1].mean(dim=2)

    def to_grid(tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))

    with GradCAM(model=Logits(), target_layers=[model.transformer.norm], reshape_transform=to_grid) as peer:
        peer(input_tensor=images, targets=[ClassifierOutputTarget(0)] * len(images))


def peer_torchcam(model: SafeNet, images: torch.Tensor) -> None:
    """It takes maps, not tokens: the patch map as a layer; boundaries given, so that nothing runs twice."""
    from torchcam.methods import GradCAM

    wrapped = PatchMap(model)
    with torch.no_grad():
        wrapped.boundary = model(images).boundary
    with GradCAM(wrapped, target_layer="map") as peer:
        peer([0] * len(images), wrapped(images.requires_grad_()))


def every_class(folder: Path, chosen: argparse.Namespace) -> None:
    """(c) Grad-CAM of all classes on the stored maps; the peer for a few classes, extrapolated."""
    run = open_run(folder, ["grad_cam"])
    store = run.features("net_000")
    block = feature_arrays(store, ["valid", "source_cell", "aligned_map", "boundary", "logit"], store.blocks[0].rows)
    context = References(store).context
    classes, count = len(context.targets.class_names), len(block["valid"])
    view = POSITIONS["aligned"].open(block, context.sampling, context.pooling, True)
    ours = median(
        seconds(lambda: class_maps(view.cells.values, view.weights.values, context.targets.heads.folded, "grad_cam")) for _ in range(ROUNDS)
    )
    peer = seconds(lambda: peer_classes(folder, chosen.preset, block)) / min(PEER_CLASSES, classes) * classes
    rows = [
        [f"ours, {classes} classes", f"{1e3 * ours / count:.2f}", "-"],
        [
            f"pytorch-grad-cam on the stored maps, from {min(PEER_CLASSES, classes)} classes",
            f"{1e3 * peer / count:,.0f}",
            f"{peer / ours:,.0f} x ours",
        ],
    ]
    print_table(f"(c) Grad-CAM of every class, {count} images", ["", "ms an image", ""], rows)


def peer_classes(folder: Path, preset: str, block: dict[str, np.ndarray]) -> None:
    """Grad-CAM of a few classes, one after the other, on the aligned map behind which only pooling and heads are run."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    model = SafeNet(PRESETS[preset]).eval()
    boundary = torch.from_numpy(block["boundary"].astype(np.int64))

    class Tail(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map, self.heads = torch.nn.Identity(), torch.nn.ModuleList(model.heads[:-1])

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            part = pool_rings(self.map(maps), boundary)
            return torch.stack([head(value)[1] for head, value in zip(self.heads, part.unbind(2), strict=True)]).mean(dim=0)

    maps = torch.from_numpy(block["aligned_map"].astype(np.float32)).permute(0, 3, 1, 2).contiguous().requires_grad_()
    tail = Tail()
    with GradCAM(model=tail, target_layers=[tail.map]) as peer:
        for number in range(PEER_CLASSES):
            peer(input_tensor=maps, targets=[ClassifierOutputTarget(number)] * len(maps))


def memory(folder: Path) -> None:
    """(d) Largest resident memory of a process that makes all maps, by number of images (the small network)."""
    rows = []
    for images in MEMORY_IMAGES:
        place = folder / f"memory-{images}"
        place.mkdir()
        prepare(place, images, "small")
        command = [sys.executable, __file__, "--memory", str(images), "--folder", str(place)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append([f"{images:,}", done.stdout.strip()])
    print_table("(d) memory of `atlas cam`, all methods, small network", ["images", "largest resident memory, MB"], rows)


def measure_memory(folder: Path, images: int) -> None:
    """In a process of its own."""
    cam(open_run(folder, SETS["all"]))
    status = Path("/proc/self/status").read_text()  # getrusage would give the parent's, if that was larger
    print(f"{int(status.split('VmHWM:')[1].split()[0]) / 1024:.0f}")


if __name__ == "__main__":
    main()
