"""What one process of the pixels stage takes at once, and what it returns; nothing here imports the network."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.pixels.inputs import CurveInputs


@dataclass(frozen=True)
class CurvePiece:
    """A checkpoint, and the images that its curves are measured on, by number."""

    inputs: CurveInputs
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """The result of a piece: on how many images, and what is said about it."""

    images: int
    note: str
