"""Pieces of work for tests of executors; worker processes import them from here."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.settings.compute import ComputeSettings
from pipeline.work.executors import run_blocks


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
    """Item 3 kills the process that takes it, the first `times`; not before the answers of those before it are on their way."""

    folder: Path
    times: int

    def open(self, tell):
        return self._do

    def _do(self, item):
        if item == 3 and len(list(self.folder.iterdir())) < self.times:
            (self.folder / f"{time.time_ns()}").touch()
            time.sleep(0.2)
            os._exit(9)
        return item


@dataclass(frozen=True)
class DeadlyAtFirst:
    """Items 0 and 1 kill the process that takes them first."""

    folder: Path

    def open(self, tell):
        return self._do

    def _do(self, item):
        if item < 2 and not (self.folder / f"{item}").exists():
            (self.folder / f"{item}").touch()
            time.sleep(0.2)
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


_busy, _lock = [0], threading.Lock()


@dataclass(frozen=True)
class Spreading:
    """A piece that runs blocks by threads, and says how many ran in its process at a time, those of other pieces included."""

    compute: ComputeSettings

    def open(self, tell):
        return self._do

    def _do(self, item):
        return max(run_blocks(self.compute, self._block, range(12)))

    def _block(self, number):
        with _lock:
            _busy[0] += 1
        time.sleep(0.02)
        with _lock:
            _busy[0] -= 1
            return _busy[0] + 1
