"""The extract stage: photos and checkpoints -> features.zarr, block by block; what is done is never done again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.blocks import Block
from pipeline.checkpoint_files import find_checkpoint_files
from pipeline.completeness import mark_features_whole
from pipeline.feature_layout import class_names, image_bytes, ingredients, lay_out_features, requested
from pipeline.feature_state import FeatureState, feature_state
from pipeline.images import FEW_IMAGES, PhotoBatch, PhotoFiles, PhotoReader
from pipeline.interrupts import check_stop, telling_what_is_left
from pipeline.known_rows import KnownRows, grown_rows, replaced_rows
from pipeline.quarantine import BadImage, check_bad_share, listed_problems, void_images
from pipeline.rates import note_rate
from pipeline.replacing import finish_swap, replacement_of, swap_in
from pipeline.run import Outcome, Run, StaleStoreError
from pipeline.schema_versions import upgrade_marks
from pipeline.space import check_space, human_bytes
from pipeline.stamps import stamp
from pipeline.stores import GroupStore
from pipeline.streaming import Arrays, BlockWriter, HostCopy
from safenet.architecture import Architecture
from safenet.checkpoint import Checkpoint, CheckpointInfo, read_checkpoint
from safenet.train import pick_device
from stages.extract import FeatureExtractor
from stages.targets import UNDEFINED, label_index

_ROOM = 1.02  # metadata, marks and the blocks being replaced


@dataclass
class _Job:
    """A checkpoint, the store that its features go to, what that still lacks, and the images that were void before."""

    name: str
    checkpoint: Checkpoint
    store: GroupStore
    made_with: dict[str, Any]
    state: FeatureState
    known: KnownRows
    void: dict[str, BadImage]
    written: int = 0

    @property
    def stamp(self) -> str:
        return stamp(self.made_with)

    @property
    def left(self) -> int:
        return len(self.state.pending) - self.written


def extract(run: Run, *, replace: bool = False, retry_bad: bool = False) -> Outcome:
    """Bring the features of every configured checkpoint up to date.

    Parameters
    ----------
    run : Run
    replace : bool
        Compute features anew that were made with other settings or of other images, instead of refusing. The old ones
        stay until the new ones are complete.
    retry_bad : bool
        Try the photos again that could not be read.

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
    LockedError
        If another process writes the features of one of the checkpoints.
    OSError
        If the features would not fit on the disk; raised before anything is computed.
    """
    check_bad_share(run, listed_problems(run.manifest))
    files = find_checkpoint_files(run.settings.extract.checkpoints)
    with ExitStack() as held:
        checkpoints = {name: _read_checkpoint(run, path) for name, path in files.items()}
        for name in files:
            held.enter_context(run.locked(f"features/{name}"))
        jobs = [_prepare(run, name, checkpoint, replace, retry_bad) for name, checkpoint in checkpoints.items()]
        _check_space(run, jobs)
        with telling_what_is_left(lambda: _left(run, jobs), run.directory):
            for job in jobs:
                _lay_out(run, job)
            _compute(run, jobs)
    return _outcome(run, jobs)


def _read_checkpoint(run: Run, path: Path) -> Checkpoint:
    settings = run.settings.extract
    checkpoint = read_checkpoint(path, **settings.told)
    checkpoint.check()
    architecture = checkpoint.info.architecture
    if settings.aligned == "derived" and architecture.sampling != "nearest":
        raise ValueError(f"{path}: extract.aligned = 'derived' needs nearest sampling; this network's is {architecture.sampling}. Set it to 'stored'")
    if settings.blocks and settings.blocks[-1] >= architecture.depth:
        raise ValueError(f"{path}: extract.blocks: block {settings.blocks[-1]} does not exist: the network has blocks 0 to {architecture.depth - 1}")
    _check_gradients(run, path, checkpoint.info)
    return checkpoint


def _check_gradients(run: Run, path: Path, info: CheckpointInfo) -> None:
    """Refuse heat maps at blocks that the network, or none of the images, can have."""
    try:
        found = run.settings.extract.gradients(info.architecture, class_names(run, info))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if found is not None and found.needs_label and (_class_index(run, info) == UNDEFINED).all():
        raise ValueError(f"{path}: extract.gradient_targets: 'label': none of the images shows a trained place. Use 'predicted'")


def _class_index(run: Run, info: CheckpointInfo) -> NDArray[np.int64]:
    """Class of each image's place, of all images; UNDEFINED where it was not trained."""
    return label_index(run.manifest["place"].tolist(), class_names(run, info))


