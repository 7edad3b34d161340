"""Figures of images from stub stores: cost an image, checkpoint and map, memory at many images, and the cost of one more checkpoint.

Usage: python benchmarks/bench_stats.py [--images 50000] [--memory-only]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import process_time
from typing import Any, ClassVar

import numpy as np
from machine import print_table, scratch
from numpy.typing import NDArray

from pipeline.settings.all import load_settings
from pipeline.stats.baselines import baselines
from pipeline.stats.blocks import Sources, figures_of_block
from pipeline.store.blocks import Block, blocks_of
from pipeline.store.group_store import GroupStore
from pipeline.store.layout import array_layout
from safenet import PRESETS
from stages.cam.map_keys import map_keys_of
from stages.cam.methods import METHODS
from stages.cam.settings import CamSettings
from stages.schema import Variable
from stages.stats.bootstrap import PlaceBootstrap
from stages.stats.compared import LAST, PREVIOUS
from stages.stats.gallery import Gallery
from stages.stats.groups import Groups
from stages.stats.images import AGREEMENT, IMAGES, MAPS, keys_of, reduced_images
from stages.stats.mean_maps import MapSums
from stages.stats.settings import StatsSettings

BLOCK = 2048
NETWORK = PRESETS["upstream"]
KEYS = map_keys_of(CamSettings(methods=tuple(name for name, method in METHODS.items() if method.where != "blocks"), targets=("predicted",)))
SETTINGS = StatsSettings()
PHOTOS_A_PLACE = 50


class StubStore:
    """A checkpoint's heat maps and small features: drawn where they are asked for, the same for the same block."""

    attributes: ClassVar = {"architecture": vars(NETWORK)}

    def __init__(self, seed: int) -> None:
        self._seed = seed

    blocks: Sequence[Block] = ()

    def has(self, key: str) -> bool:
        """Masks and all."""
        return True

    def present(self, keys: Iterable[str]) -> set[str]:
        """All of them."""
        return set(keys)

    def arrays(self, keys: Sequence[str], rows: slice) -> dict[str, NDArray[Any]]:
        """Draw arrays of a block."""
        random, count = np.random.default_rng([self._seed, rows.start]), rows.stop - rows.start
        return {key: self._array(key, count, random) for key in keys}

    def _array(self, key: str, count: int, random: np.random.Generator) -> NDArray[Any]:
        grid = (NETWORK.grid, NETWORK.grid)
        small = {
            "valid": lambda: np.ones(count, bool),
            "theta": lambda: np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1)),
            "source_cell": lambda: np.tile(np.arange(NETWORK.grid**2, dtype=np.int16).reshape(grid), (count, 1, 1)),
            "fam_change": lambda: np.zeros(count, np.float32),
            "saliency": lambda: random.random((count, NETWORK.rings), np.float32),
            "boundary": lambda: np.tile(np.array([1, 2, 4, 8], np.int16)[: NETWORK.parts], (count, 1)),
            "mask_share": lambda: random.random((count, *grid), np.float32),
            "mask_centre": lambda: np.ones((count, *grid), np.int8),
        }
        if key in small:
            return small[key]()
        if key.startswith("facts/"):
            return np.zeros((count, 7), np.float32)
        maps = random.standard_normal((count, *grid), np.float32)
        return np.abs(maps).round(1) if key.startswith("part/") else maps  # with ties


