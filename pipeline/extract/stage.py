"""The extract stage: photos and checkpoints -> features.zarr, block by block; what is done is never done again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as dataclass_replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cam.target_checks import missing_views
from pipeline.checkpoints.files import CheckpointFile
from pipeline.checkpoints.names import NamedFiles, named_files, notes_on_left
from pipeline.checkpoints.reading import read_info
from pipeline.checkpoints.sizes import check_same_sizes
from pipeline.disk.leases import LockedError
from pipeline.disk.space import check_space, human_bytes
from pipeline.disk.stamps import stamp
from pipeline.extract.known_rows import KnownRows, grown_rows, replaced_rows
from pipeline.extract.layout import class_names, image_bytes, ingredients, lay_out_features, told_by_file
from pipeline.extract.spans import FeatureSpan, FeatureWork, SpanExtractor, SpanReport
from pipeline.features.bad_images import BadImage, check_bad_share, listed_problems, void_images
from pipeline.features.finished import mark_features_whole, missing_blocks
from pipeline.features.overflow import overflow_words
from pipeline.features.replacing import finish_swap, replacement_of, swap_in
from pipeline.features.schema_versions import upgrade_marks
from pipeline.features.state import FeatureState, feature_state, layout_notes
from pipeline.run.directory import Outcome, Preparation, Run, StaleStoreError
from pipeline.run.rates import note_rate
from pipeline.store.blocks import Block, blocks_of
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import read_attributes
from pipeline.work.executors import check_precision, run_groups, runs_here
from pipeline.work.pieces import Group
from pipeline.work.progress import Progress
from pipeline.work.stops import loading, telling_what_is_left
from safenet.checkpoint_info import CheckpointInfo
from stages.extract.gradient_plan import asked_gradients
from stages.targets.references import UNDEFINED
from stages.targets.scoring import label_index

_ROOM = 1.02  # metadata, marks and the blocks being replaced


@dataclass
class _Job:
    """A checkpoint, the store that its features go to, what that still lacks, and the images that were void before."""

    name: str
    info: CheckpointInfo
    store: GroupStore
    made_with: dict[str, Any]
    state: FeatureState
    known: KnownRows
    void: dict[str, BadImage]
    retold: dict[str, str] = field(default_factory=dict)  # attribute -> what it was and is (empty: it is new), where the file tells another today
    bad: dict[str, BadImage] = field(default_factory=dict)  # now: the photos of pending blocks are tried again, and not bad until they are
    written: int = 0
    waiting: int = field(init=False)  # blocks that no span has come back with

    def __post_init__(self) -> None:
        self.waiting = len(self.state.pending)

    @property
    def stamp(self) -> str:
        return stamp(self.made_with)

    @property
    def left(self) -> int:
        return len(self.state.pending) - self.written

    def span(self, blocks: Sequence[Block]) -> FeatureSpan:
        """Blocks of it, as a process takes them."""
        known = self.known.only(blocks)
        return FeatureSpan(self.name, self.info.path, self.store, self.stamp, self.made_with["precision"], tuple(blocks), known, self.void, self.bad)


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
    ValueError
        If checkpoints differ in grid, parts or width; raised before anything is computed.
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
    _refuse_what_no_part_may_do(run, replace)
    check_precision(run.settings.compute, run.settings.extract.precision)
    named = named_files(run)
    share = _share(run, named.files)
    check_same_sizes(run, named)
    if reason := missing_views(run):
        run.say(f"warning: `atlas cam` will refuse: {reason}")
    infos = {name: _examine(run, file) for name, file in share.files.items()}  # one after the other: memory holds one
    if named.read:
        named.read.keep()
    with run.preparing("features", list(share.files)) as preparation:
        jobs = [_prepare(run, name, infos[name], file, preparation, replace, retry_bad) for name, file in share.files.items()]
        jobs = [share.of(job) for job in jobs]
        _check_space(run, jobs)
        with telling_what_is_left(lambda: _left(run, jobs), run.directory):
            for job in jobs:
                _lay_out(run, job, preparation)
            preparation.let_in()
            _compute(run, jobs)
    return _outcome(run, jobs, named)


@dataclass(frozen=True)
class _Share:
    """What this process is to do: of which checkpoints, and which of their blocks (None: all)."""

    files: Mapping[str, CheckpointFile]
    blocks: dict[str, frozenset[int]] | None

    def of(self, job: _Job) -> _Job:
        if self.blocks is None:
            return job
        blocks, pending = ([b for b in found if b.index in self.blocks[job.name]] for found in (job.state.blocks, job.state.pending))
        return dataclass_replace(job, state=dataclass_replace(job.state, blocks=blocks, pending=pending))


def _share(run: Run, files: Mapping[str, CheckpointFile]) -> _Share:
    """Parts share out the blocks of all checkpoints, in their order."""
    if run.part.is_whole:
        return _Share(files, None)
    sizes = {name: layout_notes(run.features(name)).get("block_samples", run.settings.extract.block_samples) for name in files}
    units = [(name, block.index) for name in files for block in blocks_of(len(run.manifest), sizes[name])]
    mine: dict[str, set[int]] = {}
    for name, index in run.part.share(units):
        mine.setdefault(name, set()).add(index)
    return _Share({name: files[name] for name in mine}, {name: frozenset(found) for name, found in mine.items()})


def _refuse_what_no_part_may_do(run: Run, replace: bool) -> None:
    if replace and not run.part.is_whole:
        raise ValueError(
            f"--replace and --part {run.part}: features are replaced by one process for all parts. Leave out --part (with --on to use "
            f"several machines), or name another --run directory"
        )


def _examine(run: Run, file: CheckpointFile) -> CheckpointInfo:
    """Read what a file tells of itself, and refuse what cannot be used."""
    path, settings = file.path, run.settings.extract
    info = read_info(file, settings.told, check=True)
    architecture = info.architecture
    if settings.aligned == "derived" and architecture.sampling != "nearest":
        raise ValueError(f"{path}: extract.aligned = 'derived' needs nearest sampling; this network's is {architecture.sampling}. Set it to 'stored'")
    if settings.blocks and settings.blocks[-1] >= architecture.depth:
        raise ValueError(f"{path}: extract.blocks: block {settings.blocks[-1]} does not exist: the network has blocks 0 to {architecture.depth - 1}")
    _check_gradients(run, info)
    return info


def _check_gradients(run: Run, info: CheckpointInfo) -> None:
    """Refuse heat maps at blocks that the network, or none of the images, can have."""
    try:
        found = asked_gradients(run.settings.extract, info.architecture, class_names(run, info))
    except ValueError as error:
        raise ValueError(f"{info.path}: {error}") from None
    if found is not None and found.needs_label and (_class_index(run, info) == UNDEFINED).all():
        raise ValueError(f"{info.path}: extract.gradient_targets: 'label': none of the images shows a trained place. Use 'predicted'")


def _class_index(run: Run, info: CheckpointInfo) -> NDArray[np.int64]:
    """Class of each image's place, of all images; UNDEFINED where it was not trained."""
    return label_index(run.manifest["place"].tolist(), class_names(run, info))


