"""What it costs that a store can be trusted: writing, verifying, opening, and files, each beside the plain thing in one run.

Usage: python benchmarks/bench_store.py [--blocks 16] [--preset upstream] [--checkpoints 120]
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from bench_extract import make_photos
from machine import print_table, scratch, seconds
from numpy.typing import NDArray

import pipeline
from pipeline.cam.stage import cam
from pipeline.disk.records import sync_file
from pipeline.extract.stage import extract
from pipeline.extract.streaming import WRITERS, Arrays, BlockWriter
from pipeline.index.stage import index
from pipeline.look.verify import verify
from pipeline.run.directory import Run
from pipeline.settings.all import load_settings
from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from pipeline.store.layout import array_layout
from safenet import PRESETS, SafeNet, save_checkpoint
from stages.extract.batch import written_by_network
from stages.extract.settings import ExtractSettings
from stages.schema import dim_sizes

ROUNDS = 5


def main() -> None:
    """Run all four comparisons."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--blocks", type=int, default=16)
    options.add_argument("--preset", default="upstream", choices=sorted(PRESETS))
    options.add_argument("--checkpoints", type=int, default=120)
    options.add_argument("--images", type=int, default=2000, help="images a checkpoint, for the time to open a run")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        bench_write(Path(folder), chosen.preset, chosen.blocks)
        bench_verify(Path(folder))
        bench_open(Path(folder) / "open", chosen.checkpoints, chosen.images)


def bench_write(folder: Path, preset: str, count: int) -> None:
    """Ready-made tensors through BlockWriter: with all safety, without checksums and marks, without flushes; and plain copies."""
    store, arrays = make_store(folder, preset, count)
    volume = count * sum(values.nbytes for values in arrays.values())
    payload = folder / "payload"
    payload.write_bytes(np.random.default_rng(0).bytes(volume // count))

    ways: Mapping[str, Callable[[], None]] = {
        "raw copy, one file and one fsync a block": lambda: copy(folder, payload, count, flush=True),
        "raw copy, one file a block, never flushed": lambda: copy(folder, payload, count, flush=False),
        "our files, no checksum, no mark": lambda: write_all(store, arrays, partial(bare, store, flush=True)),
        "our files, no checksum, no mark, never flushed": lambda: write_all(store, arrays, partial(bare, store, flush=False)),
        "our files with checksums and marks (what extract does)": lambda: write_all(store, arrays, partial(safe, store)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            times[name].append(seconds(way))
            os.sync()  # what was not flushed must not burden the next
    first = median(times[next(iter(ways))])
    rows = [[name, f"{volume / median(found) / 1e6:,.0f}", f"{first / median(found):.2f}"] for name, found in times.items()]
    print_table(f"writing, {preset} network, {count} blocks of {len(store.blocks[0])} samples, {volume / 1e6:,.0f} MB", ["", "MB/s", "ratio"], rows)
    unsafe, ours = (median(times[name]) for name in list(ways)[2::2])
    print(f"\nprice of checksums and marks: {100 * (ours / unsafe - 1):.1f} % of the time")
    print(f"files per 10,000 images: {files_per_10000(store, arrays):,}")


def make_store(folder: Path, preset: str, count: int, settings: ExtractSettings | None = None) -> tuple[GroupStore, Arrays]:
    """Lay out a store of `count` blocks; return it and the values of one block."""
    settings = settings or ExtractSettings()
    size = settings.block_samples
    sizes = dim_sizes(PRESETS[preset], count * size, len(settings.blocks))
    variables = written_by_network(settings)
    layouts = [array_layout(v, settings.map_dtype if v.dtype == "map" else v.dtype, sizes, size) for v in variables]
    store = GroupStore(folder / "features.zarr", "net")
    store.lay_out(count * size, size, {"stamp": "stamp", "block_arrays": [v.name for v in variables]}, layouts)
    rng = np.random.default_rng(0)
    return store, {layout.key: rng.standard_normal((size, *layout.shape[1:])).astype(layout.dtype) for layout in layouts}


def write_all(store: GroupStore, arrays: Arrays, write: Callable[[Block, Arrays], None]) -> None:
    """Write every block, as extract does: several at the same time."""
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    with BlockWriter(write) as writer:
        for block in store.blocks:
            writer.add(block, range(len(block)), tensors, None, {})


def safe(store: GroupStore, block: Block, arrays: Arrays) -> None:
    """As extract does."""
    store.write_block(block, arrays, dict.fromkeys(arrays, "stamp"), images=["digest" * 5] * len(block))


def bare(store: GroupStore, block: Block, arrays: Mapping[str, NDArray[np.generic]], *, flush: bool) -> None:
    """The same files by the same threads, of the same bytes but for the checksum."""

    def write(key: str) -> None:
        path = store.chunk_file(key, block.index)
        unfinished = path.with_name(f"{path.name}.partial")
        with unfinished.open("wb", buffering=0) as file:
            file.write(memoryview(arrays[key]).cast("B"))
            if flush:
                os.fsync(file.fileno())
        unfinished.replace(path)
        if flush:
            sync_file(path.parent)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, arrays))


def copy(folder: Path, payload: Path, count: int, flush: bool) -> None:
    """Copy a block's bytes into new files, as many at the same time as blocks are written."""

    def one(number: int) -> None:
        target = folder / f"copy{number}"
        shutil.copyfile(payload, target)
        if flush:
            sync_file(target)
        target.unlink()

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(one, range(count)))


def files_per_10000(store: GroupStore, arrays: Arrays) -> int:
    """Blocks times (arrays and one mark), and what a checkpoint has once."""
    once = sum(path.is_file() for path in store.root.rglob("zarr.json"))
    return -(-10_000 // len(store.blocks[0])) * (len(arrays) + 1) + once


def bench_verify(folder: Path) -> None:
    """`verify` of the store that was written, against reading its files and against reading it with zarr."""
    run = Run(folder, load_settings(None), progress=False)
    store = run.features("net")
    files = list(store.root.rglob("c.*"))
    volume = sum(path.stat().st_size for path in files)

    def read_files() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda path: len(path.read_bytes()), files))

    def read_zarr() -> None:
        for key in store.attributes["block_arrays"]:
            for block in store.blocks:
                store.array(key)[block.rows]

    def check() -> None:
        assert not verify(run).faults

    ways = {"reading the files, nothing looked at": read_files, "reading with zarr, chunk by chunk": read_zarr, "atlas verify": check}
    times = {name: median(seconds(way) for _ in range(ROUNDS)) for name, way in ways.items()}
    first = next(iter(times.values()))
    rows = [[name, f"{volume / found / 1e6:,.0f}", f"{first / found:.2f}"] for name, found in times.items()]
    print_table(f"verifying, {volume / 1e6:,.0f} MB, in the page cache", ["", "MB/s", "ratio"], rows)


