"""The group of a checkpoint as it is read: every byte is compared with what proves it.

One Zarr v3 group a checkpoint. Along `sample` an array's file (chunk, or shard of chunks) holds exactly one block, so
that blocks never share a file. Every chunk carries a crc32c, so that a flipped bit is an error and never a wrong pixel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from pipeline.disk.objects import telling
from pipeline.disk.places import Place, each, files_below, files_in, name_below
from pipeline.store.blocks import Block, Ledger, blocks_of, checksum_of
from pipeline.store.groups import METADATA, DamagedStoreError, check_version, read_json
from pipeline.store.seals import BrokenSealError, Seal
from pipeline.store.zarr_files import zarr_of
from stages.recent import Recent

_FEW = 4  # files that are asked for one by one, and not by a listing


class GroupReader:
    """One group of arrays with a common `sample` dim, its marks and its seal.

    Parameters
    ----------
    path : Place
        The store, for instance runs/x/features.zarr; its proofs lie beside it, in runs/x/ledger/features/<name>.
    name : str
        The group within it: a checkpoint.
    """

    def __init__(self, path: Place, name: str) -> None:
        self.path = path
        self.name = name
        self.root = path / name
        self.ledger = Ledger(path.parent / "ledger" / path.stem / name)
        self.seal = Seal(self.ledger.directory / "layout.json", self.root)
        self._group: zarr.Group | None = None
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def __str__(self) -> str:
        return f"{self.path}/{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Without what was opened: another process opens its own."""
        return type(self), (self.path, self.name)

    # ---- what it tells of itself

    @property
    def is_laid_out(self) -> bool:
        """Whether the group is there and its seal is closed."""
        return self.exists and self.seal.exists and not self.seal.is_open

    @property
    def lacks_files(self) -> bool:
        """Whether metadata or whole arrays are gone."""
        return not all(each(self.root, lambda name: (self.root / name).is_file(), self.seal.names))

    @property
    def exists(self) -> bool:
        """Whether the group was created."""
        return (self.root / METADATA).is_file()

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the group."""
        found: dict[str, Any] = json.loads(self._checked(METADATA))["attributes"]  # a tenth of the time that zarr takes to open it
        check_version(str(self), found)
        return found

    @property
    def blocks(self) -> list[Block]:
        """The blocks that the store was laid out in."""
        return blocks_of(self.attributes["samples"], self.attributes["block_samples"])

    # ---- values

    def held_by_array(self, keys: Iterable[str]) -> dict[str, set[int]]:
        """Key of an array -> numbers of the blocks whose files are there, by one listing an array; their content is checked when they are read."""
        listed = list(keys)

        def numbers(key: str) -> set[int]:
            return {number for path in files_in(self.root / key, "c.*") if (number := block_number(path)) is not None}

        return dict(zip(listed, each(self.root, numbers, listed), strict=True))

    def held_blocks(self, keys: Iterable[str]) -> set[int]:
        """Numbers of the blocks whose files are there of all these arrays."""
        held = self.held_by_array(keys)
        return set.intersection(*held.values()) if held else {block.index for block in self.blocks}

    def holds(self, block: Block, keys: Iterable[str]) -> bool:
        """Whether the files of one block are there of all these arrays."""
        return all(each(self.root, lambda key: self._file(key, block.index).is_file(), keys))

    def read(self, keys: Iterable[str], rows: slice = slice(None)) -> xr.Dataset:
        """Read arrays into memory; variables are named by their keys. Per-sample arrays are cut to `rows`.

        Raises
        ------
        DamagedStoreError
            If a chunk does not match its checksum, a whole block not its mark, or a file is missing.
        """
        chosen = list(keys)
        return xr.Dataset(dict(zip(chosen, self._read_all(chosen, rows), strict=True)))

    def values(self, key: str, rows: slice = slice(None)) -> NDArray[Any]:
        """Read one array into memory, as `read` does, without xarray: its first dataset takes half a second, which loads dask."""
        ((_, found),) = self._read_all([key], rows)
        return found

    def arrays(self, keys: Iterable[str], rows: slice = slice(None)) -> dict[str, NDArray[Any]]:
        """Read several arrays, as `values` does: key -> values. One mark speaks for all arrays of a block."""
        chosen = list(keys)
        return {key: found for key, (_, found) in zip(chosen, self._read_all(chosen, rows), strict=True)}

    def _read_all(self, keys: Sequence[str], rows: slice) -> list[tuple[tuple[str, ...], NDArray[Any]]]:
        marks: Recent[None, dict[int, dict[str, Any]]] = Recent(1)

        def mark_of(block: Block) -> dict[str, Any]:  # one speaks for all arrays of its block, and all are read at once
            return marks.get(None, lambda: self._marks_within(rows))[block.index]

        def read_one(key: str) -> tuple[tuple[str, ...], NDArray[Any]]:
            try:
                return self._read_array(key, rows, mark_of)
            except (ValueError, KeyError) as error:
                where = f"{self}/{key}" + ("" if rows == slice(None) else f", samples {rows.start} to {rows.stop - 1}")
                raise DamagedStoreError(
                    f"{where}: damaged or missing: {str(error).rstrip('.')}. "
                    f"Run `atlas verify --repair` and then the stage that writes it, or restore it"
                ) from error

        with suppress(ValueError, KeyError):  # what is wrong is told of each key
            self._open()  # once, and not by each of those that read at the same time
        return each(self.root, read_one, keys)

    def _read_array(self, key: str, rows: slice, mark_of: Callable[[Block], dict[str, Any]]) -> tuple[tuple[str, ...], NDArray[Any]]:
        array = self._array(key)
        dims = _dims(array)
        chosen = rows if dims[0] == "sample" else slice(None)
        self._refuse_missing_files(key, array, chosen)
        if not _is_cut_in_blocks(array):
            self.seal.check(name_below(self._file(key, 0), self.root))
        with telling(self):
            values = np.asarray(array[chosen])
        if _is_cut_in_blocks(array):
            self._compare_with_marks(key, values, chosen.indices(array.shape[0])[0], mark_of)
        return dims, values

    def _refuse_missing_files(self, key: str, array: zarr.Array[Any], rows: slice) -> None:
        """Zarr reads a file that is not there as the fill value; here every chunk was written, so that it is a loss."""
        length = (array.shards or array.chunks)[0]
        start, stop, _ = rows.indices(array.shape[0])
        numbers = range(start // length, -(-stop // length))
        if len(numbers) > _FEW:
            held = self.held_by_array([key])[key]
        else:
            there = each(self.root, lambda number: self._file(key, number).is_file(), numbers)
            held = {number for number, found in zip(numbers, there, strict=True) if found}
        for number in numbers:
            if number not in held:
                raise ValueError(f"the file of samples {number * length} and following is not there")

    def _compare_with_marks(self, key: str, values: NDArray[Any], start: int, mark_of: Callable[[Block], dict[str, Any]]) -> None:
        """Whole blocks must be those that were marked: a file with good checksums may still be another run's."""
        for block in self._whole_blocks(start, start + len(values)):
            made = mark_of(block).get("arrays", {}).get(key)
            if made is not None and made["crc32c"] != checksum_of(values[block.start - start : block.stop - start]):
                raise ValueError(f"samples {block.start} to {block.stop - 1} are foreign: not the values that were marked as written")

    def _marks_within(self, rows: slice) -> dict[int, dict[str, Any]]:
        """Number of a block -> its mark, of all blocks that lie wholly in some rows."""
        start, stop, _ = rows.indices(self.attributes["samples"])
        blocks = self._whole_blocks(start, stop)
        return {block.index: mark for block, mark in zip(blocks, self.ledger.records(blocks), strict=True)}

    def _whole_blocks(self, start: int, stop: int) -> list[Block]:
        size, samples = self.attributes["block_samples"], self.attributes["samples"]
        touched = (Block(number, number * size, min((number + 1) * size, samples)) for number in range(start // size, -(-stop // size)))
        return [block for block in touched if start <= block.start and block.stop <= stop]

    # ---- what is there

    def has(self, key: str) -> bool:
        """Whether there is an array of that key."""
        return bool(self.present([key]))

    def present(self, keys: Iterable[str]) -> set[str]:
        """Which of these arrays there are."""
        names = {f"{key}/{METADATA}": key for key in keys}
        listed = self.seal.listed(names)
        there = each(self.root, lambda name: (self.root / name).is_file(), listed)
        return {names[name] for name, found in zip(listed, there, strict=True) if found}

    def keys(self) -> list[str]:
        """Keys of the group's own arrays (not of its subgroups)."""
        return sorted(self._open().array_keys())

    def all_keys(self) -> list[str]:
        """Keys of all arrays, those of subgroups included."""
        sealed = set(self.seal.names) if self.seal.exists else None
        paths = [path for path in files_below(self.root, METADATA) if sealed is None or name_below(path, self.root) in sealed]
        kinds = each(self.root, lambda path: (read_json(path) or {}).get("node_type"), paths)
        return sorted(name_below(path.parent, self.root) for path, kind in zip(paths, kinds, strict=True) if kind == "array")

    def is_cut_in_blocks(self, key: str) -> bool:
        """Whether an array is written block by block; the others are whole, and sealed."""
        return _is_cut_in_blocks(self._array(key))

    def chunk_file(self, key: str, number: int) -> Place:
        """Place of the file with the samples of one block."""
        return self._file(key, number)

    def array_attributes(self, key: str) -> dict[str, Any]:
        """Attributes of an array, empty where there is none."""
        return self.attributes_by_array([key]).get(key, {})

    def attributes_by_array(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Key of an array -> its attributes, of those that there are."""
        there = sorted(self.present(keys))
        return dict(zip(there, each(self.root, lambda key: dict(self._array(key).attrs), there), strict=True))

    def lazy(self) -> xr.Dataset:
        """Open with xarray, one dask chunk per file; by the group's own metadata, which the seal vouches for."""
        consolidated = self._open().metadata.consolidated_metadata is not None  # not in schema version 1
        return xr.open_zarr(zarr_of(self.root), consolidated=consolidated, chunks={})

    def array(self, key: str) -> zarr.Array[Any]:
        """One array, opened; its values are read where they are indexed."""
        return self._array(key)

    def _open(self) -> zarr.Group:
        if self._group is None:
            check_version(str(self), self.attributes)
            with telling(self):
                self._group = zarr.open_group(zarr_of(self.path), path=self.name, mode="r", zarr_format=3)
        return self._group

    def _array(self, key: str) -> zarr.Array[Any]:
        if key not in self._arrays:
            group = self._open()
            if group.metadata.consolidated_metadata is None:
                self._check_metadata(f"{key}/{METADATA}")
            with telling(self):
                array = group[key]
            if not isinstance(array, zarr.Array):
                raise KeyError(f"{self}/{key}: a group; expected an array")
            self._arrays[key] = array
        return self._arrays[key]

    def _check_metadata(self, name: str) -> None:
        self._checked(name)

    def _checked(self, name: str) -> bytes:
        """The content of a small file, which must be the sealed one."""
        try:
            return self.seal.content(name)
        except BrokenSealError as error:
            raise DamagedStoreError(f"{error} Run `atlas verify --repair` and then the stage that writes it, or restore it") from None

    def _forget_open(self) -> None:
        self._group = None
        self._arrays = {}
        self.__dict__.pop("attributes", None)

    def _file(self, key: str, number: int) -> Place:
        """Arrays are cut along their first dim alone."""
        rest = ["0"] * (self._array(key).ndim - 1)
        return self.root / key / ".".join(["c", str(number), *rest])


def block_number(path: Place) -> int | None:
    """Number of the block that a file holds; None for any other file."""
    found = re.fullmatch(r"c\.(\d+)(\.0)*", path.name)
    return int(found[1]) if found else None


def _is_cut_in_blocks(array: zarr.Array[Any]) -> bool:
    return _dims(array)[0] == "sample" and array.dtype.kind in "biuf"


def _dims(array: zarr.Array[Any]) -> tuple[str, ...]:
    names: Any = getattr(array.metadata, "dimension_names", None)
    if names is None:
        raise ValueError(f"{array.store_path}: has no dimension names; it was not written by `atlas`")
    return tuple(names)
