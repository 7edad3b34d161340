"""The checkpoints of its series that each one is compared with, one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

PREVIOUS, FIRST, LAST = "previous", "first", "last"
COMPARED: Mapping[str, Callable[[int, int], int | None]] = MappingProxyType(  # (place in the series, length of the series) -> place of the other
    {
        PREVIOUS: lambda place, count: place - 1 if place else None,
        FIRST: lambda place, count: 0,
        LAST: lambda place, count: count - 1,
    }
)