def bench_open(folder: Path, most: int, images: int) -> None:
    """`pipeline.open_run` by number of checkpoints: of a tiny network, but with as many blocks as so many images have."""
    torch.manual_seed(0)
    save_checkpoint(folder / "net_000.pth", SafeNet(PRESETS["tiny"]), epoch=0)
    make_photos(folder / "photos", images, size_px=32)
    assignments = [
        f"dataset.root='{folder / 'photos'}'",
        "dataset.layout='folder'",
        f"extract.checkpoints=['{folder / 'net_000.pth'}']",
        "extract.block_samples=32",
        "cam.targets=['predicted']",
    ]
    run = Run(folder / "run", load_settings(None, assignments), progress=False)
    index(run)
    extract(run)
    cam(run)
    rows = []
    for count in sorted({1, 10, most // 3, most}):
        for number in range(1, count):
            copy_checkpoint(run, f"net_{number:03d}")
        times = [seconds(lambda: pipeline.open_run(run.directory)) for _ in range(3)]
        rows.append([f"{count}", f"{median(times):.2f}", f"{1e3 * median(times) / count:.1f}"])
    blocks = len(run.features("net_000").blocks)
    print_table(f"opening a run with features and 15 heat maps, {images:,} images, {blocks} blocks", ["checkpoints", "s", "ms a checkpoint"], rows)


def copy_checkpoint(run: Run, name: str) -> None:
    """Another checkpoint with the same content."""
    for store in (run.features, run.cams):
        for source, target in ((store("net_000").root, store(name).root), (store("net_000").ledger.directory, store(name).ledger.directory)):
            if not target.exists():
                shutil.copytree(source, target, copy_function=os.link)


if __name__ == "__main__":
    main()
