"""Fences: a number that rises when a call takes over what another call wrote, so that the workers of the other write nothing more.

The lock of a product is held by the process that gives out the work. Its workers on other machines hold nothing, and go on
when it is killed. So each piece of work carries the fence under which it was given out, and a worker looks at the one that stands
right before a file appears and right after a block is marked.

On a disk nothing can slip through: a file appears by a rename, and whoever raises a fence sweeps half-written files afterwards, so that
a rename which comes too late finds its file gone. In an object store a put may come too late: there the marks of swept blocks count
only if they were made under the number of the sweep or a later one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.disk.places import Place
from pipeline.disk.records import DamagedRecordError, read_record, write_record

FENCE = "fence.json"


class RaisedFenceError(OSError):
    """The work was given out by a call that is over: another one writes in its place."""


@dataclass(frozen=True)
class Fence:
    """What a piece of work may be written under.

    Parameters
    ----------
    folder : Place
        Of the product in the ledger, such as runs/x/ledger/features/net_000 or runs/x/ledger/stats.
    number : int
        0 where none was ever raised.
    """

    folder: Place
    number: int

    @classmethod
    def standing(cls, folder: Place) -> Fence:
        """The one that stands now."""
        return cls(folder, _read(folder).get("number", 0))

    def check(self) -> None:
        """Raise a RaisedFenceError if another one stands by now."""
        if Fence.standing(self.folder).number != self.number:
            raise RaisedFenceError(
                f"{self.folder}: another call has begun to write this since this work was given out. "
                f"What is marked is kept: call again when the other is over"
            )


def raise_fence(folder: Place, swept: Iterable[int] = ()) -> Fence:
    """Let nothing be written any more but under the fence that is returned; the product's lock must be held.

    Parameters
    ----------
    folder : Place
    swept : iterable of int
        Numbers of the blocks whose marks count only if they are made from now on.

    Notes
    -----
    The number is the time in microseconds, or one more than the last: a store that was deleted and made again has another one, too.
    """
    number = max(time.time_ns() // 1000, _read(folder).get("number", 0) + 1)
    floors = {**lowest_numbers(folder), **dict.fromkeys(swept, number)}
    write_record(folder / FENCE, {"number": number, "swept": _runs(floors)})
    return Fence(folder, number)


def lowest_numbers(folder: Place) -> dict[int, int]:
    """Number of a block that was swept -> the lowest fence under which a mark of it counts."""
    return {index: number for first, last, number in _read(folder).get("swept", ()) for index in range(first, last + 1)}


def _read(folder: Place) -> dict[str, Any]:
    """A damaged one counts as none, so that no work under it is written; `atlas verify` tells."""
    try:
        return read_record(folder / FENCE)
    except DamagedRecordError:
        return {}


def _runs(floors: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """Neighbouring blocks of one number together: first, last, number."""
    runs: list[tuple[int, int, int]] = []
    for index, number in sorted(floors.items()):
        if runs and runs[-1][1:] == (index - 1, number):
            runs[-1] = (runs[-1][0], index, number)
        else:
            runs.append((index, index, number))
    return runs
