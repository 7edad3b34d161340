"""What a stage did, in a line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What a stage did.

    Attributes
    ----------
    stage : str
    computed, fresh : int
        How much was made in this call, and how much was there already.
    unit : str
        What is counted, in the plural.
    notes : tuple of str
        Lines below the first.
    """

    stage: str
    computed: int
    fresh: int
    unit: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        work = f"{self.computed} {self.unit} computed" if self.computed else "nothing to compute"
        return f"{self.stage}: {work}, {self.fresh} up to date" + "".join(f"\n  {note}" for note in self.notes)
