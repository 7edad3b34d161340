"""What bounds the extract stage on a GPU: the forward pass, the way to the host, the writer, or the photos; under five minutes.

Usage: python benchmarks/bench_gpu.py [--images 256] [--device auto]

Without CUDA nothing is measured, unless `--device cpu` asks for a try of the logic (with `--preset tiny --images 8 --seconds 0.1`).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import torch
from bench_extract import assignments, every_tensor, forward_all, make_photos, photo_run
from bench_store import make_store, safe, write_all
from machine import print_table, scratch, seconds
from torch import Tensor

from pipeline.disk.stamps import file_digest
from pipeline.extract.photos import PhotoFiles, PhotoReader
from pipeline.extract.stage import extract
from pipeline.extract.streaming import HostCopy
from pipeline.work.cores import cores
from safenet import PRESETS, SafeNet, save_checkpoint
from safenet.preprocess import normalise
from stages.extract.batch import AUTOCAST, FeatureExtractor
from stages.extract.settings import ExtractSettings

BATCHES = (16, 32, 64, 128, 256)
BATCH = 32  # of the stage: its default
COPY_BYTES = 2**28


def main() -> None:
    """Measure each part alone, then the stage."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=2048, help="photos; the decoding processes of 16 cores read 1,024 ahead")
    options.add_argument("--device", default="auto", help="auto: CUDA or nothing")
    options.add_argument("--preset", default="upstream", choices=sorted(PRESETS))
    options.add_argument("--seconds", type=float, default=3, help="for each part that is measured alone")
    chosen = options.parse_args()
    if chosen.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(f"bench_gpu: torch {torch.__version__} finds no CUDA device: nothing was measured. `--device cpu` tries the logic alone")
    device = torch.device("cuda" if chosen.device == "auto" else chosen.device)
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        bench(Path(folder), device, chosen)


def bench(folder: Path, device: torch.device, chosen: argparse.Namespace) -> None:
    """Find the best batch, and measure everything else with it."""
    torch.manual_seed(0)
    model, tensors = SafeNet(PRESETS[chosen.preset]).eval(), every_tensor(chosen.preset)
    save_checkpoint(folder / "net_000.pth", model, epoch=0)
    make_photos(folder / f"photos{chosen.images}", chosen.images)
    extractor, copier = FeatureExtractor(model, ExtractSettings(**tensors), device), HostCopy(device)
    forward = dict(rates_of_forward(extractor, chosen.seconds))
    batch = max(forward, key=lambda size: forward[size])
    photos = random_photos(extractor, batch)
    size = sum(value.nbytes for value in extractor(photos).values()) / batch
    bandwidth = copy_bandwidth(device, chosen.seconds)
    found = {f"forward pass alone, batch {size}": value for size, value in forward.items()} | {
        "every tensor, left on the device": batch / seconds_of(partial(extractor, photos.to(device)), device, chosen.seconds),
        "every tensor, copied to the host": batch / seconds_of(partial(to_host, extractor, copier, photos), device, chosen.seconds),
        "decoding alone": rate_of_decoding(folder / f"photos{chosen.images}", extractor),
        "writer alone, every tensor": rate_of_writer(folder, chosen.preset, extractor.settings, chosen.images),
        "extract, default variables": rate_of_stage(folder, chosen.images, device, {}),
        "extract, every tensor": rate_of_stage(folder, chosen.images, device, tensors),
    }
    rows = [[name, f"{value:,.1f}", f"{value / forward[batch]:.2f}"] for name, value in found.items()]
    print_table(f"extract on {device}, {chosen.preset} network, {extractor.precision}", ["", "images/s", "ratio"], rows)
    print(f"\ndevice to pinned memory: {bandwidth / 1e9:.1f} GB/s; every tensor of an image: {size / 1e6:.2f} MB")
    print(f"the copy takes {100 * found['extract, every tensor'] * size / bandwidth:.1f} % of the time of `extract, every tensor`")


def rates_of_forward(extractor: FeatureExtractor, least_s: float) -> Iterator[tuple[int, float]]:
    """Images a second of forward passes over images on the device, in extract's precision, by batch: up to what fits."""
    for batch in BATCHES:
        images = normalise(random_photos(extractor, batch).to(extractor.device))
        work = partial(forward_all, extractor.model, images, batch, AUTOCAST.get(extractor.precision))
        try:
            yield batch, batch / seconds_of(work, extractor.device, least_s)
        except torch.OutOfMemoryError:
            return


def random_photos(extractor: FeatureExtractor, count: int) -> Tensor:
    """uint8 [count, S, S, 3] at the network's size."""
    side = extractor.architecture.image_size
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)


def seconds_of(work: Callable[[], object], device: torch.device, least_s: float) -> float:
    """Seconds of one call, repeated for a while after the first; each ends when the device has done all that it was given."""

    def done() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    done()
    times: list[float] = []
    while sum(times) < least_s:
        times.append(seconds(done))
    return sum(times) / len(times)


def to_host(extractor: FeatureExtractor, copier: HostCopy, photos: Tensor) -> None:
    """Send a batch from photos in plain memory to tensors in pinned memory, as extract does."""
    _, ready = copier.start(extractor(photos.pin_memory() if extractor.device.type == "cuda" else photos))
    if ready is not None:
        ready.synchronize()


def copy_bandwidth(device: torch.device, least_s: float) -> float:
    """Bytes a second from the device to pinned memory."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.zeros(COPY_BYTES, dtype=torch.uint8, pin_memory=device.type == "cuda")
    return COPY_BYTES / seconds_of(partial(target.copy_, source, non_blocking=True), device, least_s)


def rate_of_decoding(folder: Path, extractor: FeatureExtractor) -> float:
    """Images a second of as many decoding processes as extract starts beside a GPU."""
    paths = sorted(folder.rglob("*.jpg"))
    names, digests, none = [str(path.relative_to(folder)) for path in paths], [file_digest(path) for path in paths], [""] * len(paths)
    architecture, workers = extractor.architecture, min(16, cores())
    reader = PhotoReader(PhotoFiles(folder, names, digests, none, none, architecture.image_size, architecture.grid), workers)
    list(reader.read([[0]] * workers))  # now they have started
    samples = range(len(paths))
    return len(paths) / seconds(lambda: list(reader.read([samples[start : start + BATCH] for start in samples[::BATCH]])))


def rate_of_writer(folder: Path, preset: str, settings: ExtractSettings, images: int) -> float:
    """Images a second of ready-made tensors through BlockWriter, checked, flushed and marked."""
    blocks = -(-images // settings.block_samples)
    store, arrays = make_store(folder / "written", preset, blocks, settings)
    taken = seconds(lambda: write_all(store, arrays, partial(safe, store)))
    shutil.rmtree(folder / "written")
    return blocks * settings.block_samples / taken


def rate_of_stage(folder: Path, images: int, device: torch.device, tensors: Mapping[str, object]) -> float:
    """Images a second of `extract` from its first forward pass on, until all is marked; what is decoded before that is not counted as time."""
    began: list[float] = []
    forward = FeatureExtractor.__call__

    def noted(extractor: FeatureExtractor, *arguments: Tensor) -> dict[str, Tensor]:
        began.append(perf_counter())
        return forward(extractor, *arguments)

    run = photo_run(folder, images, folder / "run", BATCH, f"extract.device='{device}'", *assignments(tensors))
    with patch.object(FeatureExtractor, "__call__", noted):
        extract(run)
    ended = perf_counter()
    shutil.rmtree(folder / "run")
    return images / (ended - began[0])


if __name__ == "__main__":
    main()
