"""A few of many, evenly spread: for pictures, and where using all would take too long."""

from __future__ import annotations


def spread(count: int, wanted: int) -> list[int]:
    """Choose `wanted` of 0 ... count-1, evenly, first and last included."""
    if count <= wanted:
        return list(range(count))
    return [round(step * (count - 1) / (wanted - 1)) for step in range(wanted)] if wanted > 1 else [0]
