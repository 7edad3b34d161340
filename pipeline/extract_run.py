"""The extract stage: photos and checkpoints -> features.zarr, block by block; what is done is never done again."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from pipeline.blocks import Block, Ledger
from pipeline.checkpoint_files import find_checkpoint_files
from pipeline.images import FEW_IMAGES, PhotoBatch, PhotoFiles, PhotoReader
from pipeline.run import Outcome, Run, StaleStoreError
from pipeline.stamps import file_digest, stamp
from pipeline.stores import GroupStore, bytes_on_disk
from pipeline.streaming import Arrays, BlockWriter, HostCopy
from safenet.architecture import Architecture
from safenet.checkpoint import Checkpoint, CheckpointInfo, read_checkpoint
from safenet.train import pick_device
from stages.extract import RESOURCE_SETTINGS, FeatureExtractor, resolve_precision
from stages.schema import HEAD_PREFIX, MASKS, SCHEMA_VERSION, dim_sizes, feature_variables

VERSION = 1
_FROM_MANIFEST = {"sample_id": "id", "place": "place", "view": "view", "split": "split", "roles": "roles"}
_DIGESTS = {
    "checkpoint": "made of a checkpoint file of this name with other content",
    "manifest": "made of another list of images than manifest.parquet now holds",
}
_LIBRARIES = ("torch", "timm", "zarr", "numpy", "pillow", "safenet-atlas")


class TooManyBadImagesError(ValueError):
    """More images are void than `extract.max_bad_share` allows."""


@dataclass
class _Job:
    """A checkpoint's store, the blocks it still lacks, and the images found void so far."""

    name: str
    checkpoint: Checkpoint
    store: GroupStore
    ledger: Ledger
    stamp: str
    pending: list[Block]
    blocks: int


def extract(run: Run, *, replace: bool = False) -> Outcome:
    """Bring the features of every configured checkpoint up to date.

    Parameters
    ----------
    run : Run
    replace : bool
        Compute features anew that were made with other settings, instead of refusing.

    Raises
    ------
    FileNotFoundError
        If the manifest or a checkpoint is missing.
    CheckpointError
        If a checkpoint cannot be used; raised before anything is computed.
    StaleStoreError
        If stored features were made with other settings and `replace` is not set.
    TooManyBadImagesError
        If more images are void than allowed.
    """
    settings = run.settings.extract
    _check_bad_share(run, listed_problems(run.manifest))
    jobs = [_prepare(run, name, path, replace) for name, path in find_checkpoint_files(settings.checkpoints).items()]
    computed = sum(len(job.pending) for job in jobs)
    readers: dict[tuple[int, int], PhotoReader] = {}
    device = torch.device(pick_device(settings.device))
    images = sum(block.stop - block.start for job in jobs for block in job.pending)
    with tqdm(total=images, unit="image", disable=not (run.progress and images), smoothing=0.05) as bar:
        for job in jobs:
            if job.pending:
                bar.set_description(job.name)
                _extract_checkpoint(run, job, device, readers, bar)
    bad = _quarantined(jobs)
    notes = [f"{len(jobs)} checkpoints, {len(run.manifest):,} images, {bytes_on_disk(run.features_path) / 1e6:,.0f} MB in {run.features_path}"]
    notes += [f"{len(bad)} bad images are void: `atlas status --bad` lists them"] if bad else []
    notes += [f"{job.name}: {count:,} values are not finite, first in {where}" for job in jobs for where, count in [_non_finite(job)] if count]
    return Outcome("extract", computed, sum(job.blocks for job in jobs) - computed, "blocks", tuple(notes))


def quarantined(ledger: Ledger, blocks: Sequence[Block]) -> dict[str, str]:
    """Return sample id -> reason of the void images of a feature store."""
    found: dict[str, str] = {}
    for block in blocks:
        found |= ledger.record(block).get("quarantined", {})
    return found


def listed_problems(manifest: pd.DataFrame) -> dict[str, str]:
    """Return sample id -> reason of the images that the index found to be bad."""
    bad = manifest.loc[manifest["problem"] != "", ["id", "problem"]]
    return dict(zip(bad["id"], bad["problem"], strict=True))


