"""Tables of figures: groups of small arrays that are written and read as a whole, such as stats.zarr/<checkpoint>."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec

from pipeline.disk.places import Place, remove_tree
from pipeline.disk.records import unchecked
from pipeline.store.fences import Fence
from pipeline.store.groups import METADATA, DamagedStoreError, check_version, make_root
from pipeline.store.seals import Seal
from pipeline.store.zarr_files import FilesInMemory, write_files, zarr_of
from stages.schema import SCHEMA_VERSION


def dataset_seal(path: Place, group: str) -> Seal:
    """Seal of a group that `write_dataset` wrote."""
    return Seal(path.parent / "ledger" / path.stem / group / "layout.json", path / group)


def write_dataset(path: Place, group: str, dataset: xr.Dataset, attributes: Mapping[str, Any], fence: Fence | None = None) -> None:
    """Write a small dataset as a group of its own, replacing what was there; it counts when it is sealed.

    Raises
    ------
    RaisedFenceError
        If the work was given out under a fence, and another one stands by now.
    """
    check = unchecked if fence is None else fence.check
    make_root(path)
    seal = dataset_seal(path, group)
    check()
    seal.open()
    encoding = {name: {"compressors": [Crc32cCodec()]} for name in dataset.variables}
    made = FilesInMemory()
    without_attributes(dataset).to_zarr(made.store, mode="w", consolidated=False, zarr_format=3, encoding=encoding)
    zarr.open_group(made.store, mode="r+").attrs.update({"schema_version": SCHEMA_VERSION, **attributes})
    made.consolidate()
    remove_tree(seal.root)
    write_files(seal.root, made.files, check)
    check()
    seal.close(made.files)


def without_attributes(dataset: xr.Dataset) -> xr.Dataset:
    """Return the same values without any attribute, at once; `Dataset.drop_attrs` aligns all variables anew for each of them."""
    found = dataset.copy()
    found.attrs = {}
    for variable in found.variables.values():
        variable.attrs = {}
    return found


def read_dataset(path: Place, group: str) -> xr.Dataset:
    """Read a group of `write_dataset` into memory.

    Raises
    ------
    DamagedStoreError
        If a file is not the one that was written.
    """
    for found in dataset_seal(path, group).faults():
        raise DamagedStoreError(f"{found.where}: {found.kind}: {found.text}. Run `atlas verify --repair` and then `atlas stats`")
    return open_lazily(path, group).load()


def group_attributes(path: Place, group: str) -> dict[str, Any]:
    """Attributes of a group of `write_dataset`; empty where there is none, or it was not finished, or is damaged."""
    seal = dataset_seal(path, group)
    if not (path / group / METADATA).is_file() or (seal.exists and not seal.holds(METADATA)):
        return {}
    found: dict[str, Any] = json.loads((path / group / METADATA).read_bytes())["attributes"]
    check_version(f"{path}/{group}", found)
    return found


def open_lazily(path: Place, group: str) -> xr.Dataset:
    """Open a group with xarray; values are read where they are used."""
    return xr.open_zarr(zarr_of(path), group=group or None, consolidated=False, chunks={})
