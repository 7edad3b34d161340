"""What was made last, kept for who asks for it again: a few values, so that memory stays flat in the number of those asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Keeps the values of the keys that were asked for last; several threads may ask, and a value is made once for all of them.

    Parameters
    ----------
    count : int
        Values that are kept.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._values: dict[Key, Value] = {}  # the last one asked for stands last
        self._lock = threading.RLock()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of a key, making it if it is not kept; what has to go goes before."""
        with self._lock:
            if key in self._values:
                value = self._values.pop(key)
            else:
                while len(self._values) >= self._count:
                    del self._values[next(iter(self._values))]
                value = make()
            self._values[key] = value
            return value