def _prepare(run: Run, name: str, info: CheckpointInfo, file: CheckpointFile, preparation: Preparation, replace: bool, retry_bad: bool) -> _Job:
    """Compare what is stored with what is wanted; nothing is laid out yet, so that a refusal leaves every store as it was."""
    alone = f"features/{name}" in preparation.alone
    if alone:
        finish_swap(run, name)
    store, made_with = run.features(name), ingredients(run, file.digest)
    if alone:
        store.sweep()
    state = feature_state(run, store, made_with, retry_bad=retry_bad)
    if state.kind != "stale":
        if state.lay_out and not alone:
            raise LockedError(f"{store}: other parts write it, of other images or in another layout ({state.reason}). Wait for them and call again")
        return _Job(name, info, store, made_with, state, grown_rows(store, state), void_images(store))
    if not replace:
        raise StaleStoreError(f"{store}: {state.reason}. Name another --run directory to keep both, or pass --replace to compute this store anew")
    old, store = store, replacement_of(run, name)
    store.sweep()
    state = feature_state(run, store, made_with)
    if state.kind == "stale":  # left from another replacement
        store.clear()
        state = feature_state(run, store, made_with)
    return _Job(name, info, store, made_with, state, replaced_rows(run, old, made_with, state), {**void_images(old), **void_images(store)})


