"""What was made of small files, kept as long as the files are the same: looks ask for the same records many times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pipeline.disk.places import Place

Value = TypeVar("Value")
UNSETTLED_NS = 2_000_000_000  # a file that was written so recently may be written again within the same tick of its clock


class Unchanged(Generic[Value]):
    """Keeps what was made of files while the length, times and inode of each are the same; several threads may ask.

    Of objects, and of files that have just been written, nothing is kept. What is returned is shared: nobody may write into it.

    Parameters
    ----------
    count : int
        Values that are kept: those that were made last.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: dict[tuple[str, ...], tuple[list[tuple[int, ...]], Value]] = {}
        self._lock = threading.Lock()

    def get(self, make: Callable[[], Value], *files: Place) -> Value:
        """Return what `make` makes of these files."""
        now, key = _states(files), tuple(map(str, files))  # before they are read: what changes meanwhile has another state from then on
        with self._lock:
            kept = self._kept.get(key)
        if kept is not None and kept[0] == now:
            return kept[1]
        value = make()
        with self._lock:
            self._kept.pop(key, None)
            if now is not None:
                while len(self._kept) >= self._count:
                    del self._kept[next(iter(self._kept))]
                self._kept[key] = now, value
        return value


def _states(files: tuple[Place, ...]) -> list[tuple[int, ...]] | None:
    """What tells one content of some files from another, a row each; None where nothing does."""
    settled = time.time_ns() - UNSETTLED_NS
    found: list[tuple[int, ...]] = []
    for file in files:
        if not isinstance(file, Path):
            return None
        try:
            status = file.stat()
        except OSError:
            return None
        if max(status.st_mtime_ns, status.st_ctime_ns) > settled:
            return None
        found.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    return found
