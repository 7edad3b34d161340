"""The extract stage: photos and checkpoints -> features.zarr, block by block; what is done is never done again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.checkpoints.files import CheckpointFile
from pipeline.checkpoints.names import NamedFiles, named_files, notes_on_left
from pipeline.checkpoints.sizes import check_same_sizes
from pipeline.disk.leases import LockedError
from pipeline.disk.space import check_space, human_bytes
from pipeline.extract.examining import examine
from pipeline.extract.job import ExtractJob, lay_out_job, notes_on_retold
from pipeline.extract.known_rows import grown_rows, replaced_rows
from pipeline.extract.layout import image_bytes, ingredients
from pipeline.extract.spans import FeatureSpan, SpanReport
from pipeline.extract.work import FeatureWork
from pipeline.features.bad_images import bad_images_of, check_bad_share, listed_bad_images
from pipeline.features.finished import mark_features_whole
from pipeline.features.overflow import overflow_words
from pipeline.features.state import feature_state, layout_notes
from pipeline.index.missing_views import missing_views
from pipeline.run.bring_up import PieceStage, bring_up_to_date
from pipeline.run.directory import MissingProductError, Run, StaleStoreError
from pipeline.run.outcome import Outcome
from pipeline.store.blocks import Block, blocks_of
from pipeline.store.replacing import finish_swap, replacement_of, swap_in
from pipeline.work.executors import check_precision, runs_here
from safenet.checkpoint_info import CheckpointInfo
from safenet.needs_network import require_network

_ROOM = 1.02  # metadata, marks and the blocks being replaced


def extract(run: Run, *, replace: bool = False, retry_bad: bool = False) -> Outcome:
    """Bring the features of every configured checkpoint up to date.

    Parameters
    ----------
    run : Run
    replace : bool
        Compute features anew that were made with other settings or of other images, instead of refusing. The old ones
        stay until the new ones are complete.
    retry_bad : bool
        Try the bad photos again.

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
    return bring_up_to_date(ExtractStage(run, replace, retry_bad))


@dataclass(frozen=True)
class _Checkpoint:
    """A checkpoint file, by the name that the run gives it."""

    name: str
    file: CheckpointFile


