"""The small files of a Zarr v3 group, as zarr writes them: metadata, and the values of arrays that are one file.

They are made without zarr, whose event loop takes a hundred times as long, and are written like every other file: completely, durably, sealed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.disk.places import Place
from pipeline.disk.records import unchecked, write_atomically
from pipeline.store.chunk_files import encode_whole
from pipeline.store.groups import CONSOLIDATED, METADATA
from pipeline.store.layout import ArrayLayout
from pipeline.store.stored_arrays import NUMBERS, SINGLE_BYTES, TEXTS

FLUSHES = 8  # at a time: the disk takes many in the time of one


def group_files(layouts: Iterable[ArrayLayout], attributes: Mapping[str, Any] = MappingProxyType({})) -> dict[str, bytes]:
    """Make the files of a group and of arrays in it, and of the groups between them.

    Parameters
    ----------
    layouts : iterable of ArrayLayout
        Those that have values have a file of them.
    attributes : mapping
        Of the group.

    Returns
    -------
    dict
        Name below the group -> content.
    """
    files = {METADATA: as_json(_group(attributes))}
    for layout in layouts:
        files |= {f"{folder}/{METADATA}": as_json(_group({})) for folder in _folders_above(layout.key)}
        files[f"{layout.key}/{METADATA}"] = as_json(array_metadata(layout))
        if layout.values is not None and layout.values.size:
            name = ".".join(["c", *["0"] * len(layout.shape)])
            files[f"{layout.key}/{name}"] = encode_whole(layout.values, layout.dtype)
    return files


def array_metadata(layout: ArrayLayout) -> dict[str, Any]:
    """Describe an array as zarr does.

    Notes
    -----
    Zarr v3 specification, "Array metadata", and the codecs `bytes`, `vlen-utf8`, `crc32c` and `sharding_indexed`.
    """
    codecs, grid = _codecs(layout.dtype), layout.shard or layout.chunk
    if layout.shard is not None:
        within = {"chunk_shape": list(layout.chunk), "codecs": codecs, "index_codecs": NUMBERS, "index_location": "end"}
        codecs = [{"name": "sharding_indexed", "configuration": within}]
    return {
        "shape": list(layout.shape),
        "data_type": "string" if layout.dtype == "str" else layout.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(grid)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},  # one folder an array, not one a chunk
        "fill_value": "" if layout.dtype == "str" else np.zeros((), layout.dtype).item(),
        "codecs": codecs,
        "attributes": layout.described,
        "dimension_names": list(layout.variable.dims),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def consolidated(files: Mapping[str, bytes]) -> bytes:
    """Return a group's own metadata with a copy of those of all that lies in it: they are found without a listing.

    Parameters
    ----------
    files : mapping
        Name -> content; others than metadata are left alone.
    """
    found = (name.removesuffix(f"/{METADATA}") for name in files if name.endswith(f"/{METADATA}"))
    names = sorted(found, key=lambda name: (name.count("/"), name))
    inner = {name: json.loads(files[f"{name}/{METADATA}"]) for name in names}
    told = {name: _telling(one, {}) if one["node_type"] == "group" else one for name, one in inner.items()}
    return as_json(_telling(json.loads(files[METADATA]), told))


def as_json(content: Mapping[str, Any]) -> bytes:
    """Write metadata on one line: Python indents twenty times as slowly."""
    return json.dumps(content).encode()


def write_files(root: Place, files: Mapping[str, bytes], check: Callable[[], None] = unchecked) -> None:
    """Write small files, several at a time; they count when they are sealed. `check` as in `write_atomically`."""
    with ThreadPoolExecutor(FLUSHES) as pool:
        list(pool.map(lambda name: write_atomically(root / name, files[name], check=check), sorted(files)))


def _group(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}


def _telling(group: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """A group's metadata with those of what lies in it; groups within are listed flat, and tell of nothing."""
    copy = {"kind": "inline", "must_understand": False, "metadata": inner}
    return {"attributes": group["attributes"], "zarr_format": 3, CONSOLIDATED: copy, "node_type": "group"}


def _folders_above(key: str) -> Sequence[str]:
    parts = key.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _codecs(dtype: str) -> list[dict[str, Any]]:
    if dtype == "str":
        return TEXTS
    return NUMBERS if np.dtype(dtype).itemsize > 1 else SINGLE_BYTES
