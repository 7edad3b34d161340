"""How a checkpoint's heat maps are cut: in longer blocks than the features, as a map is a thousandth of what it is made of."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.disk.stamps import stamp
from pipeline.features.finished import block_contents
from pipeline.features.state import layout_notes
from pipeline.run.directory import Run
from pipeline.store.blocks import Block, blocks_of
from pipeline.store.group_store import GroupStore

Origin = str | list[str]
"""What the maps of a block are made of: a digest for each block of features in it; of one alone the digest itself, as version 2 noted it."""


def wanted_block_samples(run: Run, features: GroupStore) -> int:
    """Images a file of maps, as the settings ask for them: complete blocks of features."""
    own: int = layout_notes(features)["block_samples"]
    return max(own, run.settings.cam.block_samples // own * own)


def map_blocks(run: Run, features: GroupStore, cams: GroupStore) -> list[Block]:
    """The blocks that maps lie in, or will lie in where there are none."""
    size = cams.attributes["block_samples"] if cams.is_laid_out else wanted_block_samples(run, features)
    return blocks_of(features.attributes["samples"], size)


def slices_of(features: GroupStore, block: Block) -> list[slice]:
    """Cut the images of a block of maps where the blocks of features end: so many are computed at once."""
    size: int = layout_notes(features)["block_samples"]
    starts = range(block.start // size * size, block.stop, size)
    return [slice(max(start, block.start), min(start + size, block.stop)) for start in starts]


def origins(features: GroupStore, blocks: Sequence[Block]) -> dict[Block, Origin]:
    """Say what the maps of some blocks must be made of: the values of the features, and the places of the images."""
    places, own = features.values("place").tolist(), features.blocks
    digests = [stamp([content, places[block.rows]]) for block, content in zip(own, block_contents(features, own), strict=True)]
    size = len(own[0]) if own else 1
    found = {block: digests[block.start // size : -(-block.stop // size)] for block in blocks}
    return {block: several[0] if len(several) == 1 else several for block, several in found.items()}
