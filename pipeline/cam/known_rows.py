"""Maps that are known although their block has to be made again: the dataset has grown, or other images of the block have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cam.blocks import slices_of
from pipeline.cam.pending import Pending
from pipeline.store.blocks import checksum_of
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import DamagedStoreError


@dataclass(frozen=True)
class KnownRows:
    """The slices of a block, and the maps of those whose features are still what they were made of.

    Attributes
    ----------
    slices : sequence of slice
        Of the whole block.
    start : int
        First image of the block.
    same : set of int
        First images of the slices that are known.
    values : mapping
        Key -> values of the images that the block had, float32 [n, ...]; empty where nothing is known.
    """

    slices: Sequence[slice]
    start: int
    same: frozenset[int]
    values: Mapping[str, NDArray[np.float32]]

    @classmethod
    def of(cls, features: GroupStore, cams: GroupStore, pending: Pending, stamps: Mapping[str, str]) -> KnownRows:
        """Look at what the mark of the block says of its former rows; nothing is known of a block that is one block of features.

        `stamps` are those that the maps must have, by the keys of their arrays.
        """
        block, origin = pending.block, pending.origin
        slices, record = slices_of(features, block), cams.ledger.record_of(block.index)
        was = record.get("made_of")
        if not isinstance(was, list) or not isinstance(origin, list) or record["rows"][0] != block.start:
            return cls(slices, block.start, frozenset(), {})
        same = frozenset(rows.start for rows, before, now in zip(slices, was, origin, strict=False) if before == now)
        found: dict[str, NDArray[np.float32]] = {}
        for map_key in pending.map_keys if same else ():
            found |= _former(cams, record, {key: stamps[key] for key in (map_key.key, map_key.facts_key)})
        return cls(slices, block.start, same, found)

    def read(self, rows: slice) -> dict[str, NDArray[np.float32]]:
        """Maps and facts of a slice, those that are known."""
        if rows.start not in self.same:
            return {}
        return {key: values[rows.start - self.start : rows.stop - self.start] for key, values in self.values.items()}


def _former(cams: GroupStore, record: Mapping[str, Any], stamps: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
    """The former rows of a map and its facts; nothing where one of them was made under another stamp, or is damaged."""
    made = record["arrays"]
    if any(made.get(key, {}).get("stamp") != stamp for key, stamp in stamps.items()):
        return {}
    try:
        found = {key: cams.values(key, slice(*record["rows"])) for key in stamps}
    except DamagedStoreError:
        return {}
    return found if all(checksum_of(values) == made[key]["crc32c"] for key, values in found.items()) else {}
