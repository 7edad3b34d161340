"""An array as its metadata describes it, and rows of it as its files hold them: every chunk is compared with its crc32c.

Zarr v3 files, read without zarr: its event loop takes a hundred times as long as a small file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from pipeline.disk.places import Place, read_range

_CHECK_BYTES = 4
_ENTRY_BYTES = 16  # of a shard's index: offset and length of a chunk
_TEXT = np.dtype(object)
CHECK: dict[str, Any] = {"name": "crc32c"}
NUMBERS: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}, CHECK]
SINGLE_BYTES: list[dict[str, Any]] = [{"name": "bytes"}, CHECK]
TEXTS: list[dict[str, Any]] = [{"name": "vlen-utf8", "configuration": {}}, CHECK]


@dataclass(frozen=True)
class StoredArray:
    """What the metadata of an array say.

    Attributes
    ----------
    dims : tuple of str
    shape : tuple of int
    dtype : dtype
        object for texts.
    file_samples, chunk_samples : int
        Entries of the first dim in a file, and in a chunk; equal where a file is one chunk.
    attributes : mapping
    is_plain : bool
        Whether the files are cut along the first dim alone and encoded as `encode_block` and the layout do; others are left to zarr.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    file_samples: int
    chunk_samples: int
    attributes: Mapping[str, Any]
    is_plain: bool

    @classmethod
    def of(cls, where: str, metadata: Mapping[str, Any]) -> StoredArray:
        """Understand the content of a zarr.json.

        Raises
        ------
        KeyError
            If it is not of an array.
        ValueError
            If its dims have no names.
        """
        if metadata.get("node_type") != "array":
            raise KeyError(f"{where}: a group; expected an array")
        if metadata.get("dimension_names") is None:
            raise ValueError(f"{where}: has no dimension names; it was not written by `atlas`")
        named, shape = metadata["data_type"], tuple(metadata["shape"])
        dtype = _TEXT if named == "string" or not isinstance(named, str) else np.dtype(named)
        codecs = metadata["codecs"]
        file_shape = chunk_shape = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        is_plain = metadata["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
        if codecs[0]["name"] == "sharding_indexed":
            sharding = codecs[0]["configuration"]
            chunk_shape, codecs = sharding["chunk_shape"], sharding["codecs"]
            is_plain &= [one["name"] for one in sharding["index_codecs"]] == ["bytes", "crc32c"] and sharding.get("index_location", "end") == "end"
        is_plain &= codecs in (NUMBERS, SINGLE_BYTES, TEXTS) and list(chunk_shape[1:]) == list(file_shape[1:]) == list(shape[1:])
        return cls(tuple(metadata["dimension_names"]), shape, dtype, file_shape[0], chunk_shape[0], metadata["attributes"], is_plain)

    @property
    def is_cut_in_blocks(self) -> bool:
        """Whether it is written block by block; the others are whole, and sealed."""
        return self.dims[0] == "sample" and self.dtype != _TEXT

    @property
    def is_sharded(self) -> bool:
        """Whether a file holds several chunks."""
        return self.chunk_samples < self.file_samples

    def file_name(self, number: int) -> str:
        """Name of a file within the array's folder."""
        return ".".join(["c", str(number), *["0"] * (len(self.shape) - 1)])

    def files_of(self, start: int, stop: int) -> range:
        """Numbers of the files that hold the entries `start` ... `stop` - 1."""
        return range(start // self.file_samples, -(-stop // self.file_samples)) if start < stop else range(0)


def read_rows(file: Place, array: StoredArray, start: int, stop: int) -> NDArray[Any]:
    """Read the entries `start` ... `stop` - 1 of a file of a plain array of numbers; the other chunks of a shard are not looked at.

    Raises
    ------
    ValueError
        If a chunk does not match its checksum, or the file is not as long as its index tells.
    """
    if not array.is_sharded:
        return decoded(file.read_bytes(), array)[start:stop]
    chunks = range(start // array.chunk_samples, -(-stop // array.chunk_samples))
    places = _index(file, array)[chunks.start : chunks.stop]
    first, last = min(offset for offset, _ in places), max(offset + length for offset, length in places)
    content = memoryview(read_range(file, first, last - first))
    values = [_chunk(content[offset - first : offset - first + length], array) for offset, length in places]
    begins = chunks.start * array.chunk_samples
    return np.concatenate(values)[start - begins : stop - begins]


def decoded(content: bytes, array: StoredArray) -> NDArray[Any]:
    """Return the values of a file that is one chunk, as the file holds them: beyond the end of the array, too."""
    if array.dtype == _TEXT:
        texts = np.array(_texts(_checked(memoryview(content))), dtype=object)
        return texts.reshape(array.shape)
    return _chunk(memoryview(content), array)


def _chunk(content: memoryview, array: StoredArray) -> NDArray[Any]:
    return np.frombuffer(_checked(content), array.dtype.newbyteorder("<")).reshape(array.chunk_samples, *array.shape[1:])


def _checked(content: memoryview) -> memoryview:
    """What stands before the checksum."""
    body, check = content[:-_CHECK_BYTES], content[-_CHECK_BYTES:]
    if check != struct.pack("<I", crc32c(body)):
        raise ValueError("the bytes of a chunk do not match their checksum")
    return body


def _index(file: Place, array: StoredArray) -> list[tuple[int, int]]:
    """Offset and length of each chunk of a shard."""
    length = array.file_samples // array.chunk_samples * _ENTRY_BYTES + _CHECK_BYTES
    return list(struct.iter_unpack("<QQ", _checked(memoryview(read_range(file, -length, length)))))


def _texts(content: memoryview) -> Sequence[str]:
    """Texts as numcodecs' vlen-utf8 lays them: how many, then length and UTF-8 of each; uint32."""
    (count,), at = struct.unpack_from("<I", content), _CHECK_BYTES
    found = []
    for _ in range(count):
        (length,) = struct.unpack_from("<I", content, at)
        at += _CHECK_BYTES + length
        found.append(str(content[at - length : at], "utf-8"))
    return found
