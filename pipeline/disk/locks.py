"""One writer per product: a lock that the kernel frees when its process ends, however it ends; in an object store, a lease."""

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

from pipeline.disk.leases import LockedError, leased, refusal
from pipeline.disk.objects import ObjectPath
from pipeline.disk.places import Place

__all__ = ["LockedError", "locked"]

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)


@contextmanager
def locked(path: Place, what: str, *, wait: bool = False, shared: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the body runs.

    Parameters
    ----------
    path : Path or ObjectPath
        Made if it is not there, and left there: deleting it would let two processes hold two files of one name.
    what : str
        What is written, for the message.
    wait : bool
        Wait for another holder instead of refusing: for what takes milliseconds.
    shared : bool
        Several may hold it so at the same time; a holder that is not shared excludes them all.

    Raises
    ------
    LockedError
        If another process holds it, or the file system (or object store: ObjectStoreError) has no locks.
    """
    if isinstance(path, ObjectPath):
        with leased(path, what, wait=wait, shared=shared):
            yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in _BUSY:
                raise refusal(what, _holder(path)) from None
            raise LockedError(f"{path}: this file system has no file locks ({error.strerror}); keep the run on one that has") from error
        if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
            raise LockedError(f"{what}: its lock file {path} was deleted and made again while another process held it; call again")
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
