"""Blocks of samples, the unit of work, and the ledger that proves which are done.

A block counts as done only when its mark says so. The mark is written when the block's data is on the disk, and
appears whole or not at all, so that a process killed at any instant leaves either no mark or a true one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from pipeline.disk.places import Place, changed_ns, each, file_names_in, files_in, remove_files, status_of
from pipeline.disk.records import DamagedRecordError, read_record, sweep, write_record
from pipeline.disk.unchanged import Unchanged
from pipeline.store.fences import Fence, lowest_numbers
from stages.finite import finite_rows

_WHOLE = "whole.json"
_RENAMED_NS = 300_000_000  # after its bytes are written, at most, a file has its name
_READ: Unchanged[dict[str, Any]] = Unchanged(1024)


@dataclass(frozen=True)
class Block:
    """Samples `start` ... `stop` - 1: one file per array of a store."""

    index: int
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """As an index."""
        return slice(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"block {self.index} ({self.start}-{self.stop - 1})"


def blocks_of(samples: int, block_samples: int) -> list[Block]:
    """Cut the samples into blocks; the last may be shorter."""
    starts = range(0, samples, block_samples)
    return [Block(index, start, min(start + block_samples, samples)) for index, start in enumerate(starts)]


class Ledger:
    """The records of one group of a store: a mark for each block, `<directory>/<block>.json`, and one for the whole.

    A mark holds for every array of the block the stamp it was made under, the crc32c of its values, their size in bytes
    and how many are not finite; what the values were made of; who wrote them, and when; and under which fence. One that a worker
    of an earlier call wrote after the block was swept is taken for none.
    """

    def __init__(self, directory: Place) -> None:
        self.directory = directory

    # ---- blocks

    def record(self, block: Block) -> dict[str, Any]:
        """Return a block's mark, empty where there is none, or a damaged one, or one of other rows."""
        return of_rows(block, self.record_of(block.index))

    def records(self, blocks: Sequence[Block]) -> list[dict[str, Any]]:
        """Return the marks of several blocks, as `record` does; those of an object store are read several at a time."""
        found = self.records_of([block.index for block in blocks])
        return [of_rows(block, content) for block, content in zip(blocks, found, strict=True)]

    def shorter_record(self, block: Block) -> dict[str, Any]:
        """Return the mark that the block had when the dataset was smaller: of its first rows; empty where there is none."""
        return of_first_rows(block, self.record_of(block.index))

    def is_done(self, block: Block, stamps: Mapping[str, str], **made_of: Any) -> bool:
        """Whether every named array of the block was written under its stamp, of what the keywords say.

        A keyword that is None is not compared: schema version 1 noted none.
        """
        return proves(self.record(block), stamps, **made_of)

    def mark(
        self, block: Block, proofs: Mapping[str, Mapping[str, int]], stamps: Mapping[str, str], fence: Fence | None = None, **notes: Any
    ) -> None:
        """Record a block whose arrays are on the disk. Marks of its other arrays are kept, if they were made of the same.

        Without `fence` the caller holds the lock, and the mark is made under the fence that stands.

        Raises
        ------
        RaisedFenceError
            If another fence stands by now.
        """
        fence, record = fence or self.fence, self.record(block)
        kept = record.get("arrays", {}) if record.get("made_of") == notes.get("made_of") else {}
        arrays = {**kept, **{name: {"stamp": stamps[name], **proof} for name, proof in proofs.items()}}
        who = {"host": socket.gethostname(), "pid": os.getpid(), "finished": datetime.now(UTC).isoformat(timespec="seconds")}
        content = {"rows": [block.start, block.stop], "arrays": arrays, **notes, **who, "fence": fence.number}
        write_record(self._path(block), content, durable_name=False, check=fence.check)  # `mark_whole` makes all names durable

    def forget(self, block: Block, names: Iterable[str] | None = None) -> None:
        """Take arrays (None: all) out of a block's mark, because their data is not to be trusted; a shorter mark is of that block, too."""
        self.forget_whole()
        record = self.record(block)
        arrays = {name: made for name, made in record.get("arrays", {}).items() if names is not None and name not in set(names)}
        if arrays:
            write_record(self._path(block), {**record, "arrays": arrays})
        else:
            self._path(block).unlink(missing_ok=True)

    def indices(self) -> list[int]:
        """Numbers of the blocks that have a mark, damaged ones included."""
        return sorted(number for name in file_names_in(self.directory) if (number := _mark_number(name)) is not None)

    def indices_since(self, time: float) -> list[int]:
        """Numbers of the blocks that were marked at `time` (seconds since 1970) or later."""
        if isinstance(self.directory, Path) and ((folder := status_of(self.directory)) is None or folder.st_mtime < time):
            return []  # a mark gets its name by a rename, which the folder notes
        return sorted(int(path.stem) for path in self._marks() if (status := status_of(path)) and status.st_mtime >= time)

    def latest(self) -> float | None:
        """When the last block was marked (seconds since 1970); None where none was."""
        return max((status.st_mtime for path in self._marks() if (status := status_of(path))), default=None)

    def _marks(self) -> list[Place]:
        return [path for path in files_in(self.directory, "[0-9]*.json") if path.stem.isdecimal()]

    def record_of(self, index: int) -> dict[str, Any]:
        """Return the mark of the block of that number, whatever its rows; empty where there is none, or a damaged one."""
        return self.records_of([index])[0]

    def records_of(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return the marks of several blocks, as `record_of` does."""
        return [{} if isinstance(mark, DamagedRecordError) else mark for mark in self.records_or_errors(indices)]

    def records_or_errors(self, indices: Sequence[int]) -> list[dict[str, Any] | DamagedRecordError]:
        """Return the marks of several blocks, whatever their rows: empty where there is none, or one that came after its block was swept.

        In the place of a damaged one stands what is wrong with it.
        """

        def read(index: int) -> dict[str, Any] | DamagedRecordError:
            try:
                return read_record(self._path_of(index))
            except DamagedRecordError as error:
                return error

        marks = each(self.directory, read, indices)
        lowest = lowest_numbers(self.directory) if any(marks) else {}
        late = (isinstance(mark, dict) and mark.get("fence", 0) < lowest.get(index, 0) for index, mark in zip(indices, marks, strict=True))
        return [{} if came_late else mark for mark, came_late in zip(marks, late, strict=True)]

    # ---- who may write

    @property
    def fence(self) -> Fence:
        """The fence that stands."""
        return Fence.standing(self.directory)

    # ---- the whole

    def whole(self) -> dict[str, Any]:
        """Return what was noted when all blocks were done; empty where they are not, or are not any more."""
        noted = self.directory / _WHOLE
        try:
            return _READ.get(lambda: read_record(noted), noted)
        except DamagedRecordError:
            return {}

    @property
    def whole_noted_ns(self) -> int | None:
        """When the whole was noted, by the clock of the file system, in nanoseconds since 1970; None where it is not, or damaged, and of objects."""
        return changed_ns(self.directory / _WHOLE) or None if isinstance(self.directory, Path) and self.whole() else None

    @property
    def is_older_than_whole(self) -> bool:
        """Whether no mark was written after the note of the whole, by whomever."""
        noted = status_of(self.directory / _WHOLE)
        if noted is None:
            return False
        if isinstance(noted, os.stat_result):
            is_copy = noted.st_ctime_ns > noted.st_mtime_ns + _RENAMED_NS  # else it was written under this name
            if not is_copy and 0 < changed_ns(self.directory) <= noted.st_ctime_ns:
                return True  # a mark gets its name by a rename, which the folder notes
        return (latest := self.latest()) is not None and latest <= noted.st_mtime

    def marked_bytes(self, blocks: Sequence[Block]) -> int:
        """Size of the values of all arrays of some blocks, according to their marks."""
        return sum(made["bytes"] for record in self.records(blocks) for made in record.get("arrays", {}).values())

    def mark_whole(self, content: Mapping[str, Any]) -> None:
        """Note that all blocks are done, so that a reader need not look at each."""
        if self.whole() != content:
            write_record(self.directory / _WHOLE, content)

    def forget_whole(self) -> None:
        """Some block is to be written again."""
        (self.directory / _WHOLE).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget every block, and sweep what a killed process left."""
        self.forget_whole()
        remove_files(map(self._path_of, self.indices()))
        sweep(self.directory)

    def _path(self, block: Block) -> Place:
        return self._path_of(block.index)

    def _path_of(self, index: int) -> Place:
        return self.directory / f"{index:06d}.json"


def _mark_number(name: str) -> int | None:
    stem, dot, suffix = name.partition(".")
    return int(stem) if dot and suffix == "json" and stem.isdecimal() else None


def proves(record: Mapping[str, Any], stamps: Mapping[str, str], **made_of: Any) -> bool:
    """Whether a mark says that every named array was written under its stamp, of what the keywords say; one that is None is not compared."""
    made = record.get("arrays", {})
    same_origin = all(wanted is None or record.get(name) == wanted for name, wanted in made_of.items())
    return same_origin and all(made.get(name, {}).get("stamp") == wanted for name, wanted in stamps.items())


def of_rows(block: Block, mark: dict[str, Any]) -> dict[str, Any]:
    """Return a mark if it is of the block's rows; else an empty one."""
    return mark if mark.get("rows") == [block.start, block.stop] else {}


def of_first_rows(block: Block, mark: dict[str, Any]) -> dict[str, Any]:
    """Return a mark if it is of the first rows of a block, which was the last one when the dataset was smaller; else an empty one."""
    start, stop = mark.get("rows", (0, 0))
    return mark if start == block.start and start < stop < block.stop else {}


def proof_of(values: NDArray[Any]) -> dict[str, Any]:
    """Return what a mark says of an array.

    crc32c of its values (row-major, little-endian), bytes, how many values are not finite; and where some are not, in which rows (a list, or "all"),
    and the same of those that are infinite.
    """
    proof = {"crc32c": checksum_of(values), "bytes": values.nbytes, "non_finite": _count_non_finite(values)}
    if not proof["non_finite"]:
        return proof
    infinite = np.isinf(values)
    in_rows = infinite.any(axis=tuple(range(1, values.ndim)))
    return {**proof, "odd_rows": _row_list(~finite_rows(values)), "infinite": int(infinite.sum()), "infinite_rows": _row_list(in_rows)}


def _row_list(chosen: NDArray[np.bool_]) -> list[int] | str:
    return "all" if chosen.all() else np.flatnonzero(chosen).tolist()


def checksum_of(values: NDArray[Any]) -> int:
    """Return the crc32c of an array's values, row-major."""
    return int(crc32c(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data))


def runs_of(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Join ascending numbers into runs: 1 2 3 7 -> (1, 3), (7, 7)."""
    first = previous = None
    for number in numbers:
        if first is None or previous is None or number != previous + 1:
            if first is not None and previous is not None:
                yield first, previous
            first = number
        previous = number
    if first is not None and previous is not None:
        yield first, previous


def _count_non_finite(values: NDArray[Any]) -> int:
    """Two maxima over the bits tell at memory speed that all is finite, which is nearly always so; numpy's isfinite is ten times slower."""
    if values.dtype.kind != "f" or not values.size:
        return 0
    bits, infinity = np.ascontiguousarray(values), np.array(np.inf, values.dtype)
    signed, unsigned = (np.dtype(f"{kind}{values.dtype.itemsize}") for kind in "iu")
    if bits.view(signed).max() < infinity.view(signed) and bits.view(unsigned).max() < (-infinity).view(unsigned):
        return 0  # the bits of inf and NaN are the greatest of their sign
    return int(values.size - np.count_nonzero(np.isfinite(values)))
