"""The stores on disk; the only module that touches zarr.

One Zarr v3 group a checkpoint. Along `sample` an array's file (chunk, or shard of chunks) holds exactly one block, so
that blocks never share a file. Every chunk carries a crc32c, so that a flipped bit is an error and never a wrong pixel.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from pipeline.blocks import Block, blocks_of
from stages.schema import Variable

_FLUSHES = 8

zarr.config.set({"array.write_empty_chunks": True})  # a chunk that exists was written


class GroupStore:
    """One group of arrays with a common `sample` dim.

    Parameters
    ----------
    path : Path
        The store, for instance runs/x/features.zarr.
    name : str
        The group within it: a checkpoint.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._group: zarr.Group | None = None

    def __str__(self) -> str:
        return f"{self.path}/{self.name}"

    @property
    def exists(self) -> bool:
        """Whether the group was created."""
        return (self.path / self.name / "zarr.json").is_file()

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the group."""
        return dict(self._open().attrs)

    @property
    def blocks(self) -> list[Block]:
        """The blocks that the store was laid out in."""
        attributes = self.attributes
        return blocks_of(attributes["samples"], attributes["block_samples"])

    def create(self, samples: int, block_samples: int, attributes: Mapping[str, Any]) -> None:
        """Make the group anew, empty."""
        self.remove()
        zarr.open_group(self.path, mode="a", zarr_format=3)
        self._group = zarr.create_group(self.path, path=self.name, zarr_format=3)
        self._group.attrs.update({**attributes, "samples": samples, "block_samples": block_samples})

    def remove(self) -> None:
        """Delete the group if it is there."""
        shutil.rmtree(self.path / self.name, ignore_errors=True)
        self._group = None

    def add_array(
        self, key: str, variable: Variable, dtype: str, sizes: Mapping[str, int], chunk_samples: int = 0, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Make an array, replacing one of that key; per-sample arrays get one file a block."""
        shape = tuple(sizes[dim] for dim in variable.dims)
        block = self.attributes["block_samples"]
        chunk, shard = shape, None
        if variable.per_sample and dtype != "str":
            whole = (min(block, shape[0]) or 1, *shape[1:])
            sharded = 0 < chunk_samples < whole[0] and whole[0] % chunk_samples == 0
            chunk, shard = ((chunk_samples, *shape[1:]), whole) if sharded else (whole, None)
        described = {
            "long_name": variable.long_name,
            "units": variable.units,
            **({"frame": variable.frame} if variable.frame else {}),
            **(attributes or {}),
        }
        self._open().create_array(
            key,
            shape=shape,
            chunks=tuple(max(1, length) for length in chunk),
            shards=shard,
            dtype=dtype,
            compressors=[Crc32cCodec()],
            fill_value=_fill_value(dtype),
            chunk_key_encoding={"name": "default", "separator": "."},  # one folder an array, not one a chunk
            dimension_names=variable.dims,
            attributes=described,
            overwrite=True,
        )

    def write(self, key: str, values: NDArray[Any], rows: slice = slice(None)) -> None:
        """Write whole blocks of one array (or all of it)."""
        array = self._array(key)
        if rows != slice(None):
            block = self.attributes["block_samples"]
            if rows.start % block or (rows.stop % block and rows.stop != array.shape[0]):
                raise ValueError(f"{self}/{key}: rows {rows.start}:{rows.stop} are not whole blocks of {block} samples")
        array[rows] = values

    def flush(self, keys: Iterable[str], block: Block) -> None:
        """Wait until a block's files, and their names, are on the disk; zarr itself never does."""
        files = [self._file(key, block.index) for key in keys]
        paths = [path for file in files for path in (file, file.parent)]
        with ThreadPoolExecutor(_FLUSHES) as pool:  # the disk takes many flushes in the time of one
            list(pool.map(_fsync, paths))

    def holds(self, keys: Iterable[str], block: Block) -> bool:
        """Whether the files of a block are there; their content is checked when they are read."""
        return all(self.has(key) and self._file(key, block.index).exists() for key in keys)

    def read(self, keys: Iterable[str], rows: slice = slice(None)) -> xr.Dataset:
        """Read arrays into memory; variables are named by their keys. Per-sample arrays are cut to `rows`."""
        found = {}
        for key in keys:
            try:
                found[key] = self._read_array(key, rows)
            except (ValueError, KeyError) as error:
                where = f"{self}/{key}" + ("" if rows == slice(None) else f", samples {rows.start} to {rows.stop - 1}")
                reason = str(error).rstrip(".")
                raise DamagedStoreError(
                    f"{where}: damaged or missing: {reason}. Delete the damaged file and run the stage that writes it again, or restore it"
                ) from error
        return xr.Dataset(found)

    def _read_array(self, key: str, rows: slice) -> tuple[tuple[str, ...], NDArray[Any]]:
        array = self._array(key)
        dims = _dims(array)
        chosen = rows if dims[0] == "sample" else slice(None)
        self._refuse_missing_files(key, array, chosen)
        return dims, np.asarray(array[chosen])

    def _refuse_missing_files(self, key: str, array: zarr.Array[Any], rows: slice) -> None:
        """Zarr reads a file that is not there as the fill value; here every chunk was written, so that it is a loss."""
        length = (array.shards or array.chunks)[0]
        start, stop, _ = rows.indices(array.shape[0])
        for number in range(start // length, -(-stop // length)):
            if not self._file(key, number).exists():
                raise ValueError(f"the file of samples {number * length} and following is not there")

    def has(self, key: str) -> bool:
        """Whether there is an array of that key."""
        return (self.path / self.name / key / "zarr.json").is_file()

    def keys(self) -> list[str]:
        """Keys of the group's own arrays (not of its subgroups)."""
        return sorted(self._open().array_keys())

    def array_attributes(self, key: str) -> dict[str, Any]:
        """Attributes of an array, empty where there is none."""
        return dict(self._array(key).attrs) if self.has(key) else {}

    def update_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes of the group."""
        self._open().attrs.update(attributes)

    def lazy(self, group: str = "") -> xr.Dataset:
        """Open with xarray, one dask chunk a file."""
        return open_lazily(self.path, f"{self.name}/{group}" if group else self.name)

    def _open(self) -> zarr.Group:
        if self._group is None:
            self._group = zarr.open_group(self.path, path=self.name, mode="r+" if self.exists else "r")
        return self._group

    def _file(self, key: str, number: int) -> Path:
        """Path of the file with the samples of one block; arrays are cut along their first dim alone."""
        rest = ["0"] * (self._array(key).ndim - 1)
        return self.path / self.name / key / ".".join(["c", str(number), *rest])

    def _array(self, key: str) -> zarr.Array[Any]:
        array = self._open()[key]
        assert isinstance(array, zarr.Array)
        return array


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _dims(array: zarr.Array[Any]) -> tuple[str, ...]:
    names: Any = getattr(array.metadata, "dimension_names", None)
    if names is None:
        raise ValueError(f"{array.store_path}: has no dimension names; it was not written by `atlas`")
    return tuple(names)


class DamagedStoreError(ValueError):
    """Bytes of a store that do not match their checksum."""


def open_lazily(path: Path, group: str) -> xr.Dataset:
    """Open a group with xarray; values are read where they are used."""
    return xr.open_zarr(path, group=group or None, consolidated=False, chunks={})


def write_dataset(path: Path, group: str, dataset: xr.Dataset, attributes: Mapping[str, Any]) -> None:
    """Write a small dataset as a group of its own, replacing what was there."""
    encoding = {name: {"compressors": [Crc32cCodec()]} for name in dataset.variables}
    dataset.drop_attrs().to_zarr(path, group=group, mode="w", consolidated=False, zarr_format=3, encoding=encoding)
    zarr.open_group(path, path=group, mode="r+").attrs.update(attributes)  # last: a stamp says that the data is there


def group_attributes(path: Path, group: str) -> dict[str, Any]:
    """Attributes of a group, empty where there is none."""
    if not (path / group / "zarr.json").is_file():
        return {}
    return dict(zarr.open_group(path, path=group, mode="r").attrs)


def group_names(path: Path) -> list[str]:
    """Names of the groups right under the store's root."""
    if not path.is_dir():
        return []
    return sorted(entry.name for entry in path.iterdir() if (entry / "zarr.json").is_file())


def bytes_on_disk(path: Path) -> int:
    """Size of all files under `path`."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _fill_value(dtype: str) -> Any:
    return "" if dtype == "str" else np.zeros((), dtype).item()


def checkpoint_order(epochs: Mapping[str, int | None]) -> list[str]:
    """Sort checkpoint names by epoch, then by name; those without an epoch come last."""
    return sorted(epochs, key=lambda name: (epochs[name] is None, epochs[name] or 0, name))
