"""Tables of figures: groups of small arrays that are written and read as a whole, such as stats.zarr/<checkpoint>."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from pipeline.disk.places import Place, each, files_below, name_below, remove_tree
from pipeline.disk.records import unchecked
from pipeline.disk.unchanged import Unchanged
from pipeline.store.fences import Fence
from pipeline.store.groups import CONSOLIDATED, METADATA, DamagedStoreError, attributes_in, check_version, make_root
from pipeline.store.layout import ArrayLayout
from pipeline.store.seals import BrokenSealError, OpenSealError, Seal
from pipeline.store.stored_arrays import StoredArray, decoded
from pipeline.store.zarr_files import consolidated, group_files, write_files
from stages.schema import SCHEMA_VERSION, Variable

_COORDINATES = "coordinates"  # CF conventions, section 5: names of a variable's coordinates that are no dims

_READ: Unchanged[dict[str, Any]] = Unchanged(1024)


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
    files = group_files(_layouts(dataset), {"schema_version": SCHEMA_VERSION, **attributes})
    files[METADATA] = consolidated(files)
    remove_tree(seal.root)
    write_files(seal.root, files, check)
    check()
    seal.close(files)


def without_attributes(dataset: xr.Dataset) -> xr.Dataset:
    """Return the same values without any attribute, at once; `Dataset.drop_attrs` aligns all variables anew for each of them."""
    found = dataset.copy()
    found.attrs = {}
    for variable in found.variables.values():
        variable.attrs = {}
    return found


def read_dataset(path: Place, group: str) -> xr.Dataset:
    """Read a group of `write_dataset` into memory, from the very bytes that its seal was checked against.

    Raises
    ------
    DamagedStoreError
        If a file is not the one that was written, or the group is just being written.
    """
    seal = dataset_seal(path, group)
    try:
        files = seal.contents() if seal.exists else _files_below(seal.root)
    except OpenSealError as error:
        raise DamagedStoreError(f"{error} Wait for the process that writes it, or run `atlas stats`") from None
    except BrokenSealError as error:
        raise DamagedStoreError(f"{error} Run `atlas verify --repair` and then `atlas stats`") from None
    return _dataset(f"{path}/{group}", files)


def group_attributes(path: Place, group: str) -> dict[str, Any]:
    """Attributes of a group of `write_dataset`; empty where there is none, or it was not finished, or is damaged."""
    seal, metadata = dataset_seal(path, group), path / group / METADATA

    def read() -> dict[str, Any]:
        if not metadata.is_file() or (seal.exists and not seal.holds(METADATA)):
            return {}
        return attributes_in(metadata.read_bytes())

    found = dict(_READ.get(read, metadata, seal.path))
    check_version(f"{path}/{group}", found)
    return found


def is_made_of(path: Place, group: str, mark: str) -> bool:
    """Whether a group of `write_dataset` has this stamp, and its files are those that were written: see `Seal.is_changed`."""
    return group_attributes(path, group).get("stamp") == mark and not dataset_seal(path, group).is_changed()


def _files_below(root: Place) -> dict[str, bytes]:
    """Of a group without a seal, as schema version 1 made them."""
    paths = files_below(root, "*")
    return dict(zip((name_below(path, root) for path in paths), each(root, lambda path: path.read_bytes(), paths), strict=True))


def _layouts(dataset: xr.Dataset) -> list[ArrayLayout]:
    """Every variable as an array of one file; what `Dataset.to_zarr` would write, but for fill values, which nothing here needs."""
    apart = [str(name) for name in dataset.coords if name not in dataset.dims]

    def layout(name: str, variable: xr.Variable) -> ArrayLayout:
        dtype = "str" if variable.dtype.kind in "OU" else str(variable.dtype)
        dims, chunk = tuple(map(str, variable.dims)), tuple(max(1, length) for length in variable.shape)
        beside = [one for one in apart if set(dataset[one].dims) <= set(dims)] if name not in dataset.coords else []
        told = {_COORDINATES: " ".join(beside)} if beside else {}
        return ArrayLayout(name, Variable(name, dims, dtype, ""), dtype, variable.shape, chunk, values=variable.values, attributes=told)

    return [layout(str(name), variable) for name, variable in dataset.variables.items()]


def _dataset(where: str, files: Mapping[str, bytes]) -> xr.Dataset:
    """Take a group's files for what they hold; those of earlier versions, which cut names otherwise, go through zarr."""
    group = json.loads(files[METADATA])
    metadata = dict(group.get(CONSOLIDATED) or {}).get("metadata", {})
    arrays = {name: StoredArray.of(f"{where}/{name}", found) for name, found in metadata.items()}
    if not arrays or not all(array.is_plain for array in arrays.values()):
        from pipeline.store.with_zarr import read_group

        return read_group(files)
    variables = {name: xr.Variable(array.dims, _values(array, name, files)) for name, array in arrays.items()}
    beside = {one for array in arrays.values() for one in array.attributes.get(_COORDINATES, "").split()}
    coords = {name: variable for name, variable in variables.items() if name in beside or variable.dims == (name,)}
    return xr.Dataset({name: variable for name, variable in variables.items() if name not in coords}, coords, group["attributes"])


def _values(array: StoredArray, name: str, files: Mapping[str, bytes]) -> np.ndarray:
    """Nothing is written of an array without entries."""
    if 0 in array.shape:
        return np.empty(array.shape, array.dtype)
    return decoded(files[f"{name}/{array.file_name(0)}"], array).copy()