def _prepare(run: Run, name: str, checkpoint: Checkpoint, replace: bool, retry_bad: bool) -> _Job:
    """Compare what is stored with what is wanted; nothing is laid out yet, so that a refusal leaves every store as it was."""
    finish_swap(run, name)
    store, made_with = run.features(name), ingredients(run, checkpoint.info.path)
    store.sweep()
    state = feature_state(run, store, made_with, retry_bad=retry_bad)
    if state.kind != "stale":
        return _Job(name, checkpoint, store, made_with, state, grown_rows(store, state), void_images(store))
    if not replace:
        raise StaleStoreError(f"{store}: {state.reason}. Name another --run directory to keep both, or pass --replace to compute this store anew")
    old, store = store, replacement_of(run, name)
    store.sweep()
    state = feature_state(run, store, made_with)
    if state.kind == "stale":  # left from another replacement
        store.clear()
        state = feature_state(run, store, made_with)
    return _Job(name, checkpoint, store, made_with, state, replaced_rows(run, old, made_with, state), {**void_images(old), **void_images(store)})


def _check_space(run: Run, jobs: Sequence[_Job]) -> None:
    images = [(job, sum(len(block) for block in job.state.pending if not _holds_files(job, block))) for job in jobs]
    needed = sum(count * image_bytes(run, job.checkpoint.info) for job, count in images)
    remedy = "Free some, name another --run directory, or store less (extract.aligned, extract.store, extract.blocks)"
    check_space(run.directory, int(_ROOM * needed), "extract", remedy)


def _holds_files(job: _Job, block: Block) -> bool:
    """Whether the block's files are there already, to be replaced one by one by files of the same size."""
    return bool(job.store.ledger.shorter_record(block) or job.store.ledger.record(block))


def _lay_out(run: Run, job: _Job) -> None:
    """Make the store, or make its metadata fit the manifest; blocks that are to be done again lose their mark first."""
    store, state = job.store, job.state
    if state.kind == "missing":
        store.clear()
    if state.lay_out:
        upgrade_marks(run, store, job.made_with)
        lay_out_features(run, store, job.checkpoint, job.made_with, state.block_samples, state.chunk_samples)
    for block in state.pending:
        if store.ledger.record(block):
            store.ledger.forget(block)
    if state.pending:
        store.ledger.forget_whole()
    unmarked = [block for block in state.pending if block.index not in state.carried]
    store.sweep_unmarked(unmarked, store.attributes["block_arrays"])


def _compute(run: Run, jobs: Sequence[_Job]) -> None:
    device = torch.device(pick_device(run.settings.extract.device))
    readers: dict[tuple[int, int], PhotoReader] = {}
    images, started = sum(job.state.pending_images for job in jobs), perf_counter()
    with tqdm(total=images, unit="image", disable=not (run.progress and images), smoothing=0.05) as bar:
        for job in jobs:
            if job.state.pending:
                bar.set_description(job.name)
                _extract_checkpoint(run, job, device, readers, bar)
            mark_features_whole(job.store)
            if job.store.name != job.name:
                swap_in(run, job.name)
    note_rate(run.directory, "extract", images, perf_counter() - started)


def _extract_checkpoint(run: Run, job: _Job, device: torch.device, readers: dict[tuple[int, int], PhotoReader], bar: tqdm[Any]) -> None:
    info = job.checkpoint.info
    reader, class_index = _reader(run, info.architecture, device, readers), torch.from_numpy(_class_index(run, info))
    extractor = FeatureExtractor(job.checkpoint.build(), run.settings.extract, device, class_names(run, info))
    copier, wanted = HostCopy(device), requested(run)
    bad = {**void_images(job.store), **listed_problems(run.manifest)}  # those of pending blocks are tried again: not bad until they are
    names = run.columns["id"]
    with BlockWriter(_writer(run, job, device, bad)) as writer:
        todo = {block: _batches(run, job, block) for block in job.state.pending}
        batches = iter(reader.read([samples for found in todo.values() for samples in found]))
        for block, found in todo.items():
            for rows, arrays in job.known.read(block):
                writer.add(block, rows, {}, None, arrays)
            for samples in found:
                check_stop()
                batch = next(batches)
                _note_faults(bad, job.void, [names[sample] for sample in samples], batch)
                check_bad_share(run, bad)
                pixels = batch.pixels()
                host, ready = copier.start(extractor(pixels.pin_memory() if device.type == "cuda" else pixels, class_index[samples]))
                writer.add(block, [sample - block.start for sample in samples], host, ready, _photo_arrays(batch, wanted))
                bar.update(len(samples))


