"""The heat maps that the settings ask for and the features of a checkpoint allow."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore
from stages.cam.map_keys import MapKey, StoredBlocks, left_out, map_keys_of
from stages.cam.names import block_number
from stages.targets.names import NO_TARGET


def wanted_map_keys(run: Run, name: str) -> list[MapKey]:
    """Products of a checkpoint whose features are extracted."""
    return map_keys_of(run.settings.cam, stored_blocks(run.features(name)))


def notes_on_left_out(run: Run, names: Sequence[str]) -> tuple[str, ...]:
    """Say which products that the settings ask for cannot be made of the stores, and what to do; one line per reason."""
    reasons: dict[str, list[MapKey]] = {}
    for map_key, why in left_out(run.settings.cam, stored_blocks(run.features(names[0]))).items() if names else ():
        reasons.setdefault(why, []).append(map_key)
    return tuple(f"left out: {_shown(map_keys)}: {why}" for why, map_keys in reasons.items())


def check_positions(run: Run, name: str) -> None:
    """Raise a ValueError that names a block of which class-free maps are asked for, and of which the checkpoint's features hold nothing."""
    features = run.features(name)
    stored = stored_blocks(features)
    given = {map_key.position for map_key in map_keys_of(run.settings.cam, stored)}
    for position in run.settings.cam.positions:
        number = block_number(position)
        absent = left_out(run.settings.cam, stored).items()
        why = next((why for map_key, why in absent if map_key.position == position and map_key.target == NO_TARGET), "")
        if number is not None and position not in given and why:
            raise ValueError(f"cam.positions: {position} is not in {features}, which holds maps of blocks {sorted(stored.maps)}: {why}")


def stored_blocks(features: GroupStore) -> StoredBlocks:
    """What a feature store holds of the transformer blocks."""
    there = features.present(["block", "gradient_target", "cls_attention", "block_rollout"])
    maps = features.values("block").tolist() if "block" in there else []
    gradients = {}
    if "gradient_target" in there:
        dims = features.arrays(["gradient_target", "gradient_block"])
        gradients = dict.fromkeys(dims["gradient_target"].tolist(), frozenset(dims["gradient_block"].tolist()))
    variables = frozenset(there & {"cls_attention", "block_rollout"})
    return StoredBlocks(frozenset(maps), gradients, variables)


def _shown(map_keys: Sequence[MapKey]) -> str:
    words = [f"{p.method} at {p.position}" if p.target == NO_TARGET else f"{p.method} of {p.target} at {p.position}" for p in map_keys]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")
