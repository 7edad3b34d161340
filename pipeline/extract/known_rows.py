"""Samples whose features are already proven: they are carried over and never go through the network again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.disk.stamps import stamp
from pipeline.extract.streaming import Arrays
from pipeline.features.finished import proven_rows
from pipeline.features.state import FeatureState, layout_notes
from pipeline.run.directory import Run
from pipeline.store.blocks import Block, checksum_of
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import DamagedStoreError


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
    """Rows of a store that is being replaced and was made with the same settings: of the images that did not change."""

    old: GroupStore
    sources: Mapping[int, Mapping[int, tuple[Block, int]]] = field(default_factory=dict)

    def only(self, blocks: Sequence[Block]) -> KnownRows:
        return _ReplacedRows(self.old, {block.index: self.sources[block.index] for block in blocks if block.index in self.sources})

    def rows(self, block: Block) -> set[int]:
        return set(self.sources.get(block.index, ()))

    def read(self, block: Block) -> Iterator[tuple[list[int], Arrays]]:
        by_source: dict[Block, list[tuple[int, int]]] = defaultdict(list)
        for row, (source, old_row) in self.sources.get(block.index, {}).items():
            by_source[source].append((row, old_row))
        for source, pairs in by_source.items():
            whole = self.old.read(self.old.attributes["block_arrays"], source.rows)
            rows, old_rows = (list(numbers) for numbers in zip(*pairs, strict=True))
            yield rows, {str(name): values.values[old_rows] for name, values in whole.items()}


def grown_rows(store: GroupStore, state: FeatureState) -> KnownRows:
    """Rows that a store proves of its own pending blocks."""
    return _GrownRows(store, state.carried)


def replaced_rows(run: Run, old: GroupStore, made_with: Mapping[str, Any], state: FeatureState) -> KnownRows:
    """Rows of the replacement's pending blocks that the old store proves."""
    if old.seal.is_open or stamp(layout_notes(old)["made_with"]) != stamp(made_with):
        return _ReplacedRows(old)
    proven, names = proven_rows(old), run.manifest["id"].tolist()
    sources = {}
    for block in state.pending:
        wanted = enumerate(zip(names[block.rows], run.images(block), strict=True))
        sources[block.index] = {row: proven[image] for row, image in wanted if image in proven}
    return _ReplacedRows(old, sources)