def _note_faults(bad: dict[str, BadImage], before: Mapping[str, BadImage], names: Sequence[str], batch: PhotoBatch) -> None:
    """Keep since when a photo has been bad; one that is good now is no longer."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for name, photo in zip(names, batch.photos, strict=True):
        known = bad.pop(name, None) or before.get(name)
        if photo.problem:
            bad[name] = BadImage(photo.problem, known.since if known else now)


def _batches(run: Run, job: _Job, block: Block) -> list[list[int]]:
    """Samples of a block that have to be computed, in the same batches whenever it is done: so that a resumed run gives the same bits."""
    known = job.known.rows(block)
    todo = [sample for sample in range(block.start, block.stop) if sample - block.start not in known]
    size = run.settings.extract.batch_size
    return [todo[start : start + size] for start in range(0, len(todo), size)]


def _writer(run: Run, job: _Job, device: torch.device, bad: Mapping[str, BadImage]) -> Callable[[Block, Arrays], None]:
    names, where = run.columns["id"], str(device)

    def write(block: Block, arrays: Arrays) -> None:
        void = {name: bad[name].as_dict() for name in names[block.rows] if name in bad}
        job.store.write_block(block, arrays, dict.fromkeys(arrays, job.stamp), images=run.images(block), quarantined=void, device=where)
        job.written += 1

    return write


def _photo_arrays(batch: PhotoBatch, wanted: frozenset[str]) -> Arrays:
    found: Arrays = {
        "image": np.stack([photo.pixels for photo in batch.photos]),
        "mask_share": np.stack([photo.mask_share for photo in batch.photos]),
        "mask_centre": np.stack([photo.mask_centre for photo in batch.photos]),
    }
    chosen = {name: values for name, values in found.items() if name in wanted}
    return {**chosen, "valid": np.array([not photo.problem for photo in batch.photos])}


def _reader(run: Run, architecture: Architecture, device: torch.device, readers: dict[tuple[int, int], PhotoReader]) -> PhotoReader:
    """One set of decoding processes serves all checkpoints of an image size."""
    key = (architecture.image_size, architecture.grid)
    if key not in readers:
        table = run.manifest
        paths, digests, masks, problems = (table[name].tolist() for name in ("path", "digest", "mask_path", "problem"))
        files = PhotoFiles(Path(table.attrs["root"]), paths, digests, masks, problems, *key)
        workers = run.settings.extract.workers
        if workers is None:
            few = len(table) < FEW_IMAGES
            workers = 0 if few else min(16, os.cpu_count() or 1) if device.type == "cuda" else 1
        readers[key] = PhotoReader(files, workers)
    return readers[key]


def _left(run: Run, jobs: Sequence[_Job]) -> str:
    rest = [job for job in jobs if job.left > 0]
    if not rest:
        return "all blocks are written; call again to finish"
    needed = sum(job.left * job.state.block_samples * image_bytes(run, job.checkpoint.info) for job in rest)
    blocks = ", ".join(f"{job.name}: {job.left} of {len(job.state.blocks)} blocks" for job in rest[:3])
    more = f" and {len(rest) - 3} more checkpoints" if len(rest) > 3 else ""
    return f"left to extract: {blocks}{more}, about {human_bytes(needed)}"


def _outcome(run: Run, jobs: Sequence[_Job]) -> Outcome:
    computed, total = (sum(len(blocks) for blocks in found) for found in zip(*((j.state.pending, j.state.blocks) for j in jobs), strict=True))
    bad = {name: found for job in jobs for name, found in void_images(run.features(job.name)).items()}
    size = sum(run.features(job.name).ledger.whole().get("bytes", 0) for job in jobs)
    notes = [f"{len(jobs)} checkpoints, {len(run.manifest):,} images, {human_bytes(size)} in {run.features_path}"]
    notes += [f"{len(bad)} bad images are void: `atlas status --bad` lists them"] if bad else []
    beside = [job.name for job in jobs if replacement_of(run, job.name).root.is_dir()]
    notes += [f"an unfinished replacement of {name} is kept: go on with --replace and its settings, or delete .{name}.next" for name in beside]
    for job in jobs:
        overflow = run.features(job.name).ledger.whole().get("non_finite", {})
        notes += [f"{job.name}: {overflow['count']:,} values are not finite, first in {overflow['first']}"] if overflow else []
    return Outcome("extract", computed, total - computed, "blocks", tuple(notes))
