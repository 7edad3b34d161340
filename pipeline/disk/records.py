"""Small files, written completely and durably or not at all, and records that carry their own checksum."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from crc32c import crc32c

from pipeline.disk.objects import ObjectPath
from pipeline.disk.places import Place, files_below, remove_files

_HOST = re.sub(r"\W", "-", socket.gethostname())
PARTIAL = ".partial"  # ends the name of a file that is being written; what a killed process left of them is swept


def unchecked() -> None:
    """Let a file appear without a look at anything."""


class DamagedRecordError(ValueError):
    """A record whose bytes do not match its checksum."""


def write_atomically(path: Place, *parts: bytes | memoryview, check: Callable[[], None] = unchecked) -> None:
    """Write a file that is on the disk when this returns; at any instant `path` holds the old content or the new.

    `check` is called right before the new one appears by a rename, and prevents that by raising. An object is put without: look before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, parts, check)
    sync_file(path.parent)


def replace_file(path: Place, parts: Iterable[bytes | memoryview], check: Callable[[], None] = unchecked) -> None:
    """As `write_atomically`, but the new *name* may be lost with the power until `sync_file` was called."""
    if isinstance(path, ObjectPath):  # a put is whole or not at all
        path.write_bytes(b"".join(parts))
        return
    partial = path.with_name(f"{path.name}.{_HOST}-{os.getpid()}{PARTIAL}")  # unique on a file system that machines share
    try:
        with partial.open("wb", buffering=0) as file:
            for part in parts:
                _write_all(file.fileno(), part)
            os.fsync(file.fileno())
        check()
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sync_file(path: Place) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk; an object is when its put returns."""
    if isinstance(path, ObjectPath):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_record(path: Place, content: Mapping[str, Any], *, durable_name: bool = True, check: Callable[[], None] = unchecked) -> None:
    """Write plain values as a line of JSON and a line with its crc32c.

    Without `durable_name` the record may be lost with the power, until something is written durably beside it: fit for
    marks, as a block without its mark is only done again. `check` as in `write_atomically`.
    """
    body = json.dumps(content).encode()
    parts = (body, f"\n{crc32c(body):08x}\n".encode())
    if durable_name:
        write_atomically(path, *parts, check=check)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, parts, check)


def read_record(path: Place) -> dict[str, Any]:
    """Return a record, empty where there is none.

    Raises
    ------
    DamagedRecordError
        If the file is not what `write_record` wrote.

    Notes
    -----
    A record of schema version 1 has no second line, and so nothing to prove itself by but that it is JSON.
    """
    try:
        body, newline, check = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return {}
    if newline and check != f"{crc32c(body):08x}\n".encode():
        raise DamagedRecordError(f"{path}: damaged record: it does not match its checksum. Run `atlas verify --repair`")
    try:
        content = json.loads(body)
    except ValueError as error:
        raise DamagedRecordError(f"{path}: damaged record: {error}") from None
    if not isinstance(content, dict):
        raise DamagedRecordError(f"{path}: damaged record: holds a {type(content).__name__}; expected a table")
    return content


def sweep(directory: Place) -> int:
    """Delete what killed processes left half-written under a folder; return how many files. Its writer's lock must be held."""
    left = files_below(directory, f"*{PARTIAL}")
    remove_files(left)
    return len(left)


def _write_all(descriptor: int, part: bytes | memoryview) -> None:
    rest = memoryview(part).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]
