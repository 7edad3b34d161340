"""The lock of an object store: a lease, an object that its holder renews; an expired one belongs to nobody.

An exclusive lease has one fixed name, so that of many conditional puts the store lets exactly one through; each shared one
has a name of its own. Whoever has put a lease looks for the other kind afterwards, and gives way: two can never both hold.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from uuid import uuid4

from pipeline.disk.objects import WRITER_CHECKS, ObjectPath, ObjectStoreError, remove_objects

LEASE_S = 120.0  # older, by the store's own clock: its holder is dead
BEAT_S = 20.0  # several chances to reach the store within a lease
POLL_S = 0.25
_EXCLUSIVE = "exclusive"


class LockedError(OSError):
    """Another process writes the product; the message tells which, where and since when."""


class LostLeaseError(OSError):
    """The process was too long without contact to the store, and another may write in its place."""


@dataclass
class Lease:
    """A lease that this process holds; `path` is its object."""

    path: ObjectPath
    what: str
    e_tag: str
    content: bytes
    since: str
    until: float
    lost: bool = False
    _over: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise a LostLeaseError if another process may have taken over."""
        if self.lost or time.monotonic() > self.until:
            raise LostLeaseError(
                f"{self.what}: this process's lease expired ({LEASE_S:.0f} s without contact to {self.path}), and another may write it. "
                f"What is marked is kept: call again"
            )

    def beat(self) -> None:
        """Write the lease anew, if it is still ours."""
        sent, content = time.monotonic(), _content(self.since)
        e_tag = self.path.put_if_unchanged(content, self.e_tag)
        if e_tag is None:  # ours all the same if an answer of the store was lost, and the put was sent twice
            found = _look(self.path)
            e_tag = found[1] if found and found[0] in (content, self.content) else None
        if e_tag is None:
            self.lost = True
        else:
            self.e_tag, self.content, self.until = e_tag, content, sent + LEASE_S

    def keep(self) -> None:
        """Beat until released or lost; a store that does not answer is asked again at the next beat."""
        while not self.lost and not self._over.wait(BEAT_S):
            with suppress(OSError):
                self.beat()

    def release(self, beating: threading.Thread) -> None:
        """Delete it, unless it is another's by now."""
        self._over.set()
        beating.join(BEAT_S)
        found = _look(self.path)
        if found is not None and found[0] == self.content and time.monotonic() < self.until:
            remove_objects([self.path], checked=False)


@contextmanager
def leased(path: ObjectPath, what: str, *, wait: bool, shared: bool) -> Iterator[None]:
    """Hold a lease under `path` while the body runs.

    Raises
    ------
    LockedError
        If another process holds one that excludes it, and `wait` is not set.
    LostLeaseError
        If the lease was lost while the body ran; whatever writes to the bucket raises it, too.
    ObjectStoreError
        If the store has no conditional puts.
    """
    _refuse_without_conditions(path.root, path.parent)
    lease = _take(path, what, shared)
    while not isinstance(lease, Lease):
        if not wait:
            raise refusal(what, lease)
        time.sleep(POLL_S * (1 + random.random()))
        lease = _take(path, what, shared)
    beating = threading.Thread(target=lease.keep, daemon=True)
    beating.start()
    checks = WRITER_CHECKS.setdefault(path.root, [])
    checks.append(lease.check)
    try:
        yield
        lease.check()
    finally:
        checks.remove(lease.check)
        with suppress(OSError):  # it grows old by itself
            lease.release(beating)


def refusal(what: str, holder: str) -> LockedError:
    """Say who is in the way."""
    return LockedError(f"{what}: another process writes it: {holder}. Wait for it, or stop it, and call again")


def missing_conditions(folder: ObjectPath) -> str:
    """Try what locks are made of; say what is amiss, empty if nothing is. A store that does not know a condition may overwrite in silence."""
    probe = folder / f"probe-{uuid4().hex}"
    try:
        first = probe.put_if_absent(b"1")
        if first is None or probe.put_if_absent(b"2") is not None:
            return "it overwrites an object that was to be put only if there is none (If-None-Match)"
        if probe.put_if_unchanged(b"3", f'"{uuid4().hex}"') is not None:
            return "it overwrites an object that was to be put only over a known one (If-Match)"
        return ""
    finally:
        remove_objects([probe], checked=False)


@lru_cache
def _refuse_without_conditions(root: str, folder: ObjectPath) -> None:
    """Raise where locks would hold nobody off; what is well is asked once a bucket and process."""
    if found := missing_conditions(folder):
        raise ObjectStoreError(f"{root}: no locks are possible in this object store: {found}. Use one that has conditional puts, or a local --run")


def _take(path: ObjectPath, what: str, shared: bool) -> Lease | str:
    """Put a lease and look whether it stands; else say who is in the way."""
    own = path / (f"shared-{uuid4().hex}" if shared else _EXCLUSIVE)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    sent, content = time.monotonic(), _content(since)
    e_tag = own.put_if_absent(content) or _take_over(own, content)
    if e_tag is None:
        return _holder(own)
    others = [other for other in path.glob("*") if other != own and other.name.startswith(_EXCLUSIVE if shared else "shared-")]
    for other in others:
        if not _is_dead(other):
            remove_objects([own], checked=False)
            return _holder(other)
    if not shared:
        remove_objects(others, checked=False)  # dead ones
    return Lease(own, what, e_tag, content, since, sent + LEASE_S)


def _take_over(path: ObjectPath, content: bytes) -> str | None:
    """Take a dead holder's lease in one conditional put; None if it lives, or another was first."""
    found = _look(path)
    if found is None:
        return path.put_if_absent(content)
    if found[0] == content:  # our own put, sent twice as the first answer was lost
        return found[1]
    return path.put_if_unchanged(content, found[1]) if _is_dead(path) else None


def _is_dead(path: ObjectPath) -> bool:
    """Whether a lease is too old; its time and now are both by the store's clock."""
    clock = path.with_name(f"clock-{uuid4().hex}")
    clock.put_if_absent(b"")
    try:
        now = clock.stat().st_mtime
        return now - ObjectPath(path.root, path.key).stat().st_mtime > LEASE_S
    except FileNotFoundError:
        return True
    finally:
        remove_objects([clock], checked=False)


def _look(path: ObjectPath) -> tuple[bytes, str] | None:
    """Content and tag of a lease; None where there is none."""
    try:
        return path.read_with_tag()
    except FileNotFoundError:
        return None


def _holder(path: ObjectPath) -> str:
    found = _look(path)
    try:
        holder = json.loads(found[0]) if found else {}
        return f"host {holder['host']}, pid {holder['pid']}, since {holder['since']}"
    except (ValueError, KeyError):
        return "it has just ended"


def _content(since: str) -> bytes:
    """Who holds it; no two are alike, so that a tag tells every writing from every other."""
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since, "writing": uuid4().hex}).encode()
