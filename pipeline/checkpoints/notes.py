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
from pipeline.disk.unchanged import UNSETTLED_NS

_TOLD = "told"  # no path, which is absolute


class CheckpointNotes:
    """Digests of checkpoint files, trusted while a file's length, time and inode are all the same, and what files of a digest tell of themselves.

    Nothing is written before `keep`. Several processes may keep their notes: the last one's stay, and what is lost is read again.

    Parameters
    ----------
    path : Place
        Of the record.
    """

    def __init__(self, path: Place) -> None:
        self._path = path
        self._new: dict[str, dict[str, Any]] = {}
        self._new_told: dict[str, tuple[int, dict[str, Any]]] = {}  # with the time of the file
        try:
            self._known = read_record(path)
        except DamagedRecordError:  # they save time, and prove nothing
            self._known = {}

    def digest(self, file: Path) -> str:
        """Digest of a file's bytes."""
        noted, now = self._noted(file), _now(file)
        if noted.get("file") != now or "digest" not in noted:
            noted = {"file": now, "digest": file_digest(file)}
            self._new[_key(file)] = noted
        return str(noted["digest"])

    def told(self, file: Path, key: str, read: Callable[[], dict[str, Any]], *, is_enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What a file tells of itself, as `read` gives it in plain values; not read again wherever the same bytes lie, if it `is_enough`.

        Parameters
        ----------
        file : Path
        key : str
            What the answer depends on beside the bytes.
        read : callable
        is_enough : callable
            Whether what is noted answers the question.
        """
        key = f"{self.digest(file)} {key}"
        _, noted = self._new_told.get(key) or (0, self._known.get(_TOLD, {}).get(key))
        if noted is None or not is_enough(noted):
            noted, digested = read(), self._noted(file)["file"]
            if digested == _now(file):
                self._new_told[key] = digested[1], noted
        return noted

    def keep(self) -> None:
        """Write what is new, of files that have been left alone for a while."""
        settled = time.time_ns() - UNSETTLED_NS
        files = {key: noted for key, noted in self._new.items() if noted["file"][1] < settled}
        told = {key: noted for key, (moment, noted) in self._new_told.items() if moment < settled}
        if files or told:
            self._known = {**self._known, **files, _TOLD: {**self._known.get(_TOLD, {}), **told}}
            write_record(self._path, self._known, durable_name=False)
            self._new = {key: noted for key, noted in self._new.items() if key not in files}
            self._new_told = {key: noted for key, noted in self._new_told.items() if key not in told}

    def _noted(self, file: Path) -> dict[str, Any]:
        key = _key(file)
        return self._new.get(key) or self._known.get(key, {})


def _key(file: Path) -> str:
    return os.path.abspath(file)  # noqa: PTH100  (links stay as they are)


def _now(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]