def main() -> None:
    """Measure."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=50_000)
    options.add_argument("--memory-only", action="store_true")
    chosen = options.parse_args()
    if not chosen.memory_only:
        costs()
    memory(chosen.images)


def stub_sources(*kinds: str) -> Sources:
    """A checkpoint with others to compare with."""
    stub: Any = StubStore
    return Sources(stub(0), stub(0), KEYS, {kind: stub(number) for number, kind in enumerate(kinds, 1)})


def costs() -> None:
    """Microseconds of one core an image and map, of a block of one checkpoint; drawing the maps is taken off."""
    sources, block = stub_sources(PREVIOUS, LAST), Block(0, 0, BLOCK)
    everything = keys_of(KEYS, (PREVIOUS, LAST))

    def chosen(*kinds: str) -> frozenset[str]:
        return frozenset(key for key in everything if key.split("/")[0] in kinds)

    rows = []
    for name, kinds in {
        "all figures of a map, with agreement": (IMAGES, MAPS, AGREEMENT),
        "the same, and the drift from the previous checkpoint: a checkpoint's own share": (IMAGES, MAPS, AGREEMENT, PREVIOUS),
        "drift to the last alone": (LAST,),
        "everything": (IMAGES, MAPS, AGREEMENT, PREVIOUS, LAST),
    }.items():
        drawn = time_of(lambda kinds=kinds: draw(sources, kinds))
        taken = time_of(lambda kinds=kinds: figures_of_block(sources, block, chosen(*kinds), SETTINGS)) - drawn
        rows.append([name, f"{1e6 * taken / BLOCK / len(KEYS):.1f}"])
    print_table(f"(a) {len(KEYS)} maps of {NETWORK.grid} x {NETWORK.grid}, {BLOCK} images", ["", "us an image, checkpoint and map"], rows)


def draw(sources: Sources, kinds: Iterable[str]) -> None:
    """Draw what `figures_of_block` draws."""
    for store in [sources.cams, *(store for kind, store in sources.others.items() if kind in kinds)]:
        for position in sorted({key.position for key in KEYS}):
            store.arrays([key.key for key in KEYS if key.position == position], slice(0, BLOCK))


def time_of(work: Any) -> float:
    """CPU seconds, the least of three."""
    times = []
    for _ in range(3):
        started = process_time()
        work()
        times.append(process_time() - started)
    return min(times)


def memory(images: int) -> None:
    """Largest resident memory: figures of many images computed, written and reduced; retrieval among them."""
    sources, blocks, before = stub_sources(PREVIOUS, LAST), blocks_of(images, BLOCK), resident_mb()
    wanted = frozenset(keys_of(KEYS, (PREVIOUS, LAST)))
    groups = Groups.of(["test"] * images, ["drone", "satellite"] * (images // 2), [True] * images)
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        figures, started = GroupStore(Path(folder) / "figures.zarr", "net_000"), process_time()
        sums: dict[str, MapSums] = {}
        for block in blocks:
            found = figures_of_block(sources, block, wanted, SETTINGS)
            if block.index == 0:
                figures.lay_out(images, BLOCK, {})
                figures.add_arrays([layout(key, values.shape[1], images) for key, values in found.items()])
            figures.write_block(block, {key: values.astype(np.float32) for key, values in found.items()}, dict.fromkeys(found, "stub"))
        taken, rows = process_time() - started, [["figures of images, computed and stored", f"{resident_mb():.0f}", ""]]
        rows[-1][-1] = f"{1e6 * taken / images / len(KEYS):.1f} us an image and map, drawing included"
        started = process_time()
        places = PlaceBootstrap.of([str(number // PHOTOS_A_PLACE) for number in range(images)], ["test"] * images)
        reduced_images(figures.values, groups, KEYS, NETWORK, masks=True, bootstrap=places)
        for block in blocks:
            for position in sorted({key.position for key in KEYS}):
                maps = sources.cams.arrays([key.key for key in KEYS if key.position == position], block.rows)
                part = MapSums.of(list(maps.values()), groups.index[block.rows], 2)
                sums[position] = sums[position] + part if position in sums else part
        rows.append(["reduced, with intervals", f"{resident_mb():.0f}", f"{process_time() - started:.0f} CPU s"])
        started = process_time()
        sources.cams.blocks = blocks  # type: ignore[misc]
        baselines(load_settings(None, ["compute.executor='serial'"]), sources, groups, places)
        rows.append(["baselines of pointing and energy", f"{resident_mb():.0f}", f"{process_time() - started:.0f} CPU s"])
        started = process_time()
        gallery = stub_gallery(images)
        gallery.reduced(gallery.figures())
        rows.append(["retrieval, 1,000 queries in all others, both ways", f"{resident_mb():.0f}", f"{process_time() - started:.0f} CPU s"])
    print_table(f"(b) {images:,} images x {len(KEYS)} maps; {before:.0f} MB before", ["", "largest resident MB", ""], rows)


def stub_gallery(images: int) -> Gallery:
    """A thousand satellite images, and drone images of as many places."""

    def embedding(rows: NDArray[np.intp]) -> Sequence[NDArray[np.floating]]:
        random = np.random.default_rng(int(rows[0]))
        return [random.standard_normal((len(rows), NETWORK.parts + 1, NETWORK.embedding), np.float32)]

    place = [str(number % 1000) for number in range(images)]
    view = ["satellite" if number < 1000 else "drone" for number in range(images)]
    return Gallery.of(embedding, place, view, ["query+gallery"] * images, [True] * images)


def layout(key: str, columns: int, images: int) -> Any:
    """An array of figures."""
    dim = f"figure_{columns}"
    return array_layout(Variable(key, ("sample", dim), "float32", key), "float32", {"sample": images, dim: columns}, BLOCK)


def resident_mb() -> float:
    """Largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