def _prepare(run: Run, name: str, path: Path, replace: bool) -> _Job:
    """Read the checkpoint, compare what is stored with what is wanted, and make the store if there is none."""
    settings = run.settings.extract
    checkpoint = read_checkpoint(path, heads=settings.heads, sampling=settings.sampling)
    checkpoint.check()
    architecture = checkpoint.info.architecture
    if settings.aligned == "derived" and architecture.sampling != "nearest":
        raise ValueError(f"{path}: extract.aligned = 'derived' needs nearest sampling; this network's is {architecture.sampling}. Set it to 'stored'")
    if settings.blocks and settings.blocks[-1] >= architecture.depth:
        raise ValueError(f"{path}: extract.blocks: block {settings.blocks[-1]} does not exist: the network has blocks 0 to {architecture.depth - 1}")
    made_with = _ingredients(run, path)
    store, ledger = run.features(name), run.ledger("features", name)
    if store.exists and (not store.attributes.get("created") or (replace and store.attributes["made_with"] != made_with)):
        store.remove()
    if not store.exists:
        ledger.clear()
        _create(run, store, checkpoint.info, made_with)
        _write_heads(store, checkpoint)
        store.update_attributes({"created": datetime.now(UTC).isoformat(timespec="seconds")})  # last: an unfinished layout is made again
    _refuse_stale(store, made_with)
    blocks, mark = store.blocks, stamp(made_with)
    stamps = dict.fromkeys(store.attributes["block_arrays"], mark)
    pending = [block for block in blocks if not (ledger.is_done(block, stamps) and store.holds(stamps, block))]
    return _Job(name, checkpoint, store, ledger, mark, pending, len(blocks))


def _ingredients(run: Run, path: Path) -> dict[str, Any]:
    """Everything that the numbers depend on; resources are left out."""
    settings = run.settings.extract
    chosen = settings.model_dump(mode="json", exclude={*RESOURCE_SETTINGS, "store", "precision"})
    precision = resolve_precision(settings.precision, torch.device(pick_device(settings.device)))  # one store, one precision
    digests = {"checkpoint": file_digest(path), "manifest": run.manifest_digest}
    return {**chosen, "precision": precision, "store": sorted(_requested(run)), **digests, "version": VERSION, "schema": SCHEMA_VERSION}


def _requested(run: Run) -> frozenset[str]:
    """Name the variables on request: the configured ones, and the masks where the dataset has some."""
    masks = MASKS if (run.manifest["mask_path"] != "").any() else ()
    return run.settings.extract.requested | set(masks)


