"""How heat maps should lie: arrays, samples a file and a chunk; by the time to write them, to read them in four ways, and to add a method.

Usage: python benchmarks/bench_map_layout.py [--samples 4096] [--checkpoints 4] [--grid 16]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from machine import print_table, scratch
from numpy.typing import NDArray

from pipeline.store.group_store import GroupStore
from pipeline.store.layout import array_layout
from stages.cam.facts import FACTS
from stages.schema import Variable

POSITIONS, METHODS = ("patch", "aligned", "part"), ("l2_norm", "max", "mean", "grad_cam", "hires_cam")
ROUNDS = 3


@dataclass(frozen=True)
class Layout:
    """Samples a file and a chunk (0: the file), methods an array, and whether the facts of all maps are one array."""

    block: int
    chunk: int = 0
    joined: bool = False
    one_for_facts: bool = False


LAYOUTS = {
    "an array a map, 32 a file (version 2)": Layout(32),
    "an array a map, 2,048 a file in chunks of 32 (ours)": Layout(2048, 32),
    "an array a map, 2,048 a file, one chunk": Layout(2048),
    "as ours, facts of all maps in one array": Layout(2048, 32, one_for_facts=True),
    "an array a position with a dim `method`": Layout(2048, 32, joined=True),
}
Maps = Mapping[tuple[str, str], NDArray[np.float32]]


def main() -> None:
    """Write the same maps and facts in every layout, and use them."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--samples", type=int, default=4096)
    options.add_argument("--checkpoints", type=int, default=4)
    options.add_argument("--grid", type=int, default=16)
    chosen = options.parse_args()
    rng = np.random.default_rng(0)
    one = rng.standard_normal((chosen.samples, chosen.grid, chosen.grid)).astype(np.float32)
    maps = {(position, method): one for position in POSITIONS for method in METHODS}
    found: dict[str, list[list[float]]] = {name: [] for name in LAYOUTS}
    files = {}
    for _ in range(ROUNDS):
        for name, layout in LAYOUTS.items():
            with tempfile.TemporaryDirectory(dir=scratch()) as folder:
                found[name].append(measure(Path(folder), layout, maps, chosen.checkpoints))
                files[name] = sum(1 for _ in (Path(folder) / "cams.zarr" / "c0").rglob("c.*"))
    head = [
        "layout",
        "write",
        "one map, all images",
        "all maps, all images",
        "one map of one image, all checkpoints",
        "add a method",
        "files a checkpoint",
    ]
    rows = [[name, *(f"{median(column):.3f}" for column in zip(*times, strict=True)), str(files[name])] for name, times in found.items()]
    print_table(
        f"{len(maps)} maps of {chosen.samples} images of {chosen.grid} x {chosen.grid}, {chosen.checkpoints} checkpoints; CPU-seconds", head, rows
    )


def measure(folder: Path, layout: Layout, maps: Maps, checkpoints: int) -> list[float]:
    """CPU-seconds of each use; of writing and adding for one checkpoint."""
    arrays = arranged(layout, maps)
    stores = [GroupStore(folder / "cams.zarr", f"c{number}") for number in range(checkpoints)]
    writing = [cpu_seconds(lambda store=store: write(store, layout, arrays)) for store in stores]
    position, method = POSITIONS[1], METHODS[2]
    key = position if layout.joined else f"{position}/{method}"
    fresh = [GroupStore(store.path, store.name) for store in stores]
    middle = len(next(iter(arrays.values()))) // 2
    return [
        median(writing),
        cpu_seconds(lambda: GroupStore(stores[0].path, "c0").values(key)),
        cpu_seconds(lambda: [GroupStore(stores[0].path, "c0").values(name) for name in arrays]),
        cpu_seconds(lambda: [store.values(key, slice(middle, middle + 1)) for store in fresh]),
        cpu_seconds(lambda: add_method(stores[0], layout, maps)),
    ]


def arranged(layout: Layout, maps: Maps) -> dict[str, NDArray[np.float32]]:
    """Key of an array -> its values."""
    facts = {key: np.zeros((len(values), len(FACTS)), np.float32) for key, values in maps.items()}
    if layout.joined:
        found = {position: np.stack([values for (where, _), values in maps.items() if where == position], axis=1) for position in POSITIONS}
        return found | {f"facts/{position}": np.stack([v for (where, _), v in facts.items() if where == position], axis=1) for position in POSITIONS}
    found = {"/".join(key): values for key, values in maps.items()}
    one = {"facts": np.stack(list(facts.values()), axis=1)}
    return found | (one if layout.one_for_facts else {"facts/" + "/".join(key): values for key, values in facts.items()})


def write(store: GroupStore, layout: Layout, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Lay the group out and write every block, as the stage does."""
    if not store.exists:
        store.lay_out(len(next(iter(arrays.values()))), layout.block, {})
    store.add_arrays([described(layout, key, values) for key, values in arrays.items()])
    for block in store.blocks:
        store.write_block(block, {key: values[block.rows] for key, values in arrays.items()}, dict.fromkeys(arrays, "stamp"))


def described(layout: Layout, key: str, values: NDArray[np.float32]) -> object:
    """Samples first; facts are one chunk a file."""
    dims = ("sample", *(f"dim_{number}" for number in range(1, values.ndim)))
    sizes = dict(zip(dims, values.shape, strict=True))
    chunk = 0 if key.startswith("facts") else layout.chunk
    return array_layout(Variable(key, dims, "float32", key), "float32", sizes, layout.block, chunk)


def add_method(store: GroupStore, layout: Layout, maps: Maps) -> None:
    """Write a method more at every position; what shares an array with it is read and written again."""
    more = {(position, "layer_cam"): maps[position, METHODS[0]] for position in POSITIONS}
    if layout.joined:
        read = [store.values(name) for name in arranged(layout, maps)]
        assert all(len(values) for values in read)
        write(store, layout, arranged(layout, {**maps, **more}))
        return
    if layout.one_for_facts:
        write(store, layout, {"facts": arranged(layout, {**maps, **more})["facts"] + store.values("facts")[:, :1]})
        more_maps = {key: values for key, values in arranged(layout, more).items() if key != "facts"}
        write(store, layout, more_maps)
        return
    write(store, layout, arranged(layout, more))


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of all threads: the machine is shared, and flushes wait."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
