"""A bucket that is far away: every request takes a while, and is told afterwards."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import obstore
import pytest

REQUESTS = ("head", "get", "get_range", "get_ranges", "put", "delete", "list_with_delimiter", "copy")


@dataclass
class Requests:
    """What was asked for: the kind of each request, when it was sent and when it was answered."""

    sent: list[tuple[str, float, float]] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """How many of each kind."""
        return Counter(kind for kind, _, _ in self.sent)

    @property
    def in_a_row(self) -> int:
        """How many waited for each other: the longest series of requests of which each was sent after the answer to the one before."""
        longest, free = 0, 0.0
        for _, began, ended in sorted(self.sent, key=lambda request: request[2]):
            if began >= free:
                longest, free = longest + 1, ended
        return longest


@contextmanager
def far_away(seconds: float = 0.01) -> Iterator[Requests]:
    """Let every request to a bucket take this long, whoever sends it."""
    import asyncio

    found = Requests()

    def slow(kind, original):
        def request(*arguments, **options):
            began = time.monotonic()
            time.sleep(seconds)
            try:
                return original(*arguments, **options)
            finally:
                found.sent.append((kind, began, time.monotonic()))

        return request

    def slow_async(kind, original):
        async def request(*arguments, **options):
            began = time.monotonic()
            await asyncio.sleep(seconds)
            try:
                return await original(*arguments, **options)
            finally:
                found.sent.append((kind, began, time.monotonic()))

        return request

    with pytest.MonkeyPatch.context() as patch:
        for kind in (*REQUESTS, "list"):
            patch.setattr(obstore, kind, slow(kind, getattr(obstore, kind)))
        for kind in REQUESTS:
            patch.setattr(obstore, f"{kind}_async", slow_async(kind, getattr(obstore, f"{kind}_async")))
        yield found
