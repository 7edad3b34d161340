"""CPU time of the steps of the extract stage, by wrapping the real functions in every process that runs some of them.

Each step counts what it does itself: time of a step within another one is taken from that. Steps that a network's threads do together
(`team`) count the threads of the library, too. A name that a version does not have is left out, so that its time shows as the rest.
"""

from __future__ import annotations

import functools
import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = "EXTRACT_STEPS"  # names the folder where each process keeps its sums; decoding processes find it in their environment
STEPS = ("decode", "resize", "hand over", "forward", "convert", "check", "write")
DECODING = {
    "pipeline.extract.photos:PhotoFiles.__getitem__": "decode",
    "PIL.ImageFile:ImageFile.load": "decode",
    "PIL.Image:Image.resize": "resize",
    "pipeline.extract.photos:bytes_digest": "check",
    "multiprocessing.connection:_ConnectionBase.send": "hand over",
    "multiprocessing.connection:_ConnectionBase.recv": "hand over",
}
COMPUTING = {
    **DECODING,
    "pipeline.extract.photos:PhotoBatch.pixels": "hand over",
    "pipeline.extract.extractor:_photo_arrays": "hand over",
    "pipeline.extract.streaming:_OpenBlock.add": "hand over",
    "safenet.model:SafeNet.forward": "forward",
    "stages.extract.batch:FeatureExtractor.__call__": "convert",
    "pipeline.store.group_store:encode_block": "check",
    "pipeline.store.group_store:GroupStore.write_block": "write",
    "pipeline.store.group_store:GroupStore.write_chunk": "write",
    "pipeline.store.group_store:sync_file": "write",
}
_TEAM = ("forward", "convert")
_PER_THREAD = 6  # the clock of one thread's CPU time, as Linux numbers them
_inner = threading.local()
_lock = threading.Lock()


def install(wrapped: Mapping[str, str]) -> None:
    """Wrap the functions named in a table."""
    for where, step in wrapped.items():
        module, _, path = where.partition(":")
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        found, number, clock = getattr(owner, name, None), STEPS.index(step), _team_time if step in _TEAM else time.thread_time
        if isinstance(found, functools.cached_property):
            found.func = _timed(found.func, number, clock)
        elif found is not None:
            setattr(owner, name, _timed(found, number, clock))


def sums(folder: Path) -> tuple[np.ndarray, float]:
    """Return CPU-seconds of each step in all processes, and all that the others than this one took."""
    files = {int(path.stem): np.fromfile(path) for path in folder.glob("*.sums")}
    steps = sum((found[:-1] for found in files.values()), np.zeros(len(STEPS)))
    return steps, float(sum(found[-1] for pid, found in files.items() if pid != os.getpid()))


def _timed(function: Callable[..., Any], step: int, clock: Callable[[], float]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*arguments: Any, **named: Any) -> Any:
        before, _inner.seconds = getattr(_inner, "seconds", 0.0), 0.0
        began = clock()
        try:
            return function(*arguments, **named)
        finally:
            spent = clock() - began
            with _lock:
                found = _sums(os.getpid())
                found[step] += spent - _inner.seconds
                found[-1] = time.process_time()
            _inner.seconds = before + spent

    return timed


@functools.lru_cache(maxsize=1)
def _sums(pid: int) -> np.memmap:
    return np.memmap(Path(os.environ[FOLDER]) / f"{pid}.sums", np.float64, "w+", shape=len(STEPS) + 1)


def _team_time() -> float:
    """CPU time of this thread and of those that are not Python's."""
    others = {thread.native_id for thread in threading.enumerate() if thread is not threading.current_thread()}
    found = 0.0
    for tid in map(int, os.listdir("/proc/self/task")):  # noqa: PTH208  (often, and fast)
        if tid not in others:
            found += time.clock_gettime(~tid << 3 | _PER_THREAD)
    return found
