"""How an array of a store is divided: its shape, and the samples per file and per chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from stages.schema import Variable


@dataclass(frozen=True)
class ArrayLayout:
    """An array to be made; `values` where it is written as a whole and not block by block."""

    key: str
    variable: Variable
    dtype: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None = None
    values: NDArray[Any] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def described(self) -> dict[str, Any]:
        """Attributes: what the variable is, and those of this array."""
        frame = {"frame": self.variable.frame} if self.variable.frame else {}
        return {"long_name": self.variable.long_name, "units": self.variable.units, **frame, **self.attributes}


def array_layout(
    variable: Variable, dtype: str, sizes: Mapping[str, int], block_samples: int, chunk_samples: int = 0, key: str = "", **more: Any
) -> ArrayLayout:
    """Describe an array: one file per block where it has samples, or one file.

    Parameters
    ----------
    variable : Variable
    dtype : str
    sizes : mapping
        Of its dims.
    block_samples, chunk_samples : int
        Samples a file, and samples a chunk within it (0, or not a divisor: the file is one chunk).
    key : str
        Where it lies in the group; default: the variable's name.
    **more
        `values` and `attributes` of ArrayLayout.
    """
    shape = tuple(sizes[dim] for dim in variable.dims)
    chunk, shard = shape, None
    if variable.per_sample and dtype != "str":
        whole = (block_samples, *shape[1:])
        sharded = 0 < chunk_samples < block_samples and block_samples % chunk_samples == 0
        chunk, shard = ((chunk_samples, *shape[1:]), whole) if sharded else (whole, None)
    return ArrayLayout(key or variable.name, variable, dtype, shape, tuple(max(1, length) for length in chunk), shard, **more)
