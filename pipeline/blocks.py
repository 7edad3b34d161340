"""Blocks of samples, the unit of work, and the ledger that proves which are done.

A block counts as done only when its record says so. The record is written when the block's data is on the disk, and
appears whole or not at all, so that a process killed at any instant leaves either no record or a true one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Block:
    """Samples `start` ... `stop` - 1: one file an array of a store."""

    index: int
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """As an index."""
        return slice(self.start, self.stop)


def blocks_of(samples: int, block_samples: int) -> list[Block]:
    """Cut the samples into blocks; the last may be shorter."""
    starts = range(0, samples, block_samples)
    return [Block(index, start, min(start + block_samples, samples)) for index, start in enumerate(starts)]


class Ledger:
    """The records of one group of a store: `<directory>/<block>.json`.

    A record holds for every array of the block the stamp it was made under, its crc32c, its size in bytes and how
    many of its values are not finite; and what else the writer noted, such as quarantined images.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def record(self, block: Block) -> dict[str, Any]:
        """Return a block's record, empty where there is none."""
        try:
            content = json.loads(self._path(block).read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) and content.get("rows") == [block.start, block.stop] else {}

    def is_done(self, block: Block, stamps: Mapping[str, str]) -> bool:
        """Whether every named array of the block was written under its stamp."""
        made = self.record(block).get("arrays", {})
        return all(made.get(name, {}).get("stamp") == wanted for name, wanted in stamps.items())

    def mark(self, block: Block, arrays: Mapping[str, NDArray[Any]], stamps: Mapping[str, str], **notes: Any) -> None:
        """Record a block whose arrays are written; records of its other arrays are kept."""
        made = self.record(block).get("arrays", {})
        made |= {name: {"stamp": stamps[name], **_proof(values)} for name, values in arrays.items()}
        _write_atomically(self._path(block), {"rows": [block.start, block.stop], "arrays": made, **notes})

    def forget(self, blocks: Iterable[Block], name: str) -> None:
        """Take one array out of every record, because its data is gone."""
        for block in blocks:
            content = self.record(block)
            if content.get("arrays", {}).pop(name, None) is not None:
                _write_atomically(self._path(block), content)

    def clear(self) -> None:
        """Forget every block, and sweep what a killed process left."""
        for path in self.directory.glob("*"):
            path.unlink()

    def _path(self, block: Block) -> Path:
        return self.directory / f"{block.index:06d}.json"


def _proof(values: NDArray[Any]) -> dict[str, int]:
    data = np.ascontiguousarray(values).reshape(-1)
    return {"crc32c": google_crc32c.value(data.view(np.uint8)), "bytes": data.nbytes, "non_finite": _count_non_finite(data)}


def _count_non_finite(values: NDArray[Any]) -> int:
    if values.dtype == np.float16:  # numpy's isfinite is slow in half precision: look at the exponent's bits
        return int(np.count_nonzero((values.view(np.uint16) & 0x7C00) == 0x7C00))
    return int(values.size - np.count_nonzero(np.isfinite(values))) if values.dtype.kind == "f" else 0


def _write_atomically(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
