"""What one process of the cam stage does: it computes and writes the heat maps of spans of blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.cam.references import References
from pipeline.cam.staleness import map_stamps
from pipeline.features.reading import read_features
from pipeline.run.directory import Run
from pipeline.store.blocks import Block
from pipeline.store.fences import Fence
from pipeline.store.group_store import GroupStore
from pipeline.work.log import log
from pipeline.work.stops import check_stop
from stages.cam.compute import compute_cams, needed_features
from stages.cam.map_keys import MapKey
from stages.recent import Recent


@dataclass(frozen=True)
class Piece:
    """Maps that one block lacks, and the digest of the features that they are made of."""

    block: Block
    map_keys: tuple[MapKey, ...]
    origin: str


@dataclass(frozen=True)
class CamSpan:
    """Pieces of one checkpoint, and the fence under which they are given out."""

    name: str
    pieces: tuple[Piece, ...]
    fence: Fence

    def __len__(self) -> int:
        """Images."""
        return sum(len(piece.block) for piece in self.pieces)


@dataclass(frozen=True)
class CamWork:
    """The cam stage's work, as `pipeline.work.executors` takes it."""

    run: Run

    def open(self, tell: Callable[[int], None]) -> CamBlocks:
        """Once in each process."""
        return CamBlocks(self.run, tell)


class CamBlocks:
    """Computes and writes the maps of spans; several threads may call it.

    What a checkpoint's blocks share, embeddings of all images among it, is kept for the last two checkpoints: where
    one ends, the next has begun.
    """

    def __init__(self, run: Run, tell: Callable[[int], None]) -> None:
        self._run, self._tell = run, tell
        self._lock = threading.Lock()
        self._references: Recent[str, References] = Recent(2)

    def __call__(self, span: CamSpan) -> None:
        """Do what no mark proves yet."""
        features, cams = self._run.features(span.name), self._run.cams(span.name)
        span.fence.check()  # before anything is computed in vain
        references = self._open(features, {map_key for piece in span.pieces for map_key in piece.map_keys})
        for piece in span.pieces:
            check_stop()
            self._write(piece, span.fence, features, cams, references)
            self._tell(len(piece.block))

    def _write(self, piece: Piece, fence: Fence, features: GroupStore, cams: GroupStore, references: References) -> None:
        block, map_keys = piece.block, piece.map_keys
        stamps = {key: mark for p, mark in zip(map_keys, map_stamps(features, map_keys).values(), strict=True) for key in (p.key, p.facts_key)}
        if cams.ledger.is_done(block, stamps, made_of=piece.origin) and cams.holds(block, stamps):
            return
        read = read_features(features, needed_features(map_keys), block.rows)
        maps = compute_cams(references.attach(read, block.rows, map_keys), map_keys, references.context)
        cams.write_block(block, {str(key): maps[key].values for key in maps}, stamps, fence, made_of=piece.origin)
        log(f"{cams.path.name}/{cams.name} {block}: {len(map_keys)} maps written")

    def _open(self, features: GroupStore, map_keys: set[MapKey]) -> References:
        with self._lock:
            references = self._references.get(features.name, lambda: References(features))
            references.prepare(map_keys)
            return references
