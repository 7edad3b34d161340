"""What a process of a farm did, block by block, beside what it made: RUN/logs/<host>-<pid>.log. A log never stops the work."""

from __future__ import annotations

import atexit
import logging
import os
import re
import socket
import sys
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from time import monotonic

from pipeline.disk.objects import ObjectPath
from pipeline.disk.places import Place

_FIRST_S, _LONGEST_S = 5, 60
_MOST_LINES = 20_000  # that wait for an object store which does not take them
_LOG = logging.getLogger("safenet_atlas.work")
_LOG.propagate = False
_LINE = f"%(asctime)s {socket.gethostname()} {os.getpid()} %(message)s"


class _FileLog(logging.FileHandler):
    """Appends to a file, which is made with the first line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace", delay=True)
        self._told = False

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # from opening it; those from writing are handled there
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the base class's name)
        self._told = self._told or _tell(self.baseFilename, sys.exc_info()[1])

    def close(self) -> None:
        with suppress(OSError):  # told already, by the line that was not written
            super().close()


class _ObjectLog(logging.Handler):
    """An object cannot be appended to: what is new is put as an object of its own, every few seconds, then every minute, and at the end."""

    def __init__(self, path: ObjectPath) -> None:
        super().__init__()
        self._path, self._told = path, False
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._put, self._wait_s = monotonic(), _FIRST_S

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"{self.format(record)}\n")
        if monotonic() - self._put > self._wait_s:
            self.flush()

    def flush(self) -> None:
        self.acquire()
        try:
            self._put, self._wait_s = monotonic(), min(2 * self._wait_s, _LONGEST_S)
            if self._lines:
                self._segment().write_bytes("".join(self._lines).encode(errors="backslashreplace"))
                self._lines.clear()
        except OSError as error:  # the lines are kept for the next time
            self._told = self._told or _tell(self._path, error)
        finally:
            self.release()

    def close(self) -> None:
        self.flush()
        super().close()

    def _segment(self) -> ObjectPath:
        """Of a name that no other has, in the order of time."""
        return self._path.with_suffix(f".{datetime.now(UTC):%Y%m%dT%H%M%S.%f}.log")


def _tell(path: Place | str, error: BaseException | None) -> bool:
    with suppress(OSError, ValueError):  # nobody may be reading
        sys.stderr.write(f"atlas: {path}: the log cannot be written: {error}. The work goes on without it\n")
    return True


def open_work_log(directory: Place) -> None:
    """Append what this process does to a log of its own; without this call nothing is written."""
    close_work_log()
    path = directory / "logs" / f"{re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname())}-{os.getpid()}.log"
    handler = _ObjectLog(path) if isinstance(path, ObjectPath) else _FileLog(path)
    handler.setFormatter(logging.Formatter(_LINE))
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.INFO)


def close_work_log() -> None:
    """Write what is left, and close it."""
    for handler in list(_LOG.handlers):
        _LOG.removeHandler(handler)
        handler.close()


def log(what: str) -> None:
    """Note something in one line."""
    if _LOG.handlers:
        _LOG.info(" ".join(what.split()))


atexit.register(close_work_log)  # what an object store has not got yet
