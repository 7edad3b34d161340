"""One writer a product: a lock that the kernel lets go of when its process ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)


class LockedError(OSError):
    """Another process writes the product; the message tells which, where and since when."""


@contextmanager
def locked(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the body runs.

    Parameters
    ----------
    path : Path
        Made if it is not there, and left there: deleting it would let two processes hold two files of one name.
    what : str
        What is written, for the message.
    wait : bool
        Wait for another holder instead of refusing: for what takes milliseconds.

    Raises
    ------
    LockedError
        If another process holds it, or the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in _BUSY:
                raise LockedError(f"{what}: another process writes it: {_holder(path)}. Wait for it, or stop it, and call again") from None
            raise LockedError(f"{path}: this file system has no file locks ({error.strerror}); keep the run on one that has") from error
        if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
            raise LockedError(f"{what}: its lock file {path} was deleted and made again under another process's hands; call again")
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        file.truncate(0)
        file.write(json.dumps(mine).encode())
        file.flush()
        yield


def _holder(path: Path) -> str:
    """The holder writes its name just after it gets the lock: for that instant it has none."""
    try:
        holder = json.loads(path.read_text())
        return f"host {holder['host']}, pid {holder['pid']}, since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "it has just begun"
