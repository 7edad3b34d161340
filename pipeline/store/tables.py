"""Tables of figures: groups of small arrays that are written and read as a whole, such as stats.zarr/<checkpoint>."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec

from pipeline.disk.places import Place, each, files_below, name_below, remove_tree
from pipeline.disk.records import unchecked
from pipeline.disk.unchanged import Unchanged
from pipeline.store.fences import Fence
from pipeline.store.groups import METADATA, DamagedStoreError, attributes_in, check_version, make_root
from pipeline.store.seals import BrokenSealError, OpenSealError, Seal
from pipeline.store.zarr_files import FilesInMemory, write_files
from stages.schema import SCHEMA_VERSION

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
    return xr.open_zarr(FilesInMemory(files).store, consolidated=False, chunks=None).load()


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


def _files_below(root: Place) -> dict[str, bytes]:
    """Of a group without a seal, as schema version 1 made them."""
    paths = files_below(root, "*")
    return dict(zip((name_below(path, root) for path in paths), each(root, lambda path: path.read_bytes(), paths), strict=True))
