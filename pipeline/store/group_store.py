"""The group of a checkpoint as it is written: laid out around its blocks, and filled block by block."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from pipeline.disk.places import each, files_below, files_in, name_below, remove_files, remove_tree
from pipeline.disk.records import replace_file, sweep, sync_file, unchecked
from pipeline.store.blocks import Block
from pipeline.store.chunk_files import encode_block
from pipeline.store.fences import Fence, raise_fence
from pipeline.store.group_reader import GroupReader, block_number
from pipeline.store.groups import CONSOLIDATED, METADATA, is_consolidated, make_root
from pipeline.store.layout import ArrayLayout
from pipeline.store.zarr_files import FLUSHES, as_json, consolidated, group_files, write_files
from stages.schema import SCHEMA_VERSION


class GroupStore(GroupReader):
    """One group of arrays with a common `sample` dim, its marks and its seal; for parameters see GroupReader."""

    # ---- layout

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
        files = group_files(arrays, described)
        if arrays:
            files[METADATA] = consolidated(files)
        write_files(self.root, files)
        self.forget_open()
        self.seal.close(self._sealable(layout.key for layout in arrays if layout.values is not None))

    def clear(self) -> None:
        """Delete the group and its marks."""
        self.ledger.clear()  # first: a mark must never outlive its data
        self.seal.remove()
        (self.root / METADATA).unlink(missing_ok=True)  # before the arrays that it may tell of
        remove_tree(self.root)
        self.forget_open()

    def add_arrays(self, layouts: Sequence[ArrayLayout]) -> None:
        """Make arrays in a group, replacing those of their keys; they count when they are sealed."""
        if not layouts:
            return
        self.unconsolidate()
        if replaced := [layout.key for layout in layouts if self.has(layout.key)]:
            self.seal.drop(f"{key}/{METADATA}" for key in replaced)
        for layout in layouts:
            self._remove_array(layout.key)
        files = group_files(layouts)
        del files[METADATA]
        arrays = {f"{layout.key}/{METADATA}" for layout in layouts}
        write_files(self.root, {name: content for name, content in files.items() if name in arrays or not (self.root / name).is_file()})
        self.forget_open()
        self.seal.add(sorted([METADATA, *files]))

    def _remove_array(self, key: str) -> None:
        """Delete an array's files, its metadata last: zarr takes it first, and a kill would leave files that belong to nothing."""
        remove_files(files_in(self.root / key, "c*"))
        (self.root / key / METADATA).unlink(missing_ok=True)

    def extend(self, samples: int) -> None:
        """Make room for more samples; the blocks that the group holds stay as they are."""
        self.unconsolidate()
        for path in files_below(self.root, METADATA):
            content = json.loads(path.read_text())
            if content["node_type"] == "array":
                content["shape"][0] = samples
                self.seal.replace(name_below(path, self.root), as_json(content))
        self.update_attributes({"samples": samples})  # last: a kill before this does it again

    def update_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes of the group."""
        content = json.loads((self.root / METADATA).read_text())
        content["attributes"] |= attributes
        self.seal.replace(METADATA, as_json(content))
        self.forget_open()

    def consolidate(self) -> None:
        """Copy the metadata of all arrays into the group's own file, where they are found without a listing; the group's lock must be held."""
        if is_consolidated((self.root / METADATA).read_bytes()):
            return  # it is whole: what changes an array takes it out before
        names = [name for name in self.seal.names if name.rpartition("/")[2] == METADATA]
        self.seal.replace(METADATA, consolidated(self._checked(names)))
        self.forget_open()

    def unconsolidate(self) -> None:
        """Take out what `consolidate` wrote: to be done before an array is made, changed or removed, so that it never tells of another."""
        content = json.loads(self._checked([METADATA])[METADATA])  # what is written anew is sealed anew
        if content.pop(CONSOLIDATED, None) is not None:
            self.seal.replace(METADATA, as_json(content))
            self.forget_open()

    def sweep_unmarked(self, blocks: Iterable[Block], keys: Iterable[str]) -> None:
        """Delete what killed writers left of blocks that have no mark; the group's lock must be held."""
        numbers = {block.index for block in blocks}
        if not numbers:
            return
        files = chain(*each(self.root, lambda key: files_in(self.root / key, "c.*"), keys))
        remove_files(path for path in files if block_number(path.name) in numbers)

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
        array = self.described(key)
        length, block_samples = array.shape[0], array.file_samples
        if block.start % block_samples or len(values) != len(block) or (len(block) != block_samples and block.stop != length):
            raise ValueError(f"{self}/{key}: rows {block.start}:{block.stop} are not a whole block of {block_samples} samples, or not as many values")
        encoded = encode_block(values, block_samples, array.chunk_samples, array.dtype)
        replace_file(self._file(key, block.index), encoded.parts, check)
        return encoded.proof

    def _sealable(self, whole_keys: Iterable[str]) -> list[str]:
        """Names of all metadata, and of the files of arrays that are not cut in blocks."""
        paths = [*files_below(self.root, METADATA), *chain(*each(self.root, lambda key: files_in(self.root / key, "c*"), whole_keys))]
        return [name_below(path, self.root) for path in paths]