def _check_space(run: Run, jobs: Sequence[_Job]) -> None:
    images = [(job, sum(len(block) for block in job.state.pending if not _holds_files(job, block))) for job in jobs]
    needed = sum(count * image_bytes(run, job.info) for job, count in images)
    remedy = "Free some, name another --run directory, or store less (extract.aligned, extract.store, extract.blocks)"
    check_space(run.directory, int(_ROOM * needed), "extract", remedy)


def _holds_files(job: _Job, block: Block) -> bool:
    """Whether the block's files are there already, to be replaced one by one by files of the same size."""
    return bool(job.store.ledger.shorter_record(block) or job.store.ledger.record(block))


def _lay_out(run: Run, job: _Job, preparation: Preparation) -> None:
    """Make the store, or make its metadata fit the manifest; blocks that are to be done again lose their mark first."""
    store, state = job.store, job.state
    alone = f"features/{job.name}" in preparation.alone
    if state.kind == "missing" and alone:
        store.clear()
    told = told_by_file(run, job.info)
    job.retold = _told_anew(store, told) if alone and state.kind != "missing" else {}
    if state.lay_out:
        upgrade_marks(run, store, job.made_with)
        with loading():
            from safenet.checkpoint import read_checkpoint  # only where there is work
        checkpoint = read_checkpoint(job.info.path, **run.settings.extract.told)
        lay_out_features(run, store, checkpoint, job.made_with, state.block_samples, state.chunk_samples)
    elif job.retold:
        store.update_attributes(told)
    for block in state.pending:
        if store.ledger.record(block):
            store.ledger.forget(block)
    if state.pending:
        store.ledger.forget_whole()
    job.bad = {**void_images(store), **listed_problems(run.manifest)}
    if alone:
        unmarked = [block for block in state.pending if block.index not in state.carried]
        store.sweep_unmarked(unmarked, store.attributes["block_arrays"])


def _told_anew(store: GroupStore, told: Mapping[str, Any]) -> dict[str, str]:
    """Attributes that the file tells otherwise today, since earlier versions guessed epochs and files are moved: what was and is, or "" for new."""
    attributes = read_attributes(store.root)
    changed = {key: value for key, value in told.items() if attributes and (key not in attributes or attributes[key] != value)}
    return {key: f"{attributes[key]!r}, is {value!r}" if key in attributes else "" for key, value in changed.items()}


def _compute(run: Run, jobs: Sequence[_Job]) -> None:
    images, started = sum(job.state.pending_images for job in jobs), perf_counter()
    with Progress("extract", images, "image", shown=run.progress) as progress:
        for job in jobs:
            if not job.waiting:
                _finish(run, job)
        if runs_here(run.settings.compute):
            _compute_here(run, jobs, progress)
        else:
            _compute_elsewhere(run, jobs, progress)
    note_rate(run.directory, "extract", images, perf_counter() - started)


def _compute_here(run: Run, jobs: Sequence[_Job], progress: Progress) -> None:
    """One span a checkpoint, so that decoding, computing and writing never pause within it."""
    at_work: list[_Job] = []

    def watch(images: int, blocks: int) -> None:
        at_work[-1].written += blocks
        progress.add(images)

    extractor = SpanExtractor(run, watch)
    for job in jobs:
        if job.state.pending:
            at_work.append(job)
            progress.name(job.name)
            extractor(job.span(job.state.pending))
            _finish(run, job)


