"""The small files that zarr makes, in memory first, so that they are written like every other file: completely, durably, sealed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.core.buffer.cpu import Buffer
from zarr.storage import MemoryStore, ObjectStore, StorePath

from pipeline.disk.objects import ObjectPath
from pipeline.disk.places import Place
from pipeline.disk.records import unchecked, write_atomically
from pipeline.store.groups import METADATA
from pipeline.store.layout import ArrayLayout

FLUSHES = 8  # at a time: the disk takes many in the time of one
_COMPRESSORS = (Crc32cCodec(),)

zarr.config.set({"array.write_empty_chunks": True})  # a chunk that exists was written


class FilesInMemory:
    """Files of a store by name, as zarr reads and writes them.

    Parameters
    ----------
    files : mapping
        Name -> content of what is there from the start.

    Attributes
    ----------
    store : zarr.storage.MemoryStore
        The same files, for zarr and xarray.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self._files: dict[str, Any] = {name: Buffer.from_bytes(content) for name, content in (files or {}).items()}
        self.store = MemoryStore(self._files)

    @property
    def files(self) -> dict[str, bytes]:
        """Name -> content."""
        return {name: content.to_bytes() for name, content in self._files.items()}

    def create_group(self, layouts: Iterable[ArrayLayout] = (), attributes: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Make a group of arrays; the values of those that have some are written."""
        group = zarr.create_group(self.store, zarr_format=3, attributes=dict(attributes))
        made: dict[tuple[Any, ...], str] = {}
        for layout in layouts:
            kind = (layout.shape, layout.chunk, layout.shard, layout.dtype, layout.variable.dims)
            if layout.values is None and kind in made:
                self._create_alike(made[kind], layout)
            else:
                _create_array(group, layout)
                made.setdefault(kind, layout.key)

    def _create_alike(self, other: str, layout: ArrayLayout) -> None:
        """Make an array's metadata from those of one that differs in name and attributes alone: zarr takes 20 times as long, and maps are many."""
        content = json.loads(self._files[f"{other}/{METADATA}"].to_bytes())
        self._files[f"{layout.key}/{METADATA}"] = _encoded({**content, "attributes": _attributes(layout)})
        for folder in list(PurePosixPath(layout.key).parents)[:-1]:
            self._files.setdefault(f"{folder}/{METADATA}", _encoded({"attributes": {}, "zarr_format": 3, "node_type": "group"}))

    def consolidate(self) -> None:
        """Copy the metadata of all arrays into the group's own file."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")  # known: it lies within the group's own file
            zarr.consolidate_metadata(self.store, zarr_format=3)


def write_files(root: Place, files: Mapping[str, bytes], check: Callable[[], None] = unchecked) -> None:
    """Write small files, several at a time; they count when they are sealed. `check` as in `write_atomically`."""
    with ThreadPoolExecutor(FLUSHES) as pool:
        list(pool.map(lambda name: write_atomically(root / name, files[name], check=check), sorted(files)))


def zarr_of(root: Place) -> Any:
    """Return a place as zarr and xarray take it; what they read of an object store they read from there."""
    return StorePath(ObjectStore(root.store, read_only=True), root.key) if isinstance(root, ObjectPath) else root


def _create_array(group: zarr.Group, layout: ArrayLayout) -> None:
    """Make an array's metadata, and its values where they are known."""
    array = group.create_array(
        layout.key,
        shape=layout.shape,
        chunks=layout.chunk,
        shards=layout.shard,
        dtype=layout.dtype,
        compressors=_COMPRESSORS,
        fill_value=_fill_value(layout.dtype),
        chunk_key_encoding={"name": "default", "separator": "."},  # one folder per array, not one a chunk
        dimension_names=layout.variable.dims,
        attributes=_attributes(layout),
        overwrite=True,
    )
    if layout.values is not None:
        array[...] = layout.values


def _attributes(layout: ArrayLayout) -> dict[str, Any]:
    variable = layout.variable
    described = {"long_name": variable.long_name, "units": variable.units, **({"frame": variable.frame} if variable.frame else {})}
    return {**described, **layout.attributes}


def _encoded(content: Mapping[str, Any]) -> Buffer:
    return Buffer.from_bytes(json.dumps(content, indent=2).encode())


def _fill_value(dtype: str) -> Any:
    return "" if dtype == "str" else np.zeros((), dtype).item()
