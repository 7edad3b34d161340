"""A block of one array as the bytes of its Zarr v3 file, encoded once: what zarr would write, to the bit.

Writing through zarr copies the values for the checksum, computes it apart from the one in the mark, and never flushes.
Here one pass gives both, and the file appears whole, durable and under its final name.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from pipeline.store.blocks import checksum_of, proof_of

_NO_CHUNK = b"\xff" * 16  # offset and length of a chunk that lies wholly beyond the array's end


_CHECK_BYTES = 4


@dataclass(frozen=True)
class EncodedBlock:
    """The parts of a file in order, and the proof of the values in it."""

    parts: Sequence[bytes | memoryview]
    proof: dict[str, Any]


def encode_block(values: NDArray[np.generic], block_samples: int, chunk_samples: int, dtype: np.dtype) -> EncodedBlock:
    """Encode the values of a block, samples first.

    Parameters
    ----------
    values : ndarray [samples, ...]
        At most `block_samples` of them; the last block of a store has fewer.
    block_samples : int
        Samples a file.
    chunk_samples : int
        Samples a chunk; fewer than `block_samples`: the file is a shard.
    dtype : dtype
        Of the array.

    Raises
    ------
    ValueError
        If the values' dtype is another one.

    Notes
    -----
    Codecs: bytes (little-endian), crc32c; sharded: chunk after chunk, then the index (offset and length of each as uint64,
    then its crc32c), as the Zarr v3 specification of the codecs `crc32c` and `sharding_indexed` has it.
    """
    if values.dtype != dtype:
        raise ValueError(f"the values are {values.dtype}; the array holds {dtype}")
    data = np.ascontiguousarray(values, dtype=dtype.newbyteorder("<"))
    proof = proof_of(data)
    whole = _fill_up(data, chunk_samples)
    if chunk_samples == block_samples:
        check = proof["crc32c"] if whole is data else checksum_of(whole)
        return EncodedBlock((_bytes(whole), _little_endian(check)), proof)
    return EncodedBlock(_shard(whole, block_samples, chunk_samples), proof)


def encode_whole(values: NDArray[Any], dtype: str) -> bytes:
    """Encode an array that is one chunk.

    Parameters
    ----------
    values : ndarray
    dtype : str
        "str": texts, as numcodecs' vlen-utf8 lays them: how many, then length and UTF-8 of each, uint32.
    """
    if dtype == "str":
        texts = [str(text).encode() for text in values.ravel()]
        content = b"".join([_little_endian(len(texts)), *(_little_endian(len(text)) + text for text in texts)])
    else:
        content = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()
    return content + _little_endian(crc32c(content))


def is_intact(content: bytes, proof: Mapping[str, int]) -> bool:
    """Whether a file is, byte for byte, the unsharded whole block that a mark vouches for; false says nothing of others."""
    check = proof["crc32c"]
    return (
        len(content) == proof["bytes"] + _CHECK_BYTES
        and content[-_CHECK_BYTES:] == _little_endian(check)
        and crc32c(memoryview(content)[:-_CHECK_BYTES]) == check
    )


def _fill_up(data: NDArray[np.generic], multiple: int) -> NDArray[np.generic]:
    """Every chunk has the same shape: add zeros to the last one."""
    missing = -len(data) % multiple
    return np.concatenate([data, np.zeros((missing, *data.shape[1:]), data.dtype)]) if missing else data


def _shard(data: NDArray[np.generic], block_samples: int, chunk_samples: int) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = []
    index, offset = b"", 0
    for start in range(0, len(data), chunk_samples):
        values = data[start : start + chunk_samples]
        chunk, check = _bytes(values), _little_endian(checksum_of(values))
        parts += [chunk, check]
        index += struct.pack("<QQ", offset, chunk.nbytes + len(check))
        offset += chunk.nbytes + len(check)
    index += _NO_CHUNK * ((block_samples - len(data)) // chunk_samples)
    return [*parts, index, _little_endian(crc32c(index))]


def _bytes(data: NDArray[np.generic]) -> memoryview:
    return data.reshape(-1).view(np.uint8).data


def _little_endian(number: int) -> bytes:
    return struct.pack("<I", number)
