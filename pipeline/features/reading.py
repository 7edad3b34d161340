"""Reading the stored features of a checkpoint. An aligned map that was not stored is rebuilt; readers see no difference."""

from __future__ import annotations

from collections.abc import Iterable

import xarray as xr

from pipeline.store.group_store import GroupStore
from stages.cam.frames import derive_aligned
from stages.schema import SAMPLE_TEXTS

_DERIVED_FROM = ("patch_map", "source_cell")


def read_features(store: GroupStore, names: Iterable[str], rows: slice = slice(None)) -> xr.Dataset:
    """Read variables of some samples into memory."""
    wanted = set(names)
    derived = "aligned_map" in wanted and not store.has("aligned_map")
    found = store.read(sorted(wanted - {"aligned_map"} | set(_DERIVED_FROM) if derived else wanted), rows)
    if derived:
        found["aligned_map"] = derive_aligned(found["patch_map"], found["source_cell"])
    return found[sorted(wanted)]


def open_features(store: GroupStore) -> xr.Dataset:
    """Open all features lazily, with the store's per-sample texts as coordinates."""
    found = store.lazy()
    if "aligned_map" not in found:
        found["aligned_map"] = derive_aligned(found["patch_map"], found["source_cell"])
    texts = [name for name in SAMPLE_TEXTS if name in found]
    return found.assign_coords({name: found[name].load() for name in texts})  # in memory: what samples are chosen by
