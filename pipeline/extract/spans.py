"""Spans of blocks: what one process of the extract stage takes at once, and what it answers; nothing here imports the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.extract.known_rows import KnownRows
from pipeline.features.bad_images import BadImage
from pipeline.store.blocks import Block
from pipeline.store.fences import Fence
from pipeline.store.group_store import GroupStore
from stages.extract.settings import Precision


@dataclass(frozen=True)
class FeatureSpan:
    """Blocks of one checkpoint, and all that a process needs to make them.

    Attributes
    ----------
    name : str
        Of the checkpoint.
    path : Path
        Its file.
    digest : str
        Of the file's bytes, as the stamp has it.
    store : GroupStore
        Laid out already.
    fence : Fence
        Under which it is given out.
    stamp : str
        Of the blocks.
    precision : str
        Of the transformer, as the stamp has it; this process's own choice might be another.
    blocks : tuple of Block
    known : KnownRows
        Rows that need not be computed.
    void : mapping
        Images that were void before -> why, those of these blocks among them: they are tried again.
    bad : mapping
        Images that are void in the blocks that are done, or were listed as bad -> why.
    """

    name: str
    path: Path
    digest: str
    store: GroupStore
    fence: Fence
    stamp: str
    precision: Precision
    blocks: tuple[Block, ...]
    known: KnownRows
    void: Mapping[str, BadImage]
    bad: Mapping[str, BadImage]

    def __len__(self) -> int:
        """Images."""
        return sum(len(block) for block in self.blocks)


@dataclass
class SpanReport:
    """What became of a span: the images that are bad now."""

    bad: dict[str, BadImage] = field(default_factory=dict)
