"""Samples whose features are already proven: they are carried over and never go through the network again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.disk.stamps import stamp
from pipeline.features.finished import proven_samples
from pipeline.features.state import FeatureState, layout_notes
from pipeline.run.directory import Run
from pipeline.store.blocks import Block, checksum_of
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import DamagedStoreError

Arrays = dict[str, NDArray[np.generic]]
_NEW = -1


class KnownRows(Protocol):
    """Which samples of a pending block are known, and their values."""

    def rows(self, block: Block) -> set[int]:
        """Rows within the block."""

    def read(self, block: Block) -> Iterator[tuple[list[int], Arrays]]:
        """Yield rows within the block, and one array per variable with their values."""

    def only(self, blocks: Sequence[Block]) -> KnownRows:
        """Those of some blocks."""


@dataclass(frozen=True)
class _GrownRows:
    """The first rows of the last block of a store whose dataset has grown: a shorter mark proves them.

    The block's files are replaced one by one by longer ones whose first rows are the same bytes, so that the shorter mark
    stays true until the longer one takes its place.
    """

    store: GroupStore
    counts: Mapping[int, int]

    def only(self, blocks: Sequence[Block]) -> KnownRows:
        return _GrownRows(self.store, {block.index: self.counts[block.index] for block in blocks if block.index in self.counts})

    def rows(self, block: Block) -> set[int]:
        return set(range(self.counts.get(block.index, 0)))

    def read(self, block: Block) -> Iterator[tuple[list[int], Arrays]]:
        count = self.counts.get(block.index, 0)
        if not count:
            return
        proofs = self.store.ledger.shorter_record(block)["arrays"]
        found = self.store.read(proofs, slice(block.start, block.start + count))
        arrays = {str(name): values.values for name, values in found.items()}
        for name, values in arrays.items():
            if checksum_of(values) != proofs[name]["crc32c"]:
                raise DamagedStoreError(
                    f"{self.store}/{name}, samples {block.start} to {block.start + count - 1}: damaged: not the values that were marked as written. "
                    f"Run `atlas verify --repair` and then `atlas extract`"
                )
        yield list(range(count)), arrays


@dataclass(frozen=True)
class _ReplacedRows:
    """Rows of a store that is being replaced and was made with the same settings: of the images that did not change.

    Parameters
    ----------
    old : GroupStore
    sources : mapping
        Number of a block -> int32 [samples of it], which sample of the old store each one was; _NEW for none. Four bytes a sample,
        as a run may replace millions.
    """

    old: GroupStore
    sources: Mapping[int, NDArray[np.int32]] = field(default_factory=dict)

    def only(self, blocks: Sequence[Block]) -> KnownRows:
        return _ReplacedRows(self.old, {block.index: self.sources[block.index] for block in blocks if block.index in self.sources})

    def rows(self, block: Block) -> set[int]:
        return set(np.flatnonzero(self._sources_of(block) != _NEW).tolist())

    def read(self, block: Block) -> Iterator[tuple[list[int], Arrays]]:
        sources, attributes, blocks = self._sources_of(block), self.old.attributes, self.old.blocks
        known = np.flatnonzero(sources != _NEW)
        numbers = sources[known] // attributes["block_samples"]
        for number in np.unique(numbers):
            old, rows = blocks[number], known[numbers == number]
            whole = self.old.read(attributes["block_arrays"], old.rows)
            yield rows.tolist(), {str(name): values.values[sources[rows] - old.start] for name, values in whole.items()}

    def _sources_of(self, block: Block) -> NDArray[np.int32]:
        return self.sources.get(block.index, np.full(len(block), _NEW, np.int32))


@dataclass(frozen=True)
class _ReplacedStore:
    """Rows of all blocks; the old store's proofs are read when they are first asked for, one checkpoint after the other."""

    run: Run
    old: GroupStore

    def only(self, blocks: Sequence[Block]) -> KnownRows:
        return _ReplacedRows(self.old, {block.index: self._sources[block.rows] for block in blocks})

    def rows(self, block: Block) -> set[int]:
        return self.only([block]).rows(block)

    def read(self, block: Block) -> Iterator[tuple[list[int], Arrays]]:
        return self.only([block]).read(block)

    @cached_property
    def _sources(self) -> NDArray[np.int32]:
        proven, columns = proven_samples(self.old), self.run.columns
        images = zip(columns["id"], columns["digest"], strict=True)
        return np.array([proven.get(image, _NEW) for image in images], np.int32)


def grown_rows(store: GroupStore, state: FeatureState) -> KnownRows:
    """Rows that a store proves of its own pending blocks."""
    return _GrownRows(store, state.carried)


def replaced_rows(run: Run, old: GroupStore, made_with: Mapping[str, Any]) -> KnownRows:
    """Rows of the replacement that the old store proves."""
    if old.seal.is_open or stamp(layout_notes(old)["made_with"]) != stamp(made_with):
        return _ReplacedRows(old)
    return _ReplacedStore(run, old)
