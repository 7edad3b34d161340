"""What a block of heat maps lacks."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.cam.blocks import Origin
from pipeline.store.blocks import Block
from stages.cam.map_keys import MapKey


@dataclass(frozen=True)
class Pending:
    """Maps that a block lacks, and what they are made of."""

    block: Block
    map_keys: tuple[MapKey, ...]
    origin: Origin
