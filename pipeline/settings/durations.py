"""How a time is written in settings and options."""

from __future__ import annotations

import re


def seconds_of(text: str, name: str) -> int:
    """Read "3h55m", "55m", "90s"; a ValueError names the setting and says what was expected."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    if not found or not any(found.groups()):
        raise ValueError(f"{name} = {text!r}: expected a time, such as 3h55m, 55m or 90s")
    hours, minutes, seconds = (int(value or 0) for value in found.groups())
    return 3600 * hours + 60 * minutes + seconds
