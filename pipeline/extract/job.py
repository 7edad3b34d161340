"""A checkpoint on its way through the extract stage: the store that its features go to, what that still lacks, and how it is laid out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.disk.stamps import stamp
from pipeline.extract.known_rows import KnownRows
from pipeline.extract.layout import lay_out_features, told_by_file
from pipeline.extract.spans import FeatureSpan
from pipeline.features.bad_images import BadImage, bad_images_of, listed_bad_images
from pipeline.features.schema_versions import upgrade_marks
from pipeline.features.state import FeatureState
from pipeline.run.directory import Run
from pipeline.store.blocks import Block, of_first_rows, of_rows
from pipeline.store.fences import Fence
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import read_attributes
from pipeline.work.stops import loading
from safenet.checkpoint_info import CheckpointInfo


@dataclass
class ExtractJob:
    """A checkpoint, the store that its features go to, what that still lacks, and the images that were void before."""

    name: str
    info: CheckpointInfo
    store: GroupStore
    made_with: dict[str, Any]
    state: FeatureState
    known: KnownRows
    void: dict[str, BadImage]
    fence: Fence = field(init=False)  # once it is laid out
    retold: dict[str, str] = field(default_factory=dict)  # attribute -> what it was and is (empty: it is new), where the file tells another today
    bad: dict[str, BadImage] = field(default_factory=dict)  # now: the photos of pending blocks are tried again, and not bad until they are
    is_laid_out: bool = False

    @property
    def stamp(self) -> str:
        """Digest that each of its blocks is marked with."""
        return stamp(self.made_with)

    @property
    def digest(self) -> str:
        """Of the checkpoint file's bytes."""
        return str(self.made_with["checkpoint"])

    @property
    def left(self) -> int:
        """Blocks that are not written yet."""
        done = set(self.store.ledger.indices()) if self.is_laid_out else set()  # laying out took the marks of all that are pending
        return sum(block.index not in done for block in self.state.pending)

    def keep(self, blocks: Collection[int]) -> None:
        """Leave out what other parts do."""
        mine = [[block for block in found if block.index in blocks] for found in (self.state.blocks, self.state.pending)]
        self.state = replace(self.state, blocks=mine[0], pending=mine[1])

    @property
    def new_blocks(self) -> list[Block]:
        """Pending blocks that have no files yet; the others' files are replaced one by one by files of the same size."""
        marks = self.store.ledger.records_of([block.index for block in self.state.pending])
        found = zip(self.state.pending, marks, strict=True)
        return [block for block, mark in found if not (of_first_rows(block, mark) or of_rows(block, mark))]

    def span(self, blocks: Sequence[Block]) -> FeatureSpan:
        """Blocks of it, as a process takes them."""
        known = self.known.only(blocks)
        file = self.info.path, self.digest
        return FeatureSpan(
            self.name, *file, self.store, self.fence, self.stamp, self.made_with["precision"], tuple(blocks), known, self.void, self.bad
        )


def lay_out_job(run: Run, job: ExtractJob, *, alone: bool) -> None:
    """Make the store, or make its metadata fit the manifest; blocks that are to be done again lose their mark first."""
    store, state = job.store, job.state
    unmarked = [block for block in state.pending if block.index not in state.carried]
    job.fence = store.take_over(unmarked) if alone and (state.pending or state.lay_out) else store.fence
    if state.kind == "missing" and alone:
        store.clear()
    told = told_by_file(run, job.info)
    job.retold = _told_anew(store, told) if alone and state.kind != "missing" else {}
    if state.lay_out:
        upgrade_marks(run, store, job.made_with)
        with loading():
            from pipeline.checkpoints.networks import load_network  # only where there is work
        info, network = load_network(job.info.path, job.digest, run.settings.extract.told)
        lay_out_features(run, store, info, network, job.made_with, state.block_samples, state.chunk_samples)
    elif job.retold:
        store.update_attributes(told)
    for block, record in zip(state.pending, store.ledger.records(state.pending), strict=True):
        if record:
            store.ledger.forget(block)
    if state.pending:
        store.ledger.forget_whole()
    job.bad = {**bad_images_of(store), **listed_bad_images(run.manifest)}
    if alone:
        store.sweep_unmarked(unmarked, store.attributes["block_arrays"])
    job.is_laid_out = True


def notes_on_retold(jobs: Sequence[ExtractJob]) -> Iterator[str]:
    """Attributes that were brought up to date without computing: those that are new, and a line for each that is another now."""
    new = list(dict.fromkeys(key for job in jobs for key, was in job.retold.items() if not was))
    if new:
        yield f"noted for {sum('' in job.retold.values() for job in jobs)} checkpoints that an earlier version extracted: {', '.join(new)}"
    for key in dict.fromkeys(key for job in jobs for key, was in job.retold.items() if was):
        changed = [f"{job.name} (was {job.retold[key]})" for job in jobs if job.retold.get(key)]
        yield f"{key} brought up to date: {', '.join(changed[:3])}" + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")


def _told_anew(store: GroupStore, told: Mapping[str, Any]) -> dict[str, str]:
    """Attributes that the file tells otherwise today, since earlier versions guessed epochs and files are moved: what was and is, or "" for new."""
    attributes = read_attributes(store.root)
    changed = {key: value for key, value in told.items() if attributes and (key not in attributes or attributes[key] != value)}
    return {key: f"{attributes[key]!r}, is {value!r}" if key in attributes else "" for key, value in changed.items()}
