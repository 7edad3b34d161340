"""All heat maps from the store against pytorch-grad-cam from the images, side by side in one run; and against just reading the features.

Usage: python benchmarks/bench_cam.py [--images 64] [--peer-images 8] [--preset upstream]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

import torch
from bench_extract import make_photos
from machine import print_table, scratch, seconds

from pipeline.cam_run import cam
from pipeline.config import load_settings
from pipeline.extract_run import extract
from pipeline.features import read_features
from pipeline.index_run import index
from pipeline.run import Run
from safenet import PRESETS, SafeNet, save_checkpoint
from safenet.preprocess import load_image
from stages.cam import needed_features, products_of

ROUNDS = 3


def main() -> None:
    """Extract once, then time reading, all closed forms, and the peer."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=64)
    options.add_argument("--peer-images", type=int, default=8)
    options.add_argument("--preset", default="upstream", choices=sorted(PRESETS))
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        run = prepare(Path(folder), chosen)
        read, compute = [], []
        for _ in range(ROUNDS):
            read.append(seconds(lambda: read_all(run)))
            run.cams("net_000").clear()
            compute.append(seconds(lambda: cam(run)))
        peer = seconds(lambda: peer_maps(Path(folder), chosen)) / chosen.peer_images
    maps = len(products_of(run.settings.cam))
    reading, ours = median(read) / chosen.images, median(compute) / chosen.images
    rows = [
        ["reading the features", f"{1e3 * reading:.2f}", "-", "-"],
        [f"atlas cam: {maps} maps an image, stored", f"{1e3 * ours:.2f}", f"{ours / reading:.2f} x reading", "-"],
        ["pytorch-grad-cam, Grad-CAM alone, from the image", f"{1e3 * peer:.0f}", "-", f"{peer / ours:,.0f} x ours"],
    ]
    print_table(f"heat maps, {chosen.preset} network, {chosen.images} images ({chosen.peer_images} for the peer)", ["", "ms an image", "", ""], rows)


def prepare(folder: Path, chosen: argparse.Namespace) -> Run:
    """Extract random photos with a random network."""
    torch.manual_seed(0)
    save_checkpoint(folder / "net_000.pth", SafeNet(PRESETS[chosen.preset]), epoch=0)
    make_photos(folder / "photos", chosen.images)
    assignments = [
        f"dataset.root='{folder / 'photos'}'",
        "dataset.layout='folder'",
        f"extract.checkpoints=['{folder / 'net_000.pth'}']",
        "cam.targets=['predicted']",
    ]
    run = Run(folder / "run", load_settings(None, assignments), progress=False)
    index(run)
    extract(run)
    names = [str(number) for number in range(PRESETS[chosen.preset].classes)]
    run.features("net_000").update_attributes({"class_names": names})
    return run


def read_all(run: Run) -> None:
    """Read, block by block, every feature that the maps are made of."""
    store = run.features("net_000")
    for block in store.blocks:
        read_features(store, needed_features(products_of(run.settings.cam)), block.rows)


def peer_maps(folder: Path, chosen: argparse.Namespace) -> None:
    """Grad-CAM of the mean part logit by pytorch-grad-cam: hooks on the backbone's last norm, gradients through the whole network."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    model = SafeNet(PRESETS[chosen.preset]).eval()
    grid = model.architecture.grid

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.model(images).logit[:, :, :-1].mean(dim=2)

    def to_grid(tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))

    paths = sorted((folder / "photos").rglob("*.jpg"))[: chosen.peer_images]
    images = torch.stack([load_image(path, model.architecture.image_size) for path in paths])
    with GradCAM(model=Logits(), target_layers=[model.transformer.norm], reshape_transform=to_grid) as peer:
        peer(input_tensor=images, targets=[ClassifierOutputTarget(0)] * len(images))


if __name__ == "__main__":
    main()
