"""Checks of `atlas doctor` for a run at a URL: whether objects can be written, how fast, and whether locks are possible."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from uuid import uuid4

from pipeline.disk.leases import missing_conditions
from pipeline.disk.objects import ObjectPath, remove_objects
from pipeline.disk.places import each
from pipeline.doctor.findings import Asked, Finding, fail, ok, one_line, readable_size, warn

SLOW_MB_PER_S = 20  # sixteen at a time; what a store in the same region exceeds many times
CLOCK_TOLERANCE_S = 60.0  # only marks' times and ages are compared
_SPEED_OBJECTS, _SPEED_BYTES = 8, 4 * 2**20


def check_directory(asked: Asked) -> Finding:
    """Write an object where the run will be, read it back, and delete it."""
    probe = _probe(asked)
    try:
        probe.write_bytes(b"written")
        found = probe.read_bytes()
        probe.unlink()
    except OSError as error:
        return fail(one_line(error), "Set the credentials and the endpoint in the environment (AWS_*, GOOGLE_*, AZURE_*), or name another --run")
    if found != b"written":
        return fail(f"{asked.directory}: an object that was written reads back with other content", "Name another --run")
    return ok(f"{asked.directory} can be written")


def check_space(asked: Asked) -> Finding:
    """Tell what will be written; object stores do not say what is free."""
    needed = "" if asked.needed_bytes is None else f"; extract will write {readable_size(asked.needed_bytes)}"
    return ok(f"{asked.directory}: the free space of an object store is not known{needed}")


def check_write_speed(asked: Asked) -> Finding:
    """Put a few objects at the same time, as the stores do."""
    content = os.urandom(_SPEED_BYTES)
    probes = [_probe(asked) for _ in range(_SPEED_OBJECTS)]
    started = time.perf_counter()
    try:
        each(asked.directory, lambda probe: probe.write_bytes(content), probes)
        speed = _SPEED_OBJECTS * _SPEED_BYTES / 1e6 / (time.perf_counter() - started)
    finally:
        remove_objects(probes)
    text = f"{speed:,.0f} MB/s to {asked.directory}"
    if speed < SLOW_MB_PER_S:
        return warn(f"{text}; expected {SLOW_MB_PER_S} or more", "Run beside the object store (same region), or name a local --run and copy it")
    return ok(text)


def check_locks(asked: Asked) -> Finding:
    """Put an object only if it is absent, and over a known one alone: what locks are made of."""
    if found := missing_conditions(_place(asked)):
        return fail(f"{asked.directory}: locks are impossible: {found}", "Use an object store with conditional puts, or name a local --run")
    return ok(f"conditional puts work in {asked.directory}: locks are possible")


def check_clock(asked: Asked) -> Finding:
    """Compare a new object's time with the system's."""
    probe, before = _probe(asked), time.time()
    probe.write_bytes(b"")
    try:
        written = probe.stat().st_mtime
    finally:
        probe.unlink()
    today, apart_s = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", max(before - written, written - time.time(), 0.0)
    if apart_s > CLOCK_TOLERANCE_S:
        return warn(f"objects in {asked.directory} are dated {apart_s:,.0f} s off the system's clock", "Set this machine's clock by NTP")
    return ok(f"{today}; objects agree within {CLOCK_TOLERANCE_S:.0f} s")


def _place(asked: Asked) -> ObjectPath:
    if not isinstance(asked.directory, ObjectPath):
        raise TypeError(f"{asked.directory}: a local directory; these checks are for URLs")
    return asked.directory


def _probe(asked: Asked) -> ObjectPath:
    return _place(asked) / f".atlas-doctor-{uuid4().hex}"