def _compute_elsewhere(run: Run, jobs: Sequence[_Job], progress: Progress) -> None:
    """Spans of some thousand images each, on the workers of a cluster."""
    named = {job.name: job for job in jobs}
    for done in run_groups(run.settings.compute, FeatureWork(run), _groups(run, jobs), directory=run.directory, say=run.say, needs="gpu"):
        job, report = named[done.group], done.result
        assert isinstance(report, SpanReport)
        job.written += report.blocks
        job.waiting -= len(done.item.blocks)
        job.bad |= report.bad
        check_bad_share(run, job.bad)
        progress.add(len(done.item), done.worker, done.seconds)
        if not job.waiting:
            _finish(run, job)


def _groups(run: Run, jobs: Sequence[_Job]) -> Iterator[Group]:
    for job in jobs:
        if job.state.pending:
            size = max(1, run.settings.compute.span_samples // job.state.block_samples)
            pending = list(job.state.pending)
            yield Group(job.name, [job.span(pending[start : start + size]) for start in range(0, len(pending), size)])


def _finish(run: Run, job: _Job) -> None:
    """Note that a checkpoint is whole; of parts the one that finds it so."""
    with run.finishing("features"):
        if run.part.is_whole or not missing_blocks(job.store)[0]:
            mark_features_whole(job.store)
    if job.store.name != job.name:
        swap_in(run, job.name)


def _left(run: Run, jobs: Sequence[_Job]) -> str:
    rest = [job for job in jobs if job.left > 0]
    if not rest:
        return "all blocks are written; call again to finish"
    needed = sum(job.left * job.state.block_samples * image_bytes(run, job.info) for job in rest)
    blocks = ", ".join(f"{job.name}: {job.left} of {len(job.state.blocks)} blocks" for job in rest[:3])
    more = f" and {len(rest) - 3} more checkpoints" if len(rest) > 3 else ""
    return f"left to extract: {blocks}{more}, about {human_bytes(needed)}"


def _outcome(run: Run, jobs: Sequence[_Job], named: NamedFiles) -> Outcome:
    computed, total = sum(len(job.state.pending) for job in jobs), sum(len(job.state.blocks) for job in jobs)
    bad = {name: found for job in jobs for name, found in void_images(run.features(job.name)).items()}
    size = sum(run.features(job.name).ledger.whole().get("bytes", 0) for job in jobs)
    notes = [f"{len(jobs)} checkpoints, {len(run.manifest):,} images, {human_bytes(size)} in {run.features_path}"]
    notes += [f"{len(bad)} bad images are void: `atlas status --bad` lists them"] if bad else []
    beside = [job.name for job in jobs if replacement_of(run, job.name).root.is_dir()]
    notes += [f"an unfinished replacement of {name} is kept: go on with --replace and its settings, or delete .{name}.next" for name in beside]
    for job in jobs:
        overflow = overflow_words(run.features(job.name))
        notes += [f"{job.name}: {overflow}"] if overflow else []
    notes += [f"{job.name}: {job.info.path.name}: {job.info.taken}" for job in jobs if not job.info.taken.is_plain]
    notes += [*_notes_on_retold(jobs), *named.notes, *notes_on_left(named.left)]
    return Outcome("extract", computed, total - computed, "blocks", tuple(notes))


def _notes_on_retold(jobs: Sequence[_Job]) -> Iterator[str]:
    """Attributes that were brought up to date without computing: those that are new, and a line for each that is another now."""
    new = list(dict.fromkeys(key for job in jobs for key, was in job.retold.items() if not was))
    if new:
        yield f"noted for {sum('' in job.retold.values() for job in jobs)} checkpoints that an earlier version extracted: {', '.join(new)}"
    for key in dict.fromkeys(key for job in jobs for key, was in job.retold.items() if was):
        changed = [f"{job.name} (was {job.retold[key]})" for job in jobs if job.retold.get(key)]
        yield f"{key} brought up to date: {', '.join(changed[:3])}" + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
