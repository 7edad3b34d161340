"""A share of a stage's work by number, for jobs that talk to no scheduler: `--part 3/16`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """Part `number` of `count`, the first is 1.

    The assignment is static: it depends on the list of all units of work, done or not, and so is the same in every job
    and at every call.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"--part {self}: part {self.number} of {self.count} does not exist; expected K/N with K from 1 to N")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read "3/16"; a ValueError says what was expected."""
        if not (found := re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)):
            raise ValueError(f"--part {text}: expected K/N, such as 3/16")
        return cls(int(found[1]), int(found[2]))

    @property
    def is_whole(self) -> bool:
        """Whether there are no other parts."""
        return self.count == 1

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Its items: consecutive ones, so that a part meets as few checkpoints as can be."""
        return items[len(items) * (self.number - 1) // self.count : len(items) * self.number // self.count]


WHOLE = Share()
