"""What a process of a farm did, block by block, beside what it made: RUN/logs/<host>-<pid>.log."""

from __future__ import annotations

import atexit
import io
import logging
import os
import re
import socket
from time import monotonic

from pipeline.disk.objects import ObjectPath
from pipeline.disk.places import Place

_OBJECT_S = 5
_LOG = logging.getLogger("safenet_atlas.work")
_LOG.propagate = False
_LINE = f"%(asctime)s {socket.gethostname()} {os.getpid()} %(message)s"


class _ObjectLog(logging.Handler):
    """An object cannot be appended to: it is written anew every few seconds, and at the end."""

    def __init__(self, path: ObjectPath) -> None:
        super().__init__()
        self._path, self._lines, self._written = path, io.StringIO(), monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.write(f"{self.format(record)}\n")
        if monotonic() - self._written > _OBJECT_S:
            self.flush()

    def flush(self) -> None:
        self._written = monotonic()
        if self._lines.tell():
            self._path.write_bytes(self._lines.getvalue().encode())

    def close(self) -> None:
        self.flush()
        super().close()


def open_work_log(directory: Place) -> None:
    """Append what this process does to a file of its own; without this call nothing is written."""
    close_work_log()
    path = directory / "logs" / f"{re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname())}-{os.getpid()}.log"
    handler: logging.Handler
    if isinstance(path, ObjectPath):
        handler = _ObjectLog(path)
        atexit.register(close_work_log)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter(_LINE))
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.INFO)


def close_work_log() -> None:
    """Close the file."""
    for handler in list(_LOG.handlers):
        _LOG.removeHandler(handler)
        handler.close()


def log(what: str) -> None:
    """Note something in one line."""
    if _LOG.handlers:
        _LOG.info(" ".join(what.split()))
