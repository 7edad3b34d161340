"""A finished run of any size whose numbers are stubs: laid out, marked and noted by the code that the stages use, so that every command accepts it.

What is stubbed:

* The photos are one picture of 32 px with a number behind it, so that each has its own digest. `index` lists them as any others.
* The checkpoint files are one network of 8 x 8 cells and a width of 16 (the preset "tiny"), untrained, with an epoch of its own each.
* The features are the network's, of one block of noise. The values of heat maps and figures of images are drawn once for a block. Every block of
  every checkpoint holds the same: its files are hard links to those of the first. Names, marks, checksums and origins are its own, and a reader
  cannot tell. Nothing is ever written into a file that exists, so a link is never written through.
* The means over groups are those of the first checkpoint, for all: they are made of the same values.

Metadata, seals, stamps, notes of the whole, the joined figures, pictures and the page are made by the stages themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.cam.blocks import origins, wanted_block_samples
from pipeline.cam.layout import lay_out_maps
from pipeline.cam.stage import cam
from pipeline.cam.staleness import map_stamps
from pipeline.cam.wanted import wanted_map_keys
from pipeline.checkpoints.networks import load_network
from pipeline.checkpoints.reading import read_info
from pipeline.extract.layout import ingredients, lay_out_features
from pipeline.extract.stage import ExtractStage, extract
from pipeline.features.finished import finished_checkpoints, mark_features_whole
from pipeline.index.stage import index
from pipeline.render.stage import render
from pipeline.report.stage import report
from pipeline.run.directory import Run
from pipeline.settings.all import load_settings
from pipeline.stats.reduce import ReduceWork
from pipeline.stats.stage import stats
from pipeline.stats.staleness import FigureInputs, all_inputs
from pipeline.stats.state import RETRIEVAL, figure_stamps, lay_out_figures, retrieval_stamp
from pipeline.store.blocks import Block
from pipeline.store.fences import Fence
from pipeline.store.group_store import GroupStore
from pipeline.store.tables import read_dataset, write_dataset
from safenet import PRESETS, SafeNet, save_checkpoint
from stages.cam.methods import METHODS
from stages.extract.batch import FeatureExtractor
from stages.spreading import spread
from stages.stats.settings import StatsSettings

FEATURE_BLOCK = 256  # what docs/cluster.md advises for runs of this size
PHOTOS_A_PLACE = 50  # one from a satellite, the others from drones
_NETWORK = PRESETS["tiny"]
_EVERYWHERE = [name for name, method in METHODS.items() if method.where != "blocks" and name != "l2_norm_source"]  # which exists at patch alone
ONE_MORE_METHOD = "l2_norm_source"


@dataclass(frozen=True)
class Size:
    """Of a run; three maps a method, at patch, aligned and part."""

    checkpoints: int
    images: int
    methods: int = len(_EVERYWHERE)
    drift: tuple[str, ...] = StatsSettings().drift

    @property
    def method_names(self) -> list[str]:
        """Evenly spread over those that exist at all three positions."""
        return [_EVERYWHERE[number] for number in spread(len(_EVERYWHERE), self.methods)]


def assignments(folder: Path, size: Size) -> tuple[str, ...]:
    """Settings of the run, as --set takes them."""
    return (
        f"dataset.root='{folder / 'photos'}'",
        "dataset.layout='university1652'",
        f"extract.checkpoints=['{folder / 'checkpoints'}/net_*.pth']",
        f"extract.block_samples={FEATURE_BLOCK}",
        "extract.store=[]",
        "extract.workers=0",
        f"cam.methods={size.method_names}",
        "cam.targets=['predicted']",
        f"stats.drift={list(size.drift)}",
        "render.place_count=3",
        f"render.methods={size.method_names[:2]}",
        "render.targets=['predicted']",
    )


def stub_run(folder: Path, size: Size) -> Run:
    """Make photos, checkpoint files and a finished run of them in an empty folder; return the run."""
    for number in range(size.images):
        write_photo(folder, number)
    for number in range(size.checkpoints):
        write_checkpoint(folder, number)
    run = Run(folder / "run", load_settings(None, assignments(folder, size)), progress=False)
    index(run)
    add_checkpoints(run)
    render(run)
    report(run)
    return run


def write_photo(folder: Path, number: int) -> None:
    """One more photo: of a place's photos the first is the satellite's."""
    place, rank = divmod(number, PHOTOS_A_PLACE)
    view = "drone" if rank else "satellite"
    path = folder / "photos" / "test" / f"gallery_{view}" / f"{place:04d}" / f"image-{rank:02d}.jpeg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_PICTURE + f"{number:09d}".encode())


def write_checkpoint(folder: Path, number: int) -> None:
    """One more checkpoint file."""
    path = folder / "checkpoints" / f"net_{number:03d}.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, _network(), epoch=number)


def _network() -> SafeNet:
    torch.manual_seed(0)
    return SafeNet(_NETWORK)


def add_checkpoints(run: Run, stages: Sequence[str] = ("extract", "cam", "stats")) -> None:
    """Fill in what these stages lack, of every checkpoint file; then let the stages look, and note it as theirs.

    Raises
    ------
    RuntimeError
        If a stage finds anything to compute.
    """
    fills = {"extract": (_fill_features, extract), "cam": (_fill_maps, cam), "stats": (_fill_figures, stats)}
    for name in stages:
        fill, stage = fills[name]
        fill(run)
        outcome = stage(run)
        if outcome.computed:
            raise RuntimeError(f"a stub run is not accepted as finished: {outcome}")


@dataclass
class _Links:
    """Files of blocks by what they hold; the first is written, the others are links to it."""

    values: Callable[[GroupStore, str, int], NDArray[Any]]
    files: dict[tuple[str, int], tuple[Any, dict[str, int]]] = field(default_factory=dict)

    def write(self, store: GroupStore, block: Block, keys: Sequence[str], stamps: Mapping[str, str], **notes: Any) -> None:
        """Put a block's files where they belong, and mark it."""
        store.ledger.mark(block, {key: self._put(store, block, key) for key in keys}, stamps, **notes)

    def _put(self, store: GroupStore, block: Block, key: str) -> dict[str, int]:
        file, held = store.chunk_file(key, block.index), (key, len(block))
        if held not in self.files:
            self.files[held] = file, store.write_chunk(key, block, self.values(store, key, len(block)))
        else:
            file.unlink(missing_ok=True)
            os.link(self.files[held][0], file)
        return self.files[held][1]


