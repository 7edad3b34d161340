"""The group of a checkpoint as it is read: every byte is compared with what proves it.

One Zarr v3 group a checkpoint. Along `sample` an array's file (chunk, or shard of chunks) holds exactly one block, so
that blocks never share a file. Every chunk carries a crc32c, so that a flipped bit is an error and never a wrong pixel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.disk.objects import telling
from pipeline.disk.places import Place, changed_ns, each, file_names_in, files_below, files_there, name_below
from pipeline.disk.unchanged import Unchanged
from pipeline.store.blocks import Block, Ledger, blocks_of, checksum_of
from pipeline.store.groups import METADATA, DamagedStoreError, attributes_in, check_version, read_json
from pipeline.store.seals import BrokenSealError, Seal
from pipeline.store.stored_arrays import StoredArray, decoded, read_rows
from stages.recent import Recent

_BLOCK_FILE = re.compile(r"c\.(\d+)(\.0)*")
_READ: Unchanged[dict[str, Any]] = Unchanged(1024)


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
        self._described: dict[str, StoredArray] = {}

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
        names = self.seal.names
        return len(files_there(self.root, names)) < len(names)

    @property
    def exists(self) -> bool:
        """Whether the group was created."""
        return (self.root / METADATA).is_file()

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the group."""
        found = dict(_READ.get(lambda: attributes_in(self._checked([METADATA])[METADATA]), self.root / METADATA, self.seal.path))
        check_version(str(self), found)
        return found

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        """Of the group, and of its arrays where they are consolidated."""
        found: dict[str, Any] = json.loads(self._checked([METADATA])[METADATA])
        return found

    @property
    def blocks(self) -> list[Block]:
        """The blocks that the store was laid out in."""
        return blocks_of(self.attributes["samples"], self.attributes["block_samples"])

    # ---- values

    def held_by_array(self, keys: Iterable[str], noted: Container[str] = ()) -> dict[str, set[int]]:
        """Key of an array -> numbers of the blocks whose files are there; their content is checked when they are read.

        Parameters
        ----------
        keys : iterable of str
        noted : container of str
            Arrays that had all their files when the whole was noted. Only those are listed whose folder has changed since: a file that comes or goes
            changes its folder's time.
        """
        listed, since = list(keys), self.ledger.whole_noted_ns if noted else None
        everything = set() if since is None else {block.index for block in self.blocks}

        def numbers(key: str) -> set[int]:
            if since is not None and key in noted and 0 < changed_ns(self.root / key) < since:
                return everything
            return {number for name in file_names_in(self.root / key) if (number := block_number(name)) is not None}

        return dict(zip(listed, each(self.root, numbers, listed), strict=True))

    def held_blocks(self, keys: Iterable[str], noted: Container[str] = ()) -> set[int]:
        """Numbers of the blocks whose files are there of all these arrays; parameters as in `held_by_array`."""
        held = self.held_by_array(keys, noted)
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

    def arrays(self, keys: Iterable[str], rows: slice = slice(None)) -> dict[str, NDArray[Any]]:
        """Read arrays into memory, as `read` does, without xarray, which takes longer than a small file."""
        chosen = list(keys)
        return {key: values for key, (_, values) in zip(chosen, self._read_all(chosen, rows), strict=True)}

    def values(self, key: str, rows: slice = slice(None)) -> NDArray[Any]:
        """Read one array into memory, as `read` does, without xarray: its first dataset takes half a second, which loads dask."""
        ((_, found),) = self._read_all([key], rows)
        return found

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
            self._describe(keys)  # at once, and not by each of those that read at the same time
        return each(self.root, read_one, keys)

    def _read_array(self, key: str, rows: slice, mark_of: Callable[[Block], dict[str, Any]]) -> tuple[tuple[str, ...], NDArray[Any]]:
        array = self.described(key)
        chosen = rows if array.dims[0] == "sample" else slice(None)
        if not array.is_cut_in_blocks:
            return array.dims, self._read_whole(key, array)[chosen]
        start, stop, _ = chosen.indices(array.shape[0])
        values = self._read_rows(key, array, start, stop)
        self._compare_with_marks(key, values, start, mark_of)
        return array.dims, values

    def _read_whole(self, key: str, array: StoredArray) -> NDArray[Any]:
        """An array that is one file, which is sealed."""
        name = f"{key}/{array.file_name(0)}"
        content = self._checked([name])[name]
        if array.is_plain and array.shape[0] <= array.file_samples:
            return decoded(content, array)[: array.shape[0]].copy()
        return self._read_with_zarr(key, slice(None))

    def _read_rows(self, key: str, array: StoredArray, start: int, stop: int) -> NDArray[Any]:
        """Read what is cut in blocks. Every file was written: one that is not there is a loss."""
        found = np.empty((max(0, stop - start), *array.shape[1:]), array.dtype)
        length = array.file_samples

        def read(number: int) -> None:
            low, high = max(start, number * length), min(stop, (number + 1) * length)
            file = self.root / key / array.file_name(number)
            try:
                found[low - start : high - start] = read_rows(file, array, low - number * length, high - number * length)
            except FileNotFoundError:
                raise ValueError(f"the file of samples {number * length} and following is not there") from None

        if array.is_plain:
            each(self.root, read, array.files_of(start, stop))
            return found
        held = self.held_by_array([key])[key]
        for number in array.files_of(start, stop):
            if number not in held:
                raise ValueError(f"the file of samples {number * length} and following is not there")
        return self._read_with_zarr(key, slice(start, stop))

    def _read_with_zarr(self, key: str, rows: slice) -> NDArray[Any]:
        """Read what `atlas` does not write, or wrote otherwise in an earlier version."""
        from pipeline.store.with_zarr import read_array

        with telling(self):
            return read_array(self.root / key, rows)

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
        return {names[name] for name in files_there(self.root, self.seal.listed(names))}

    def own_keys(self) -> list[str]:
        """Keys of the group's own arrays (not of its subgroups)."""
        return [key for key in self.all_keys() if "/" not in key]

    def all_keys(self) -> list[str]:
        """Keys of all arrays, those of subgroups included."""
        sealed = set(self.seal.names) if self.seal.exists else None
        paths = [path for path in files_below(self.root, METADATA) if sealed is None or name_below(path, self.root) in sealed]
        kinds = each(self.root, lambda path: (read_json(path) or {}).get("node_type"), paths)
        return sorted(name_below(path.parent, self.root) for path, kind in zip(paths, kinds, strict=True) if kind == "array")

    def is_cut_in_blocks(self, key: str) -> bool:
        """Whether an array is written block by block; the others are whole, and sealed."""
        return self.described(key).is_cut_in_blocks

    def chunk_file(self, key: str, number: int) -> Place:
        """Place of the file with the samples of one block."""
        return self._file(key, number)

    def array_attributes(self, key: str) -> dict[str, Any]:
        """Attributes of an array, empty where there is none."""
        return self.attributes_by_array([key]).get(key, {})

    def attributes_by_array(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Key of an array -> its attributes, of those that there are."""
        there = sorted(self.present(keys))
        self._describe(there)
        return {key: dict(self.described(key).attributes) for key in there}

    def lazy(self) -> xr.Dataset:
        """Open with xarray, one dask chunk per file; by the group's own metadata, which the seal vouches for."""
        from pipeline.store.with_zarr import open_group

        consolidated = self._consolidated is not None  # not in schema version 1
        with telling(self):
            return open_group(self.root, consolidated=consolidated)

    def described(self, key: str) -> StoredArray:
        """What the metadata say of an array.

        Raises
        ------
        KeyError
            If there is none of that key.
        DamagedStoreError
            If its metadata are not those that were sealed.
        """
        self._describe([key])
        return self._described[key]

    def _describe(self, keys: Iterable[str]) -> None:
        """Read the metadata of arrays, checked; several at a time."""
        new = [key for key in keys if key not in self._described]
        if not new:
            return
        if (consolidated := self._consolidated) is not None:
            found = {key: consolidated[key] for key in new}
        else:
            contents = self._checked([f"{key}/{METADATA}" for key in new])
            found = {key: json.loads(content) for key, content in zip(new, contents.values(), strict=True)}
        self._described |= {key: StoredArray.of(f"{self}/{key}", metadata) for key, metadata in found.items()}

    @property
    def _consolidated(self) -> dict[str, Any] | None:
        """Key of an array or group -> its metadata."""
        _ = self.attributes  # of a version that this one knows
        return dict(self._metadata.get("consolidated_metadata") or {}).get("metadata")

    def _checked(self, names: Sequence[str]) -> dict[str, bytes]:
        """The contents of small files, which must be the sealed ones."""
        try:
            return self.seal.contents_of(names)
        except BrokenSealError as error:
            raise DamagedStoreError(f"{error} Run `atlas verify --repair` and then the stage that writes it, or restore it") from None

    def forget_open(self) -> None:
        """Read the metadata anew when they are next asked for: they have changed."""
        self._described = {}
        self.__dict__.pop("attributes", None)
        self.__dict__.pop("_metadata", None)

    def _file(self, key: str, number: int) -> Place:
        return self.root / key / self.described(key).file_name(number)


@lru_cache(4096)  # the same few names in every folder, a million in a large run
def block_number(name: str) -> int | None:
    """Number of the block that a file of that name holds; None for any other file."""
    found = _BLOCK_FILE.fullmatch(name)
    return int(found[1]) if found else None
