"""Feature batches from the device to whole blocks on disk, while the next batch is computed.

Three things overlap: worker processes decode, the device computes, and threads write. On CUDA the results travel on a
stream of their own into pinned memory, so that the device never waits for the copy; only the thread that puts blocks
together waits for it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.extract.known_rows import Arrays
from pipeline.store.blocks import Block

WRITERS = 4
_BATCHES_AHEAD = 4


class HostCopy:
    """Starts copies from the device to pinned host memory on a stream of its own; on a CPU there is nothing to copy."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], torch.cuda.Event | None]:
        """Return host tensors and the event after which they may be read (None: at once)."""
        if self._stream is None:
            return dict(tensors), None
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            host = {name: torch.empty(value.shape, dtype=value.dtype, pin_memory=True) for name, value in tensors.items()}
            for name, value in tensors.items():
                host[name].copy_(value, non_blocking=True)
                value.record_stream(self._stream)  # the device memory is not reused before the copy has read it
            event = torch.cuda.Event()
            event.record(self._stream)
        return host, event


@dataclass
class _OpenBlock:
    """A block that is being put together."""

    block: Block
    arrays: Arrays = field(default_factory=dict)
    filled: int = 0

    def add(self, rows: Sequence[int], arrays: Mapping[str, NDArray[np.generic]]) -> None:
        size = len(self.block)
        self.filled += len(rows)
        if len(rows) == size:  # the batch is the block: nothing to put together, nothing to copy
            self.arrays = dict(arrays)
            return
        first = rows[0]
        where: slice | list[int] = slice(first, first + len(rows)) if list(rows) == list(range(first, first + len(rows))) else list(rows)
        for name, values in arrays.items():
            if name not in self.arrays:
                self.arrays[name] = np.empty((size, *values.shape[1:]), values.dtype)
            self.arrays[name][where] = values


@dataclass(frozen=True)
class _Batch:
    block: Block
    rows: Sequence[int]
    tensors: Mapping[str, Tensor]
    ready: torch.cuda.Event | None
    arrays: Mapping[str, NDArray[np.generic]]


class BlockWriter:
    """Puts batches together into blocks and writes each block when it is whole.

    Within a `with` statement; leaving it waits for the last block, and raises what a writing thread raised. When the
    body raises, blocks that are not whole are dropped: nothing of them was written.

    Parameters
    ----------
    write : callable
        write(block, arrays): stores one block and marks it done. Called from several threads, for different blocks.
    threads : int
        Blocks that are written at the same time.
    """

    def __init__(self, write: Callable[[Block, Arrays], None], threads: int = WRITERS) -> None:
        self._write = write
        self._batches: queue.Queue[_Batch | None] = queue.Queue(_BATCHES_AHEAD)
        self._writers = ThreadPoolExecutor(threads, thread_name_prefix="writer")
        self._room = threading.Semaphore(threads + 1)  # whole blocks in memory: bounded, so that memory is flat
        self._failure: BaseException | None = None
        self._collector = threading.Thread(target=self._collect, name="collector", daemon=True)

    def __enter__(self) -> BlockWriter:
        self._collector.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._batches.put(None)
        self._collector.join()
        self._writers.shutdown(wait=True)
        if error is None:
            self._raise_failure()

    def add(
        self,
        block: Block,
        rows: Sequence[int],
        tensors: Mapping[str, Tensor],
        ready: torch.cuda.Event | None,
        arrays: Mapping[str, NDArray[np.generic]],
    ) -> None:
        """Hand over rows of a block: host tensors, when they may be read, and arrays that are there already.

        Waits when the writers are behind.
        """
        self._raise_failure()
        self._batches.put(_Batch(block, rows, tensors, ready, arrays))

    def _collect(self) -> None:
        """Runs in a thread of its own; after a failure it goes on emptying the queue, so that `add` never blocks for ever."""
        open_blocks: dict[int, _OpenBlock] = {}
        while (batch := self._batches.get()) is not None:
            if self._failure is not None:
                continue
            try:
                if batch.ready is not None:
                    batch.ready.synchronize()
                current = open_blocks.setdefault(batch.block.index, _OpenBlock(batch.block))
                current.add(batch.rows, {**{name: value.numpy() for name, value in batch.tensors.items()}, **batch.arrays})
                if current.filled == len(batch.block):
                    self._submit(open_blocks.pop(batch.block.index))
            except BaseException as error:  # noqa: BLE001  (handed to the thread that computes)
                self._failure = error

    def _submit(self, whole: _OpenBlock) -> None:
        self._room.acquire()
        write = self._writers.submit(self._write, whole.block, whole.arrays)
        write.add_done_callback(self._written)

    def _written(self, write: Future[None]) -> None:
        self._room.release()
        if (error := write.exception()) is not None:
            self._failure = self._failure or error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
