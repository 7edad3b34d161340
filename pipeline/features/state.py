"""A checkpoint's feature store compared with what is wanted: settings, images, and the blocks that are marked.

The marks alone decide what is done: each names the stamp and the images that its block was made of. The metadata can be
written again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.disk.stamps import stamp
from pipeline.features.schema_versions import images_of_version_1, is_unsealed, notes_of_unsealed, refuse_later
from pipeline.run.directory import Run
from pipeline.store.blocks import Block, blocks_of, of_first_rows, of_rows
from pipeline.store.group_store import GroupStore
from stages.extract.settings import LATER_SETTINGS

Kind = Literal["missing", "fresh", "partial", "stale"]
_DIGESTS = {"checkpoint": "made of a checkpoint file of this name with other content"}


@dataclass(frozen=True)
class FeatureState:
    """The outcome of the comparison.

    Attributes
    ----------
    kind : {"missing", "fresh", "partial", "stale"}
        stale: made with other settings or of other images, so that only `--replace` may go on.
    reason : str
        Why it is not fresh, in words.
    blocks : list of Block
        As wanted.
    pending : list of Block
        Those that no mark proves.
    carried : mapping of int to int
        Number of a pending block -> how many of its first samples are proven already: the dataset has grown since.
    lay_out : bool
        Metadata or texts are to be written again.
    """

    kind: Kind
    reason: str
    blocks: Sequence[Block]
    pending: Sequence[Block]
    block_samples: int
    chunk_samples: int
    lay_out: bool
    carried: Mapping[int, int] = field(default_factory=dict)

    @property
    def pending_images(self) -> int:
        """Images that have to go through the network."""
        return sum(len(block) - self.carried.get(block.index, 0) for block in self.pending)


def feature_state(run: Run, store: GroupStore, made_with: Mapping[str, Any], *, retry_bad: bool = False) -> FeatureState:
    """Compare a store with the settings and the manifest; nothing is written.

    Parameters
    ----------
    run : Run
    store : GroupStore
    made_with : mapping
        Of `ingredients`.
    retry_bad : bool
        Count blocks with photos that could not be read as not done.

    Raises
    ------
    ValueError
        If a later version of the schema wrote the store.
    """
    refuse_later(store)
    settings, samples = run.settings.extract, len(run.manifest)
    notes = layout_notes(store)
    if not notes:
        blocks = blocks_of(samples, settings.block_samples)
        return FeatureState("missing", "not extracted yet", blocks, blocks, settings.block_samples, settings.chunk_samples, True)
    blocks = blocks_of(samples, notes["block_samples"])
    made = notes["made_with"]
    differing = [key for key in (*LATER_SETTINGS, *made_with) if made.get(key) != made_with.get(key)]
    if differing:
        key = differing[0]
        reason = _DIGESTS.get(key, f"made with {key} = {made.get(key)!r}, but {made_with.get(key)!r} is asked for")
        return FeatureState("stale", reason, blocks, blocks, notes["block_samples"], notes["chunk_samples"], True)
    accepted = {stamp(made), stamp(made_with)}  # the same settings, as schema versions 1 and 2 note them
    held = store.held_blocks(notes["block_arrays"], noted=notes["block_arrays"] if store.is_laid_out else ())
    lay_out = not store.is_laid_out or store.lacks_files or notes["samples"] != samples or notes["texts"] != run.texts_stamp
    if not lay_out and not retry_bad and _is_noted_whole(store, accepted, len(blocks)) and len(held) == len(blocks):
        return FeatureState("fresh", "", blocks, [], notes["block_samples"], notes["chunk_samples"], False)
    marks = store.ledger.records_of([block.index for block in blocks])
    found = [_BlockState.of(run, block, mark, accepted, notes, retry_bad, block.index in held) for block, mark in zip(blocks, marks, strict=True)]
    lost = [index for index in store.ledger.indices() if index >= len(blocks)]
    changed = [row for state in found for row in state.changed]
    pending = [state.block for state in found if not state.done]
    carried = {state.block.index: state.carried for state in found if state.carried}
    kind, reason = _judge(run, pending, changed, lost, len(blocks), notes["samples"])
    return FeatureState(kind, reason, blocks, pending, notes["block_samples"], notes["chunk_samples"], lay_out, carried)


def _is_noted_whole(store: GroupStore, accepted: set[str], count: int) -> bool:
    """Whether the note of the whole speaks for every block, of the images that the texts name, so that not each mark has to be read."""
    ledger = store.ledger
    return ledger.whole().get("stamp") in accepted and ledger.indices() == list(range(count)) and ledger.is_older_than_whole


def layout_notes(store: GroupStore) -> dict[str, Any]:
    """What the store was laid out for; empty where it never was. It can be read while the metadata is damaged."""
    if store.seal.exists:
        return store.seal.notes
    return notes_of_unsealed(store) if is_unsealed(store) else {}


@dataclass(frozen=True)
class _BlockState:
    """One block: whether it is proven, how many of its first samples are, and which samples' images were changed."""

    block: Block
    done: bool
    carried: int = 0
    changed: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, run: Run, block: Block, mark: dict[str, Any], accepted: set[str], notes: Mapping[str, Any], retry_bad: bool, held: bool
    ) -> _BlockState:
        images = run.images(block)
        record = of_rows(block, mark)
        carried = 0
        if not record and (record := of_first_rows(block, mark)):
            carried = record["rows"][1] - record["rows"][0]
        arrays = record.get("arrays", {})
        if not arrays or any(made["stamp"] not in accepted for made in arrays.values()) or not held:
            return cls(block, False)
        void = record.get("quarantined", {})
        made_of = record.get("images") or images_of_version_1(run, notes, block, record["rows"][1])
        differing = [row for row, (was, is_now) in enumerate(zip(made_of, images, strict=False)) if was != is_now]
        names = run.columns["id"][block.rows]
        changed = tuple(block.start + row for row in differing if names[row] not in void)
        if differing or carried:
            return cls(block, False, 0 if differing else carried, changed)
        listed = run.columns["problem"][block.rows]
        tried_again = retry_bad and any(names[row] in void and not listed[row] for row in range(len(block)))
        return cls(block, not tried_again)


def _judge(run: Run, pending: Sequence[Block], changed: Sequence[int], lost: Sequence[int], total: int, samples: int) -> tuple[Kind, str]:
    now = len(run.manifest)
    if lost or now < samples:
        return "stale", f"made of {samples} images, but {run.manifest_path} lists {now}"
    if changed:
        name = run.columns["id"][changed[0]]
        return "stale", f"made of another list of images than {run.manifest_path} now holds ({len(changed)} changed, for instance {name})"
    if now > samples:
        return "partial", f"{now - samples} new images"
    if pending:
        return "partial", f"{len(pending)} of {total} blocks missing"
    return "fresh", ""
