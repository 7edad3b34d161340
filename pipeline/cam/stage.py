"""The cam stage: features.zarr -> cams.zarr, one array a map key, each with its own stamp; no model, no checkpoint file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.cam.blocks import slices_of, wanted_block_samples
from pipeline.cam.bringing_over import bring_over
from pipeline.cam.layout import lay_out_maps, tell_of_checkpoint
from pipeline.cam.pending import Pending
from pipeline.cam.references import References
from pipeline.cam.spans import CamSlice, CamSpan, CamWork
from pipeline.cam.staleness import CamState, are_noted, cam_state, complete_maps, map_stamps
from pipeline.cam.target_checks import check_targets
from pipeline.cam.wanted import check_positions, notes_on_left_out, wanted_map_keys
from pipeline.disk.places import FEW, each
from pipeline.features.finished import content_stamp, finished_checkpoints
from pipeline.features.schema_versions import refuse_later
from pipeline.run.bring_up import PieceStage, bring_up_to_date
from pipeline.run.directory import MissingProductError, Run
from pipeline.run.outcome import Outcome
from pipeline.store.blocks import Block, blocks_of
from pipeline.store.group_store import GroupStore
from pipeline.store.replacing import finish_swap
from pipeline.work.executors import runs_here
from stages.cam.map_keys import MapKey
from stages.targets.names import NO_TARGET


def cam(run: Run, *, partial: bool = False) -> Outcome:
    """Bring the heat maps of every extracted checkpoint up to date. A new method computes only itself.

    Parameters
    ----------
    run : Run
    partial : bool
        Leave out unfinished checkpoints instead of refusing.

    Raises
    ------
    MissingProductError
        If there are no finished features.
    ValueError
        If a target or a position is not possible with the stored features.
    """
    return bring_up_to_date(CamStage(run, partial))


@dataclass
class _Checkpoint:
    """A checkpoint whose heat maps are brought up to date.

    Attributes
    ----------
    content : str
        Digest of the features when the maps were laid out.
    computed : int
        Maps that some block lacks.
    """

    name: str
    map_keys: Sequence[MapKey]
    content: str = ""
    computed: int = 0
    whole: bool = False


class CamStage(PieceStage[_Checkpoint]):
    """What the cam stage compares, lays out, computes and finishes."""

    name, product = "cam", "cams"

    def __init__(self, run: Run, partial: bool) -> None:
        super().__init__(run)
        self._partial = partial
        self._names: Sequence[str] = ()

    def subjects(self) -> list[_Checkpoint]:
        """Check every checkpoint before anything is computed for one."""
        self._names = finished_checkpoints(self.run, self._partial)
        map_keys = each(self.run.features_path, self._checked, self._names, at_once=FEW)
        return [_Checkpoint(name, found) for name, found in zip(self._names, map_keys, strict=True)]

    def _checked(self, name: str) -> list[MapKey]:
        """Refuse positions that were not stored and targets that no sample of this checkpoint has; return what is to be made."""
        check_positions(self.run, name)
        map_keys = wanted_map_keys(self.run, name)
        features = self.run.features(name)
        if are_noted(features, self.run.cams(name), map_stamps(features, map_keys)):
            return map_keys  # such maps were made of these images: the targets are possible
        check_targets(features, sorted({p.target for p in map_keys if p.target != NO_TARGET and not p.is_stored_gradient}))
        return map_keys

    def units(self, subject: _Checkpoint) -> list[Block]:
        """Blocks."""
        features = self.run.features(subject.name)
        return blocks_of(features.attributes["samples"], wanted_block_samples(self.run, features))

    def size(self, item: Block | CamSpan) -> int:
        """Images."""
        return len(item)

    def lay_out(self, subject: _Checkpoint, *, alone: bool) -> list[CamSpan]:
        """Make room for the maps, and cut what the blocks lack into spans."""
        features, cams = self.run.features(subject.name), self.run.cams(subject.name)
        subject.content = content_stamp(features)
        if alone:
            self._prepare_group(features, cams)
        state = cam_state(self.run, subject.name, subject.map_keys) if cams.is_laid_out else None
        if alone:
            if state is None or state.pending:
                cams.take_over()
                lay_out_maps(features, cams, wanted_block_samples(self.run, features), subject.map_keys, map_stamps(features, subject.map_keys))
                state = None
            else:
                tell_of_checkpoint(features, cams)
        state = state or cam_state(self.run, subject.name, subject.map_keys)
        mine = {block.index for block in self.shared[subject.name]}
        if state.pending and alone:
            self._forget_whole(subject, state)
        pending = [Pending(block, tuple(missing), state.origins[block]) for block, missing in state.pending if block.index in mine]
        subject.computed = len({map_key for one in pending for map_key in one.map_keys})
        slices = [[CamSlice(one, rows) for rows in slices_of(features, one.block)] for one in pending]
        return [CamSpan(subject.name, tuple(some), cams.fence) for some in self._spans(slices, cams.attributes["block_samples"])]

    def _spans(self, slices: Sequence[Sequence[CamSlice]], block_samples: int) -> list[list[CamSlice]]:
        """Here slice by slice, which threads share; for other processes complete blocks."""
        compute = self.run.settings.compute
        if runs_here(compute):
            return [[one] for of_block in slices for one in of_block]
        size = max(1, compute.span_samples // block_samples)
        return [[one for of_block in slices[start : start + size] for one in of_block] for start in range(0, len(slices), size)]

    def _prepare_group(self, features: GroupStore, cams: GroupStore) -> None:
        """Go on with what a killed process began, and bring an earlier layout over."""
        finish_swap(cams)
        cams.sweep()
        refuse_later(cams)
        wanted = wanted_block_samples(self.run, features)
        if cams.is_laid_out and cams.attributes["block_samples"] != wanted:
            cams.take_over()
            bring_over(features, cams, wanted)

    def _forget_whole(self, subject: _Checkpoint, state: CamState) -> None:
        """Take the maps that some block lacks from the note of the whole, and note how exact the closed form is."""
        features, cams = self.run.features(subject.name), self.run.cams(subject.name)
        pending = {map_key.key for _, missing in state.pending for map_key in missing}
        kept = {key: mark for key, mark in complete_maps(features, cams).items() if key not in pending}
        cams.ledger.mark_whole({"features": subject.content, "products": kept})
        exactness = References(features).exactness.as_dict()
        if cams.attributes.get("exactness") != exactness:
            cams.update_attributes({"exactness": exactness})

    def work(self) -> CamWork:
        """Maps of spans."""
        return CamWork(self.run)

    def finish(self, subject: _Checkpoint) -> None:
        """Note that a checkpoint's maps are whole; of parts the one that finds them so."""
        features, cams = self.run.features(subject.name), self.run.cams(subject.name)
        if content_stamp(features) != subject.content:
            raise MissingProductError(f"{features}: was written again while its heat maps were computed; run `atlas cam` again")
        subject.whole = True
        alone = self.run.share.is_whole
        missing = cam_state(self.run, subject.name, subject.map_keys).pending if subject.computed or not alone else ()
        if missing and alone:
            raise MissingProductError(f"{cams}: {len(missing)} blocks that were written are gone, or another call wrote over them; call again")
        if missing:
            return
        size = (not subject.computed and cams.ledger.whole().get("bytes")) or cams.ledger.marked_bytes(cams.blocks)
        products = {**complete_maps(features, cams), **map_stamps(features, subject.map_keys)}
        cams.ledger.mark_whole({"features": subject.content, "products": products, "bytes": size})
        cams.consolidate()

    def left(self) -> str:
        """Checkpoints that are not finished."""
        left = sum(not one.whole for one in self.mine)
        return f"left: heat maps of {left} of {len(self.mine)} checkpoints; finished blocks are kept"

    def amount(self) -> int:
        """Maps of single images."""
        return sum(one.computed for one in self.mine) * len(self.run.manifest)

    def outcome(self) -> Outcome:
        """Count maps, and say what cannot be made."""
        computed = sum(one.computed for one in self.mine)
        fresh = sum(len(one.map_keys) for one in self.mine) - computed
        notes = notes_on_left_out(self.run, self._names)
        return Outcome(self.name, computed, fresh, "maps (checkpoint x position x target x method)", notes)