def _drawn(store: GroupStore, key: str, count: int) -> NDArray[Any]:
    """Heat maps and figures: any numbers do."""
    array, random = store.described(key), np.random.default_rng(0)
    shape = (count, *array.shape[1:])
    made = np.zeros(shape) if key.startswith("facts/") else random.integers(0, 2, shape) if key == RETRIEVAL else random.random(shape)
    return made.astype(array.dtype)


def _features_of_noise(run: Run) -> Callable[[GroupStore, str, int], NDArray[Any]]:
    """Features must fit each other and the heads, which `cam` examines: they are the network's, of a block of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (FEATURE_BLOCK, _NETWORK.image_size, _NETWORK.image_size, 3), dtype=np.uint8)
    found = FeatureExtractor(_network().eval(), run.settings.extract, torch.device("cpu"))(torch.from_numpy(pixels))
    arrays = {"valid": np.ones(FEATURE_BLOCK, bool), **{name: values.numpy() for name, values in found.items()}}
    return lambda store, key, count: arrays[key][:count]


def _fill_features(run: Run) -> None:
    stage, links = ExtractStage(run, replace=False, retry_bad=False), _Links(_features_of_noise(run))
    for one in stage.subjects():
        store, made_with = run.features(one.name), ingredients(run, one.file.digest)
        if store.ledger.whole():
            continue
        read_info(one.file, run.settings.extract.told, check=True)
        info, network = load_network(one.file.path, one.file.digest, run.settings.extract.told)
        lay_out_features(run, store, info, network, made_with, FEATURE_BLOCK, 0)
        attributes = store.attributes
        for block in store.blocks:
            images = run.images(block)
            stamps = dict.fromkeys(attributes["block_arrays"], attributes["stamp"])
            links.write(store, block, attributes["block_arrays"], stamps, images=images, quarantined={}, device="cpu")
        mark_features_whole(store)


def _fill_maps(run: Run) -> None:
    links = _Links(_drawn)
    for name in finished_checkpoints(run):
        features, cams = run.features(name), run.cams(name)
        if cams.ledger.whole():
            continue
        map_keys = wanted_map_keys(run, name)
        stamps = map_stamps(features, map_keys)
        lay_out_maps(features, cams, wanted_block_samples(run, features), map_keys, stamps)
        of_arrays = {key: stamps[p.key] for p in map_keys for key in (p.key, p.facts_key)}
        for block, origin in origins(features, cams.blocks).items():
            links.write(cams, block, list(of_arrays), of_arrays, made_of=origin)


def _fill_figures(run: Run) -> None:
    links, inputs, fence = _Links(_drawn), all_inputs(run, finished_checkpoints(run)), Fence.standing(run.ledger("stats"))
    first = inputs[0]
    for one in inputs:
        figures = run.figures(one.name)
        if figures.ledger.whole():
            continue
        lay_out_figures(run, one)
        of_queries = retrieval_stamp(run, one)
        for block, stamps in figure_stamps(run, one, figures.blocks).items():
            marked = {**stamps, RETRIEVAL: of_queries}
            links.write(figures, block, list(marked), marked)
        _write_means(run, one, first, fence)


def _write_means(run: Run, one: FigureInputs, first: FigureInputs, fence: Fence) -> None:
    """Those of the first checkpoint are computed; the others' would be the same."""
    if one is first:
        ReduceWork(run, fence).open(lambda count: None)(one)
    else:
        about = {"stamp": one.stamp, "made_with": one.made_with, "epoch": one.epoch}
        write_dataset(run.stats_path, one.name, read_dataset(run.stats_path, first.name), about, fence)


def _picture() -> bytes:
    content = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(content, "JPEG")
    return content.getvalue()


_PICTURE = _picture()
