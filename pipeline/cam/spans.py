"""What one process of the cam stage does: it computes the heat maps of slices of blocks, and writes a block when all its slices are there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.cam.known_rows import KnownRows
from pipeline.cam.pending import Pending
from pipeline.cam.references import References
from pipeline.cam.staleness import map_stamps
from pipeline.features.reading import feature_arrays
from pipeline.run.directory import Run
from pipeline.store.fences import Fence
from pipeline.store.group_store import GroupStore
from pipeline.work.log import log
from pipeline.work.stops import check_stop
from stages.cam.compute import cams_of_block, needed_features
from stages.cam.map_keys import MapKey
from stages.recent import Recent


@dataclass(frozen=True)
class CamSlice:
    """Images of a block whose maps are computed at once."""

    pending: Pending
    rows: slice

    def __len__(self) -> int:
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True)
class CamSpan:
    """Slices of one checkpoint, and the fence under which they are given out.

    A process gets all slices of a block: another one does not know what it made.
    """

    name: str
    slices: tuple[CamSlice, ...]
    fence: Fence

    def __len__(self) -> int:
        """Images."""
        return sum(map(len, self.slices))


@dataclass(frozen=True)
class CamWork:
    """The cam stage's work, as `pipeline.work.executors` takes it."""

    run: Run

    def open(self, tell: Callable[[int], None]) -> CamBlocks:
        """Once in each process."""
        return CamBlocks(self.run, tell)


class CamBlocks:
    """Computes and writes the maps of spans; several threads may call it.

    What a checkpoint's blocks share, its stores and the embeddings of all images among it, is kept for the last two
    checkpoints: where one ends, the next has begun.
    """

    def __init__(self, run: Run, tell: Callable[[int], None]) -> None:
        self._run, self._tell = run, tell
        self._lock = threading.Lock()
        self._opened: Recent[str, _Checkpoint] = Recent(2)
        self._making: dict[tuple[str, int], _Making] = {}

    def __call__(self, span: CamSpan) -> None:
        """Do what no mark proves yet."""
        span.fence.check()  # before anything is computed in vain
        checkpoint = self._open(span)
        for piece in span.slices:
            check_stop()
            self._do(piece, span.fence, checkpoint)
            self._tell(len(piece))

    def _do(self, piece: CamSlice, fence: Fence, checkpoint: _Checkpoint) -> None:
        pending = piece.pending
        making = self._making_of(pending, checkpoint)
        if not making.is_done:
            known = making.known.read(piece.rows)
            unknown = tuple(map_key for map_key in pending.map_keys if map_key.key not in known)
            making.put(piece.rows, {**known, **(checkpoint.compute(piece.rows, unknown) if unknown else {})})
        with self._lock:
            if not making.close(piece.rows):
                return
            del self._making[checkpoint.cams.name, pending.block.index]
        if not making.is_done:
            cams = checkpoint.cams
            cams.write_block(pending.block, making.arrays, making.stamps, fence, made_of=pending.origin)
            log(f"{cams.path.name}/{cams.name} {pending.block}: {len(pending.map_keys)} maps written")

    def _making_of(self, pending: Pending, checkpoint: _Checkpoint) -> _Making:
        with self._lock:
            key = checkpoint.cams.name, pending.block.index
            if key not in self._making:
                self._making[key] = _Making.of(pending, checkpoint)
            return self._making[key]

    def _open(self, span: CamSpan) -> _Checkpoint:
        """Open the stores once, and read what the slices share, so that threads do not each do it."""
        with self._lock:
            found = self._opened.get(span.name, lambda: _Checkpoint.of(self._run, span.name))
            found.references.prepare({map_key for piece in span.slices for map_key in piece.pending.map_keys})
            return found


@dataclass(frozen=True)
class _Checkpoint:
    """The stores of a checkpoint, opened, and what its blocks share."""

    features: GroupStore
    cams: GroupStore
    references: References

    @classmethod
    def of(cls, run: Run, name: str) -> _Checkpoint:
        features = run.features(name)
        return cls(features, run.cams(name), References(features))

    def compute(self, rows: slice, map_keys: tuple[MapKey, ...]) -> dict[str, NDArray[np.float32]]:
        """Maps and facts of some images."""
        read = feature_arrays(self.features, needed_features(map_keys), rows)
        return cams_of_block({**read, **self.references.beside(read, rows, map_keys)}, map_keys, self.references.context)


@dataclass
class _Making:
    """A block whose slices are being computed."""

    start: int
    arrays: Mapping[str, NDArray[np.float32]]
    stamps: Mapping[str, str]
    known: KnownRows
    is_done: bool
    left: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, pending: Pending, checkpoint: _Checkpoint) -> _Making:
        features, cams, block = checkpoint.features, checkpoint.cams, pending.block
        wanted = zip(pending.map_keys, map_stamps(features, pending.map_keys).values(), strict=True)
        stamps = {key: mark for map_key, mark in wanted for key in (map_key.key, map_key.facts_key)}
        is_done = cams.ledger.is_done(block, stamps, made_of=pending.origin) and cams.holds(block, stamps)
        arrays = {} if is_done else {key: np.empty((len(block), *cams.described(key).shape[1:]), np.float32) for key in stamps}
        known = KnownRows.of(features, cams, pending, stamps)
        return cls(block.start, arrays, stamps, known, is_done, {rows.start for rows in known.slices})

    def put(self, rows: slice, made: Mapping[str, NDArray[np.float32]]) -> None:
        """Take the maps of some images."""
        for key, values in made.items():
            self.arrays[key][rows.start - self.start : rows.stop - self.start] = values

    def close(self, rows: slice) -> bool:
        """Note that a slice is done; return whether it was the last one."""
        self.left.discard(rows.start)
        return not self.left
