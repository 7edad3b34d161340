"""How a stored map should lie: channels last or first, samples a chunk, one file a block or shards; by the time to read it and to make maps of it.

Usage: python benchmarks/bench_layout.py [--samples 256] [--channels 768] [--grid 16]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import torch
import zarr
from machine import print_table, scratch, seconds
from zarr.codecs import BloscCodec, Crc32cCodec

ROUNDS = 5
BLOCK = 32
DIRECTIONS = 8  # columns of the matrix product that most methods are
VARIANTS = {  # name -> (channels last, samples a chunk, sharded, compressed)
    "channels last, a block a chunk (ours)": (True, BLOCK, False, False),
    "channels first, a block a chunk": (False, BLOCK, False, False),
    "channels last, 8 samples a chunk in shards": (True, 8, True, False),
    "channels last, 1 sample a chunk in shards": (True, 1, True, False),
    "channels last, 1 sample a file": (True, 1, False, False),
    "channels last, a block a chunk, zstd": (True, BLOCK, False, True),
}


def main() -> None:
    """Write the same maps in every layout; read them, and project them on a few directions."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--samples", type=int, default=256)
    options.add_argument("--channels", type=int, default=768)
    options.add_argument("--grid", type=int, default=16)
    chosen = options.parse_args()
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((chosen.samples, chosen.grid, chosen.grid, chosen.channels)).astype(np.float16)
    direction = rng.standard_normal((chosen.channels, DIRECTIONS)).astype(np.float32)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        arrays = {name: write(Path(folder) / str(number), maps, *variant) for number, (name, variant) in enumerate(VARIANTS.items())}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
        for _ in range(ROUNDS):
            for name, array in arrays.items():
                last = VARIANTS[name][0]
                times[name].append((each(array, lambda values: values), each(array, lambda values, last=last: project(values, direction, last))))
        for number, (name, found) in enumerate(times.items()):
            reading, both = (1e3 * median(column) / chosen.samples for column in zip(*found, strict=True))
            size = sum(path.stat().st_size for path in (Path(folder) / str(number)).rglob("*") if path.is_file())
            files = sum(path.is_file() for path in (Path(folder) / str(number)).rglob("*"))
            rows.append([name, f"{reading:.3f}", f"{both:.3f}", f"{size / maps.nbytes:.2f}", str(files)])
        shutil.rmtree(folder, ignore_errors=True)
    head = ["layout", "reading, ms an image", "reading and projecting", "size over raw", "files"]
    print_table(f"a stored map {chosen.grid} x {chosen.grid} x {chosen.channels}, float16, {chosen.samples} images", head, rows)


def write(path: Path, maps: np.ndarray, last: bool, chunk: int, sharded: bool, compressed: bool) -> zarr.Array:
    """One array with a checksum a chunk."""
    values = maps if last else np.ascontiguousarray(np.moveaxis(maps, 3, 1))
    codecs = [BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()] if compressed else [Crc32cCodec()]
    array = zarr.create_array(
        path,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(chunk, *values.shape[1:]),
        shards=(BLOCK, *values.shape[1:]) if sharded else None,
        compressors=codecs,
    )
    array[...] = values
    return array


def each(array: zarr.Array, work: Callable[[np.ndarray], object]) -> float:
    """Seconds to read every block and work on it, two blocks at a time."""
    starts = range(0, array.shape[0], BLOCK)
    with ThreadPoolExecutor(2) as pool:
        return seconds(lambda: list(pool.map(lambda start: work(np.asarray(array[start : start + BLOCK])) is None, starts)))


def project(values: np.ndarray, direction: np.ndarray, last: bool) -> np.ndarray:
    """Float32 cells times the directions, as the formulas ask for them."""
    cells = torch.from_numpy(values).to(torch.float32).numpy()
    cells = cells.reshape(len(cells), -1, cells.shape[3]) if last else cells.reshape(*cells.shape[:2], -1).transpose(0, 2, 1)
    return np.matmul(cells, direction)


if __name__ == "__main__":
    main()
