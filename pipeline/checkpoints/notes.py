"""What was read from checkpoint files, so that it is not read again: hundreds of files of 200 MB take minutes, and every part asks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.disk.places import Place
from pipeline.disk.records import DamagedRecordError, read_record, write_record
from pipeline.disk.stamps import file_digest

_UNSETTLED_NS = 2_000_000_000  # a file that was written so recently may be written again within the same tick of its clock


class CheckpointNotes:
    """Digests and sizes of checkpoint files, trusted while a file's length, time and inode are all the same.

    Nothing is written before `keep`. Several processes may keep their notes: the last one's stay, and what is lost is read again.

    Parameters
    ----------
    path : Place
        Of the record.
    """

    def __init__(self, path: Place) -> None:
        self._path = path
        self._new: dict[str, dict[str, Any]] = {}
        try:
            self._known = read_record(path)
        except DamagedRecordError:  # they save time, and prove nothing
            self._known = {}

    def digest(self, file: Path) -> str:
        """Digest of a file's bytes."""
        return self._noted(file, "digest", lambda: file_digest(file))

    def sizes(self, file: Path, state_key: str | None, read: Callable[[], str]) -> str:
        """The sizes of a file's network in words, as `read` tells them, of the network that `state_key` names."""
        return self._noted(file, f"sizes of {state_key or ''}", read)

    def keep(self) -> None:
        """Write what is new, of files that have been left alone for a while."""
        settled = {key: noted for key, noted in self._new.items() if time.time_ns() - noted["file"][1] > _UNSETTLED_NS}
        if settled:
            write_record(self._path, {**self._known, **settled}, durable_name=False)

    def _noted(self, file: Path, what: str, read: Callable[[], str]) -> str:
        key, status = os.path.abspath(file), file.stat()  # noqa: PTH100  (links stay as they are)
        now = [status.st_size, status.st_mtime_ns, status.st_ino]
        noted = self._new.get(key) or self._known.get(key, {})
        if noted.get("file") != now:
            noted = {"file": now}
        if what not in noted:
            noted = {**noted, what: read()}
            self._new[key] = noted
        return str(noted[what])
