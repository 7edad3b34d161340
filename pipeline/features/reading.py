"""Reading the stored features of a checkpoint. An aligned map that was not stored is rebuilt; readers see no difference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import xarray as xr
from numpy.typing import NDArray

from pipeline.store.group_store import GroupStore
from pipeline.store.stored_arrays import StoredArray
from stages.cam.frames import copy_cells
from stages.schema import SAMPLE_TEXTS

_DERIVED_FROM = ("patch_map", "source_cell")


def feature_arrays(store: GroupStore, names: Iterable[str], rows: slice = slice(None)) -> dict[str, NDArray[Any]]:
    """Read variables of some samples into memory, without xarray: its first dataset loads dask, which takes half a second."""
    wanted = set(names)
    derived = "aligned_map" in wanted and not store.has("aligned_map")
    found = store.arrays(sorted(wanted - {"aligned_map"} | set(_DERIVED_FROM) if derived else wanted), rows)
    if derived:
        found["aligned_map"] = copy_cells(found["patch_map"], found["source_cell"])
    return {name: found[name] for name in sorted(wanted)}


def read_features(store: GroupStore, names: Iterable[str], rows: slice = slice(None)) -> xr.Dataset:
    """Read variables of some samples into memory, labelled."""
    found = feature_arrays(store, names, rows)
    return xr.Dataset({name: (store.described("patch_map" if name == "aligned_map" else name).dims, values) for name, values in found.items()})


def describe_features(store: GroupStore) -> dict[str, StoredArray]:
    """Describe every variable of a checkpoint's features, without reading a value."""
    found = {key: store.described(key) for key in store.own_keys()}
    if "aligned_map" not in found:
        found["aligned_map"] = replace(found["patch_map"], attributes={})
    return found


def sample_texts(store: GroupStore) -> dict[str, xr.Variable]:
    """Read the texts of each sample that the store has: what samples are chosen by."""
    names = [name for name in SAMPLE_TEXTS if store.has(name)]
    found = store.read(names)
    return {name: xr.Variable(("sample",), found[name].values, dict(store.described(name).attributes)) for name in names}
