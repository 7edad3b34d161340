"""Free space on the disk: checked before work begins, and reported when it has run out."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from pipeline.disk.objects import ObjectPath
from pipeline.disk.places import Place


def free_bytes(path: Place) -> int | None:
    """Free space where `path` is or will be; None in an object store, where nobody can tell."""
    return None if isinstance(path, ObjectPath) else shutil.disk_usage(nearest_existing(path)).free


def nearest_existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    absolute = path.absolute()
    return next(folder for folder in (absolute, *absolute.parents) if folder.exists())


def check_space(path: Place, needed: int, what: str, remedy: str) -> None:
    """Raise an OSError (ENOSPC) if it is known that less than `needed` bytes are free at `path`."""
    free = free_bytes(path)
    if free is not None and needed > free:
        error = OSError(f"{path}: {what} needs about {human_bytes(needed)}, and {human_bytes(free)} are free. {remedy}")
        error.errno = errno.ENOSPC
        raise error


def human_bytes(count: float) -> str:
    """Write 1234567 as "1.2 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
