"""Pieces of a stage's work, and their results: plain values that can be sent to another process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Needs = Literal["cpu", "gpu"]


class Work(Protocol):
    """What a stage does, as plain values, so that it can be sent to another process."""

    def open(self, tell: Callable[[int], None]) -> Callable[[Any], Any]:
        """Make what all pieces share; called once in each process.

        What it returns does a piece, and calls `tell` with the progress it made, from whichever thread it is in.
        """


@dataclass(frozen=True)
class Batch:
    """Pieces that share what is expensive to make, such as a checkpoint's network: a process stays with a batch as long as it can."""

    name: str
    items: Sequence[Any]


@dataclass(frozen=True)
class Done:
    """A piece that is done: its batch, itself, its result, and who took how long for it."""

    batch: str
    item: Any
    result: Any
    worker: str = ""
    seconds: float = 0.0