class ExtractStage(PieceStage[_Checkpoint]):
    """What the extract stage compares, lays out, computes and finishes."""

    name, product, needs = "extract", "features", "gpu"

    def __init__(self, run: Run, replace: bool, retry_bad: bool) -> None:
        super().__init__(run)
        self._replace, self._retry_bad = replace, retry_bad
        self._infos: dict[str, CheckpointInfo] = {}
        self._jobs: dict[str, ExtractJob] = {}
        self._named: NamedFiles

    def subjects(self) -> list[_Checkpoint]:
        """Checkpoint files."""
        run = self.run
        check_bad_share(run, listed_bad_images(run.manifest))
        if self._replace and not run.share.is_whole:
            raise ValueError(
                f"--replace and --part {run.share}: features are replaced by one process for all parts. Leave out --part (with --on to use "
                f"several machines), or name another --run directory"
            )
        check_precision(run.settings.compute, run.settings.extract.precision)
        self._named = named_files(run)
        check_same_sizes(run, self._named)
        if reason := missing_views(run):
            run.say(f"warning: `atlas cam` will refuse: {reason}")
        return [_Checkpoint(name, file) for name, file in self._named.files.items()]

    def units(self, subject: _Checkpoint) -> Sequence[Block]:
        """Blocks, as stored or as they will be."""
        samples = layout_notes(self.run.features(subject.name)).get("block_samples", self.run.settings.extract.block_samples)
        return blocks_of(len(self.run.manifest), samples)

    def size(self, item: Block | FeatureSpan) -> int:
        """Images."""
        return len(item)

    def inspect(self) -> None:
        """Read the checkpoint files one after the other: memory holds one."""
        self._infos = {one.name: examine(self.run, one.file) for one in self.mine}
        if self._named.read:
            self._named.read.keep()

    def prepare(self, alone: Collection[str]) -> None:
        """Compare what is stored with what is wanted; nothing is laid out yet, so that a refusal leaves every store as it was."""
        self._jobs = {one.name: self._job(one, one.name in alone) for one in self.mine}
        if not self.run.share.is_whole:
            for job in self._jobs.values():
                job.keep({block.index for block in self.shared[job.name]})
        if any(job.state.pending or job.state.lay_out for job in self._jobs.values()):
            require_network(self.name)
        self._check_space()

    def _job(self, one: _Checkpoint, alone: bool) -> ExtractJob:
        run, name, info = self.run, one.name, self._infos[one.name]
        if alone:
            finish_swap(run.features(name))
        store, made_with = run.features(name), ingredients(run, one.file.digest)
        if alone:
            store.sweep()
        state = feature_state(run, store, made_with, retry_bad=self._retry_bad)
        if state.kind != "stale":
            if state.lay_out and not alone:
                raise LockedError(
                    f"{store}: other parts write it, of other images or in another layout ({state.reason}). Wait for them and call again"
                )
            return ExtractJob(name, info, store, made_with, state, grown_rows(store, state), bad_images_of(store))
        if not self._replace:
            raise StaleStoreError(
                f"{store}: {state.reason}. Name another --run directory to keep both, or pass --replace to compute this store again"
            )
        old, store = store, replacement_of(store)
        store.sweep()
        state = feature_state(run, store, made_with)
        if state.kind == "stale":  # left from another replacement
            store.clear()
            state = feature_state(run, store, made_with)
        return ExtractJob(name, info, store, made_with, state, replaced_rows(run, old, made_with), {**bad_images_of(old), **bad_images_of(store)})

    def _check_space(self) -> None:
        needed = sum(sum(map(len, job.new_blocks)) * image_bytes(self.run, job.info) for job in self._jobs.values())
        remedy = "Free some, name another --run directory, or store less (extract.aligned, extract.store, extract.blocks)"
        check_space(self.run.directory, int(_ROOM * needed), self.name, remedy)

    def lay_out(self, subject: _Checkpoint, *, alone: bool) -> list[FeatureSpan]:
        """Make the store, or make its metadata fit the manifest; one span a checkpoint here, so that decoding, computing and writing never pause."""
        job, compute = self._jobs[subject.name], self.run.settings.compute
        lay_out_job(self.run, job, alone=alone)
        pending = job.state.pending
        size = max(1, len(pending) if runs_here(compute) else compute.span_samples // job.state.block_samples)
        return [job.span(pending[start : start + size]) for start in range(0, len(pending), size)]

    def work(self) -> FeatureWork:
        """Features of spans."""
        return FeatureWork(self.run)

    def take(self, subject: _Checkpoint, piece: Any, result: SpanReport) -> None:
        """Refuse to go on when too many images are bad in all spans together."""
        job = self._jobs[subject.name]
        job.bad |= result.bad
        check_bad_share(self.run, job.bad)

    def finish(self, subject: _Checkpoint) -> None:
        """Note that a checkpoint is whole; of parts the one that finds it so."""
        job = self._jobs[subject.name]
        if (missing := mark_features_whole(job.store)) and self.run.share.is_whole:
            raise MissingProductError(f"{job.store}: {missing} blocks that were written are gone, or another call wrote over them; call again")
        if job.store.name != job.name:
            swap_in(self.run.features(job.name))

    def left(self) -> str:
        """Blocks that are not written, and the room that they need."""
        rest = [(job, left) for job in self._jobs.values() if (left := job.left)]
        if not rest:
            return "all blocks are written; call again to finish"
        needed = sum(left * job.state.block_samples * image_bytes(self.run, job.info) for job, left in rest)
        blocks = ", ".join(f"{job.name}: {left} of {len(job.state.blocks)} blocks" for job, left in rest[:3])
        more = f" and {len(rest) - 3} more checkpoints" if len(rest) > 3 else ""
        return f"left to extract: {blocks}{more}, about {human_bytes(needed)}"

    def amount(self) -> int:
        """Images that went through the network."""
        return sum(job.state.pending_images for job in self._jobs.values())

    def outcome(self) -> Outcome:
        """Count blocks, and say what is special about the checkpoints."""
        if self._named.read:
            self._named.read.keep()  # of files, too, that had just been written when the call began
        run, jobs = self.run, list(self._jobs.values())
        computed, total = sum(len(job.state.pending) for job in jobs), sum(len(job.state.blocks) for job in jobs)
        bad = {name: found for job in jobs for name, found in bad_images_of(run.features(job.name)).items()}
        size = sum(run.features(job.name).ledger.whole().get("bytes", 0) for job in jobs)
        notes = [f"{len(jobs)} checkpoints, {len(run.manifest):,} images, {human_bytes(size)} in {run.features_path}"]
        notes += [f"{len(bad)} bad images are void: `atlas status --bad` lists them"] if bad else []
        beside = [job.name for job in jobs if replacement_of(run.features(job.name)).root.is_dir()]
        notes += [f"an unfinished replacement of {name} is kept: go on with --replace and its settings, or delete .{name}.next" for name in beside]
        notes += [f"{job.name}: {words}" for job in jobs if (words := overflow_words(run.features(job.name)))]
        notes += [f"{job.name}: {job.info.path.name}: {job.info.taken}" for job in jobs if not job.info.taken.is_plain]
        notes += [*notes_on_retold(jobs), *self._named.notes, *notes_on_left(self._named.left)]
        return Outcome(self.name, computed, total - computed, "blocks", tuple(notes))
