"""The group of a checkpoint in a store: arrays that are written block by block.

One Zarr v3 group a checkpoint. Along `sample` an array's file (chunk, or shard of chunks) holds exactly one block, so
that blocks never share a file. Every chunk carries a crc32c, so that a flipped bit is an error and never a wrong pixel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, cached_property
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from pipeline.disk.objects import telling
from pipeline.disk.places import Place, each, files_below, files_in, name_below, remove_tree
from pipeline.disk.records import replace_file, sweep, sync_file, unchecked
from pipeline.store.blocks import Block, Ledger, blocks_of, checksum_of
from pipeline.store.chunk_files import encode_block
from pipeline.store.fences import Fence, raise_fence
from pipeline.store.groups import METADATA, DamagedStoreError, check_version, make_root, read_json
from pipeline.store.layout import ArrayLayout
from pipeline.store.seals import BrokenSealError, Seal
from pipeline.store.zarr_files import FLUSHES, FilesInMemory, write_files, zarr_of
from stages.schema import SCHEMA_VERSION

_CONSOLIDATED = "consolidated_metadata"


class GroupStore:
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
        return GroupStore, (self.path, self.name)

    # ---- layout

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
        self._check_metadata(METADATA)
        found: dict[str, Any] = json.loads((self.root / METADATA).read_bytes())["attributes"]  # a tenth of the time that zarr takes to open it
        check_version(str(self), found)
        return found

    @property
    def blocks(self) -> list[Block]:
        """The blocks that the store was laid out in."""
        return blocks_of(self.attributes["samples"], self.attributes["block_samples"])

    def lay_out(
        self,
        samples: int,
        block_samples: int,
        attributes: Mapping[str, Any],
        arrays: Sequence[ArrayLayout] = (),
        notes: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Make the group's metadata and whole arrays, anew around the blocks that it may hold already.

        Killed at any instant, the seal is open and the next call does it again; the files of blocks are never touched.
        `notes` go into the seal, where they can be read while the metadata cannot.
        """
        self.ledger.forget_whole()
        make_root(self.path)  # before the seal: a group that is noted must have a store to lie in
        self.seal.open(**notes)
        described = {"schema_version": SCHEMA_VERSION, **attributes, "samples": samples, "block_samples": block_samples}
        made = FilesInMemory()
        made.create_group(arrays, described)
        if arrays:
            made.consolidate()
        write_files(self.root, made.files)
        self._forget_open()
        self.seal.close(self._sealable(layout.key for layout in arrays if layout.values is not None))

    def clear(self) -> None:
        """Delete the group and its marks."""
        self.ledger.clear()  # first: a mark must never outlive its data
        self.seal.remove()
        (self.root / METADATA).unlink(missing_ok=True)  # before the arrays that it may tell of
        remove_tree(self.root)
        self._forget_open()

    def add_arrays(self, layouts: Sequence[ArrayLayout]) -> None:
        """Make arrays in a group, replacing those of their keys; they count when they are sealed."""
        if not layouts:
            return
        self.unconsolidate()
        if replaced := [layout.key for layout in layouts if self.has(layout.key)]:
            self.seal.drop(f"{key}/{METADATA}" for key in replaced)
        for layout in layouts:
            self._remove_array(layout.key)
        made = FilesInMemory()
        made.create_group(layouts)
        files = made.files
        del files[METADATA]
        arrays = {f"{layout.key}/{METADATA}" for layout in layouts}
        write_files(self.root, {name: content for name, content in files.items() if name in arrays or not (self.root / name).is_file()})
        self._forget_open()
        self.seal.add(sorted([METADATA, *files]))

    def _remove_array(self, key: str) -> None:
        """Delete an array's files, its metadata last: zarr takes it first, and a kill would leave files that belong to nothing."""
        for path in files_in(self.root / key, "c*"):
            path.unlink()
        (self.root / key / METADATA).unlink(missing_ok=True)

    def extend(self, samples: int) -> None:
        """Make room for more samples; the blocks that the group holds stay as they are."""
        self.unconsolidate()
        for path in files_below(self.root, METADATA):
            content = json.loads(path.read_text())
            if content["node_type"] == "array":
                content["shape"][0] = samples
                self.seal.replace(name_below(path, self.root), _json(content))
        self.update_attributes({"samples": samples})  # last: a kill before this does it again

    def update_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes of the group."""
        content = json.loads((self.root / METADATA).read_text())
        content["attributes"] |= attributes
        self.seal.replace(METADATA, _json(content))
        self._forget_open()

    def consolidate(self) -> None:
        """Copy the metadata of all arrays into the group's own file, where they are found without a listing; the group's lock must be held."""
        if _CONSOLIDATED in json.loads((self.root / METADATA).read_bytes()):
            return  # it is whole: what changes an array takes it out before
        names = [name for name in self.seal.names if name.rpartition("/")[2] == METADATA]
        each(self.root, self._check_metadata, names)
        contents = each(self.root, lambda name: (self.root / name).read_bytes(), names)
        made = FilesInMemory(dict(zip(names, contents, strict=True)))
        made.consolidate()
        self.seal.replace(METADATA, made.files[METADATA])
        self._forget_open()

    def unconsolidate(self) -> None:
        """Take out what `consolidate` wrote: to be done before an array is made, changed or removed, so that it never tells of another."""
        self._check_metadata(METADATA)  # what is written anew is sealed anew
        content = json.loads((self.root / METADATA).read_bytes())
        if content.pop(_CONSOLIDATED, None) is not None:
            self.seal.replace(METADATA, _json(content))
            self._forget_open()

    def sweep_unmarked(self, blocks: Iterable[Block], keys: Iterable[str]) -> None:
        """Delete what killed writers left of blocks that have no mark; the group's lock must be held."""
        numbers = {block.index for block in blocks}
        for paths in each(self.root, lambda key: files_in(self.root / key, "c.*"), keys):
            for path in paths:
                if _block_number(path) in numbers:
                    path.unlink()

    @property
    def fence(self) -> Fence:
        """The fence that stands: what a call that is not alone writes under."""
        return self.ledger.fence

    def take_over(self, blocks: Iterable[Block] = ()) -> Fence:
        """Let no process write here any more that another call gave work to; the group's lock must be held.

        What others were just writing is swept. So are the given blocks, by `sweep_unmarked`: until they are made, no mark of them counts.
        """
        fence = raise_fence(self.ledger.directory, (block.index for block in blocks))
        self.sweep()
        return fence

    def sweep(self) -> None:
        """Delete what killed writers left half-written; the group's lock must be held."""
        sweep(self.root)
        sweep(self.ledger.directory)
        remove_tree(self.path / f".{self.name}.layout")  # where earlier versions made the layout

    # ---- blocks

    def write_block(
        self, block: Block, arrays: Mapping[str, NDArray[Any]], stamps: Mapping[str, str], fence: Fence | None = None, **notes: Any
    ) -> None:
        """Write one block of some arrays; mark it when data and names are on the disk.

        Parameters
        ----------
        block : Block
        arrays, stamps : mapping
            Key -> values of the block's samples, and the stamp that they have.
        fence : Fence, optional
            Under which the work was given out. Default: the one that stands, of a caller that holds the lock.
        **notes
            For the mark.

        Raises
        ------
        RaisedFenceError
            If another fence stands by now.
        """
        fence = fence or self.fence
        fence.check()
        with ThreadPoolExecutor(FLUSHES) as pool:
            proofs = dict(zip(arrays, pool.map(lambda key: self.write_chunk(key, block, arrays[key], fence.check), arrays), strict=True))
            list(pool.map(sync_file, {self._file(key, block.index).parent for key in arrays}))
        self.ledger.mark(block, proofs, stamps, fence, **notes)
        fence.check()  # what came too late does not count, and its writer is to know

    def write_chunk(self, key: str, block: Block, values: NDArray[Any], check: Callable[[], None] = unchecked) -> dict[str, int]:
        """Write one array's file of a block; return the proof of its values. `check` as in `write_atomically`."""
        array = self._array(key)
        length = array.shape[0]
        block_samples = (array.shards or array.chunks)[0]
        if block.start % block_samples or len(values) != len(block) or (len(block) != block_samples and block.stop != length):
            raise ValueError(f"{self}/{key}: rows {block.start}:{block.stop} are not a whole block of {block_samples} samples, or not as many values")
        encoded = encode_block(values, block_samples, array.chunks[0], array.dtype)
        replace_file(self._file(key, block.index), encoded.parts, check)
        return encoded.proof

    def held_blocks(self, keys: Iterable[str]) -> set[int]:
        """Numbers of the blocks whose files are all there; their content is checked when they are read."""
        held = each(self.root, lambda key: {_block_number(path) for path in files_in(self.root / key, "c.*")} - {None}, keys)
        return {number for number in set.intersection(*held) if number is not None} if held else {block.index for block in self.blocks}

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

    def _read_all(self, keys: Sequence[str], rows: slice) -> list[tuple[tuple[str, ...], NDArray[Any]]]:
        mark_of = cache(self.ledger.record)  # one speaks for all arrays of its block

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
        for number in range(start // length, -(-stop // length)):
            if not self._file(key, number).is_file():
                raise ValueError(f"the file of samples {number * length} and following is not there")

    def _compare_with_marks(self, key: str, values: NDArray[Any], start: int, mark_of: Callable[[Block], dict[str, Any]]) -> None:
        """Whole blocks must be those that were marked: a file with good checksums may still be another run's."""
        size, samples = self.attributes["block_samples"], self.attributes["samples"]
        for number in range(start // size, -(-(start + len(values)) // size)):
            block = Block(number, number * size, min((number + 1) * size, samples))
            if start <= block.start and block.stop <= start + len(values):
                made = mark_of(block).get("arrays", {}).get(key)
                if made is not None and made["crc32c"] != checksum_of(values[block.start - start : block.stop - start]):
                    raise ValueError(f"samples {block.start} to {block.stop - 1} are foreign: not the values that were marked as written")

    # ---- what is there

    def has(self, key: str) -> bool:
        """Whether there is an array of that key."""
        name = f"{key}/{METADATA}"
        return (self.root / name).is_file() and (not self.seal.exists or name in self.seal.names)

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
        return dict(self._array(key).attrs) if self.has(key) else {}

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
        try:
            self.seal.check(name)
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

    def _sealable(self, whole_keys: Iterable[str]) -> list[str]:
        """Names of all metadata, and of the files of arrays that are not cut in blocks."""
        paths = [*files_below(self.root, METADATA), *chain(*each(self.root, lambda key: files_in(self.root / key, "c*"), whole_keys))]
        return [name_below(path, self.root) for path in paths]


def _block_number(path: Place) -> int | None:
    """Number of the block that a file holds; None for any other file."""
    found = re.fullmatch(r"c\.(\d+)(\.0)*", path.name)
    return int(found[1]) if found else None


def _is_cut_in_blocks(array: zarr.Array[Any]) -> bool:
    return _dims(array)[0] == "sample" and array.dtype.kind in "biuf"


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode()


def _dims(array: zarr.Array[Any]) -> tuple[str, ...]:
    names: Any = getattr(array.metadata, "dimension_names", None)
    if names is None:
        raise ValueError(f"{array.store_path}: has no dimension names; it was not written by `atlas`")
    return tuple(names)
