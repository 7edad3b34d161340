"""Words that agree with their numbers."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Return "1 image", "2 images", "1,000 images"; `many` is the plural where an s does not make it."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
