"""Bringing heat maps over into blocks of another length: what version 2 stored is copied, and not computed again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from pipeline.cam.blocks import Origin, origins
from pipeline.cam.layout import lay_out_group, layouts_of
from pipeline.store.blocks import Block, blocks_of
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import DamagedStoreError
from pipeline.store.replacing import replacement_of, swap_in
from pipeline.work.stops import check_stop
from stages.cam.facts import FACTS
from stages.cam.map_keys import FACTS_PREFIX, MapKey


def bring_over(features: GroupStore, cams: GroupStore, block_samples: int) -> None:
    """Write a checkpoint's maps into blocks of `block_samples` images; the group's lock must be held.

    The new group is made beside the old one and takes its place when it is complete. What no mark proves, and what was made of other features, is
    left out: the stage computes it.
    """
    stamps = {key: str(found.get("stamp")) for key, found in cams.attributes_by_array(_keys_of_maps(cams)).items()}
    samples, following, noted = cams.attributes["samples"], replacement_of(cams), cams.ledger.whole()
    made_of = origins(features, blocks_of(samples, block_samples))
    proven = _proven(features, cams, [MapKey.parse(key) for key in stamps], stamps)
    chosen = {block: _of_all([found for old, found in proven.items() if old.start < block.stop and old.stop > block.start]) for block in made_of}
    following.clear()
    lay_out_group(features, following, samples, block_samples, cams.attributes.get("exactness"))
    following.add_arrays(layouts_of(features, following, sorted(set().union(*chosen.values())), stamps))
    brought = [_bring_block(cams, following, block, origin, sorted(chosen[block]), stamps) for block, origin in made_of.items()]
    if noted:
        kept = {map_key.key for map_key in _of_all(brought)}
        following.ledger.mark_whole({**noted, "products": {key: made for key, made in noted["products"].items() if key in kept}})
    swap_in(cams)


def _keys_of_maps(cams: GroupStore) -> list[str]:
    """Of those whose facts are there, too, and are today's: earlier versions had fewer."""
    keys = cams.all_keys()
    with_facts = [key for key in keys if f"{FACTS_PREFIX}{key}" in keys]
    return [key for key in with_facts if cams.described(f"{FACTS_PREFIX}{key}").shape[1] == len(FACTS)]


def _of_all(found: Sequence[set[MapKey]]) -> set[MapKey]:
    return set.intersection(*found) if found else set()


def _proven(features: GroupStore, cams: GroupStore, map_keys: Sequence[MapKey], stamps: Mapping[str, str]) -> dict[Block, set[MapKey]]:
    """Block as it was -> maps of it that its mark proves, of the features as they are."""
    made_of = origins(features, cams.blocks)
    records = cams.ledger.records(cams.blocks)
    held = cams.held_by_array(key for map_key in map_keys for key in (map_key.key, map_key.facts_key))
    return {
        block: {p for p in _marked(record, map_keys, stamps) if all(block.index in held[key] for key in (p.key, p.facts_key))}
        if record.get("made_of") == made_of[block]
        else set()
        for block, record in zip(cams.blocks, records, strict=True)
    }


def _marked(record: Mapping[str, Any], map_keys: Sequence[MapKey], stamps: Mapping[str, str]) -> Iterator[MapKey]:
    made = record.get("arrays", {})
    for map_key in map_keys:
        if all(made.get(key, {}).get("stamp") == stamps[map_key.key] for key in (map_key.key, map_key.facts_key)):
            yield map_key


def _bring_block(
    cams: GroupStore, following: GroupStore, block: Block, origin: Origin, map_keys: Sequence[MapKey], stamps: Mapping[str, str]
) -> set[MapKey]:
    """Copy one block; return which maps were sound."""
    check_stop()
    arrays: dict[str, NDArray[Any]] = {}
    brought = set()
    for map_key in map_keys:
        try:
            arrays |= {key: cams.values(key, block.rows) for key in (map_key.key, map_key.facts_key)}
            brought.add(map_key)
        except DamagedStoreError:
            continue
    if arrays:
        following.write_block(block, arrays, {key: stamps[key.removeprefix(FACTS_PREFIX)] for key in arrays}, made_of=origin)
    return brought
