"""The places that a network learns to tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingPlace:
    """A class: its name and the photos of either view."""

    name: str
    satellite: tuple[Path, ...]
    drone: tuple[Path, ...]
