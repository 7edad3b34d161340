"""Pieces of work for tests of executors; worker processes import them from here."""

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Who:
    """Says which process did an item."""

    seconds: float = 0.02

    def open(self, tell):
        return self._do

    def _do(self, item):
        time.sleep(self.seconds)
        return item, os.getpid()


@dataclass(frozen=True)
class Deadly:
    """Item 3 kills the process that takes it, the first `times`."""

    folder: Path
    times: int

    def open(self, tell):
        return self._do

    def _do(self, item):
        if item == 3 and len(list(self.folder.iterdir())) < self.times:
            (self.folder / f"{time.time_ns()}").touch()
            os._exit(9)
        return item


@dataclass(frozen=True)
class Faulty:
    """Item 3 is damaged."""

    error: Exception

    def open(self, tell):
        return self._do

    def _do(self, item):
        if item == 3:
            raise self.error
        return item


@dataclass(frozen=True)
class Opened:
    """Counts how often it is opened, in a folder."""

    folder: Path

    def open(self, tell):
        (self.folder / f"{os.getpid()}-{time.time_ns()}").touch()
        return lambda item: item