def _refuse_stale(store: GroupStore, wanted: Mapping[str, Any]) -> None:
    made = store.attributes["made_with"]
    differing = [key for key in wanted if made.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        found = _DIGESTS.get(key, f"made with {key} = {made.get(key)!r}, but {wanted[key]!r} is asked for")
        raise StaleStoreError(f"{store}: {found}. Name another --run directory to keep both, or pass --replace to compute this store anew")


def _create(run: Run, store: GroupStore, info: CheckpointInfo, made_with: Mapping[str, Any]) -> None:
    settings, table = run.settings.extract, run.manifest
    variables = feature_variables(_requested(run))
    sizes = dim_sizes(info.architecture, len(table), len(settings.blocks))
    attributes = _provenance(run, info, made_with)
    attributes["block_arrays"] = [v.name for v in variables if v.per_sample and v.name not in _FROM_MANIFEST]
    store.create(len(table), settings.block_samples, attributes)
    for variable in variables:
        store.add_array(variable.name, variable, settings.map_dtype if variable.dtype == "map" else variable.dtype, sizes, settings.chunk_samples)
    for name, column in _FROM_MANIFEST.items():
        store.write(name, table[column].to_numpy(dtype=object))
    if settings.blocks:
        store.write("block", np.array(sorted(settings.blocks), np.int16))


def _provenance(run: Run, info: CheckpointInfo, made_with: Mapping[str, Any]) -> dict[str, Any]:
    device = torch.device(pick_device(run.settings.extract.device))
    return {
        "schema_version": SCHEMA_VERSION,
        "stamp": stamp(made_with),
        "made_with": dict(made_with),
        "config": run.settings.extract.model_dump(mode="json"),
        "checkpoint_file": info.path.name,
        "epoch": info.epoch,
        "metrics": dict(info.metrics),
        "architecture": info.architecture.as_dict(),
        "head_names": list(info.architecture.head_names),
        "class_names": _class_names(run, info),
        "device": str(device),
        "precision": resolve_precision(run.settings.extract.precision, device),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "host": socket.gethostname(),
        "platform": platform.platform(),
    }


def _class_names(run: Run, info: CheckpointInfo) -> list[str]:
    """Take the file's own names, else the sorted training places where their number fits: upstream numbers classes so."""
    if info.class_names:
        return list(info.class_names)
    table = run.manifest
    places = sorted(table.loc[table["split"] == "train", "place"].unique())
    return places if len(places) == info.architecture.classes else []


def _write_heads(store: GroupStore, checkpoint: Checkpoint) -> None:
    arrays = [head.arrays() for head in checkpoint.build().heads]
    for name in arrays[0]:
        store.write(HEAD_PREFIX + name, np.stack([head[name] for head in arrays]))


def _extract_checkpoint(run: Run, job: _Job, device: torch.device, readers: dict[tuple[int, int], PhotoReader], bar: tqdm[Any]) -> None:
    settings, architecture = run.settings.extract, job.checkpoint.info.architecture
    reader = _reader(run, architecture, device, readers)
    extractor = FeatureExtractor(job.checkpoint.build(), settings, device)
    requested = _requested(run)
    copier, problems, names = HostCopy(device), _quarantined([job]), run.manifest["id"].tolist()

    def write(block: Block, arrays: Arrays) -> None:
        for key, values in arrays.items():
            job.store.write(key, values, block.rows)
        job.store.flush(arrays, block)
        void = {name: problems[name] for name in names[block.rows] if name in problems}
        job.ledger.mark(block, arrays, dict.fromkeys(arrays, job.stamp), quarantined=void, host=socket.gethostname())

    spans = [(block, start) for block in job.pending for start in range(block.start, block.stop, settings.batch_size)]
    batches = reader.read([(start, min(start + settings.batch_size, block.stop)) for block, start in spans])
    with BlockWriter(write) as writer:
        for (block, _), batch in zip(spans, batches, strict=True):
            problems |= {names[batch.start + row]: photo.problem for row, photo in enumerate(batch.photos) if photo.problem}
            _check_bad_share(run, problems)
            pixels = batch.pixels()
            host, ready = copier.start(extractor(pixels.pin_memory() if device.type == "cuda" else pixels))
            writer.add(block, batch.start, host, ready, _photo_arrays(batch, requested))
            bar.update(len(batch.photos))


def _photo_arrays(batch: PhotoBatch, requested: frozenset[str]) -> Arrays:
    found: Arrays = {
        "image": np.stack([photo.pixels for photo in batch.photos]),
        "mask_share": np.stack([photo.mask_share for photo in batch.photos]),
        "mask_centre": np.stack([photo.mask_centre for photo in batch.photos]),
    }
    chosen = {name: values for name, values in found.items() if name in requested}
    return {**chosen, "valid": np.array([not photo.problem for photo in batch.photos])}


def _reader(run: Run, architecture: Architecture, device: torch.device, readers: dict[tuple[int, int], PhotoReader]) -> PhotoReader:
    """One set of decoding processes serves all checkpoints of an image size."""
    key = (architecture.image_size, architecture.grid)
    if key not in readers:
        table = run.manifest
        paths, masks, problems = (table[name].tolist() for name in ("path", "mask_path", "problem"))
        files = PhotoFiles(Path(table.attrs["root"]), paths, masks, problems, *key)
        workers = run.settings.extract.workers
        if workers is None:
            few = len(table) < FEW_IMAGES
            workers = 0 if few else min(16, os.cpu_count() or 1) if device.type == "cuda" else 1
        readers[key] = PhotoReader(files, workers)
    return readers[key]


def _quarantined(jobs: Sequence[_Job]) -> dict[str, str]:
    found: dict[str, str] = {}
    for job in jobs:
        found |= quarantined(job.ledger, job.store.blocks)
    return found


def _non_finite(job: _Job) -> tuple[str, int]:
    """Count the values of the network's tensors that overflowed or are NaN, from the records; where the first ones are."""
    found = [
        (f"{name}, samples {block.start} to {block.stop - 1}", made["non_finite"])
        for block in job.store.blocks
        for name, made in job.ledger.record(block)["arrays"].items()
        if made["non_finite"] and not name.startswith("mask_")  # an image without a mask has none, which is stored as NaN
    ]
    return (found[0][0], sum(count for _, count in found)) if found else ("", 0)


def _check_bad_share(run: Run, problems: Mapping[str, str]) -> None:
    allowed, total = run.settings.extract.max_bad_share, len(run.manifest)
    if len(problems) > allowed * total:
        name, reason = next(iter(problems.items()))
        raise TooManyBadImagesError(
            f"{len(problems)} of {total} images are bad (for instance {name}: {reason}), more than extract.max_bad_share = {allowed} allows. "
            f"Mend the dataset and run `atlas index`, or raise the share"
        )
