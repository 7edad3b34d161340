"""Reading photos and masks, by threads of this process or in worker processes."""

from __future__ import annotations

import atexit
import itertools
import multiprocessing.connection
import multiprocessing.forkserver
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.disk.stamps import bytes_digest
from pipeline.work.stops import SIGNALS
from safenet.photos import decode_photo, open_photo, to_rgb

FEW_IMAGES = 64  # fewer than this are read faster than worker processes start
_AHEAD = 2  # batches a worker
_CONTEXT = multiprocessing.get_context("forkserver")  # forked workers hang on some stores' threads


class LostWorkerError(OSError):
    """A decoding process died."""


@dataclass(frozen=True)
class Photo:
    """A decoded photo; `problem` says why it is void. Masks as in the schema's mask_share and mask_centre."""

    pixels: NDArray[np.uint8]
    problem: str
    mask_share: NDArray[np.float32]
    mask_centre: NDArray[np.int8]


@dataclass(frozen=True)
class PhotoBatch:
    """Photos of some samples, in their order."""

    photos: Sequence[Photo]

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [B, S, S, 3]; one array, for the network and for the store."""
        return np.stack([photo.pixels for photo in self.photos])


class PhotoFiles:
    """The manifest's photos at the network's size. A photo that cannot be decoded, or is not the one that was indexed, is black and tells why."""

    def __init__(
        self, root: Path, paths: Sequence[str], digests: Sequence[str], mask_paths: Sequence[str], problems: Sequence[str], size_px: int, grid: int
    ) -> None:
        self.root, self.paths, self.digests, self.mask_paths, self.problems = root, paths, digests, mask_paths, problems
        self.size_px, self.grid = size_px, grid

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Photo:
        """Decode one photo and its mask."""
        pixels, problem = np.zeros((self.size_px, self.size_px, 3), np.uint8), self.problems[index]
        mask = read_mask(None, self.grid)
        what = "cannot be decoded"
        try:
            if not problem:
                content = (self.root / self.paths[index]).read_bytes()
                if bytes_digest(content) != self.digests[index]:
                    return Photo(pixels, "changed since it was indexed; run `atlas index`", *mask)
                pixels = decode_photo(BytesIO(content), self.size_px)
                what = "its mask cannot be decoded"
                mask = read_mask(self.root / self.mask_paths[index] if self.mask_paths[index] else None, self.grid)
        except Exception as error:  # noqa: BLE001  (decoders raise what they like; a bad photo never stops a run)
            problem = f"{what}: {' '.join(str(error).split())[:200] or type(error).__name__}"
        return Photo(pixels, problem, *mask)


def read_mask(path: Path | None, grid: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Lay a mask (8-bit image, bright is the target) on the grid: share of each cell, and what its centre shows."""
    if path is None:
        return np.full((grid, grid), np.nan, np.float32), np.full((grid, grid), -1, np.int8)
    with path.open("rb") as file, open_photo(file) as image:
        inside = to_rgb(image).convert("L").point(lambda value: 255 * (value >= 128))
    share = np.asarray(inside.convert("F").resize((grid, grid), Image.Resampling.BOX)) / 255
    centre = np.asarray(inside.resize((grid, grid), Image.Resampling.NEAREST)) > 0
    return share.astype(np.float32), centre.astype(np.int8)


class PhotoReader:
    """Batches of decoded photos, read ahead by worker processes that live as long as this object, or when they are asked for.

    Parameters
    ----------
    files : PhotoFiles
    workers : int
        0 reads in this process, nothing ahead: what computes on the same cores would only be held up.
    threads : int
        That read in this process.
    """

    def __init__(self, files: PhotoFiles, workers: int, threads: int = 1) -> None:
        self._files = files
        self._count = workers
        self._threads = threads
        self._workers: list[_Worker] = []

    def read(self, batches: Sequence[Sequence[int]]) -> Iterator[PhotoBatch]:
        """Yield the photos of the samples of every batch, in order.

        Raises
        ------
        LostWorkerError
            If a decoding process was killed.
        """
        if not self._count:
            with ThreadPoolExecutor(self._threads, thread_name_prefix="decoder") as pool:
                yield from (PhotoBatch(list(pool.map(self._files.__getitem__, samples))) for samples in batches)
            return
        self._workers = self._workers or _start_workers(self._files, self._count)
        asked: deque[tuple[_Worker, int]] = deque()
        for samples, worker in zip(batches, itertools.cycle(self._workers), strict=False):
            if len(asked) == _AHEAD * self._count:
                yield _answer(*asked.popleft())
            asked.append((worker, worker.ask(samples)))
        while asked:
            yield _answer(*asked.popleft())


def _answer(worker: _Worker, number: int) -> PhotoBatch:
    try:
        return PhotoBatch(worker.answer(number))
    except (EOFError, OSError) as error:
        raise LostWorkerError(
            "a process that decodes photos was killed, often because memory ran out. What is done is kept: call again, "
            "with fewer extract.workers or a smaller extract.batch_size if it happens again"
        ) from error


class _Worker:
    """A process that decodes the batches that it is asked for, one after the other."""

    def __init__(self, files: PhotoFiles) -> None:
        self._line, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_decode, args=(files, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that its end is noticed
        self._asked = 0

    def ask(self, samples: Sequence[int]) -> int:
        """Ask for a batch; return the number of its answer."""
        self._asked += 1
        with suppress(OSError):  # its loss is told where the answer is waited for
            self._line.send((self._asked, list(samples)))
        return self._asked

    def answer(self, number: int) -> list[Photo]:
        """Wait for an answer; earlier ones, which nobody waits for any more, are dropped."""
        while True:
            found, photos = self._line.recv()
            if found == number:
                return list(photos)


def _start_workers(files: PhotoFiles, count: int) -> list[_Worker]:
    """Start the processes; they are killed when this one ends, before anything waits for them, as they take no gentler signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:  # a signal to the whole group of processes is not for what starts workers, and would end it with a warning
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    workers = [_Worker(files) for _ in range(count)]
    atexit.register(_kill, [worker.process for worker in workers])  # last in, first called: before that of `multiprocessing`
    return workers


def _kill(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        process.kill()


def _decode(files: PhotoFiles, line: Connection) -> None:
    """In a worker: answer until nobody asks. The next batch is decoded while the last one waits to be taken."""
    _prepare_worker()
    answers: queue.SimpleQueue[tuple[int, list[Photo]]] = queue.SimpleQueue()
    threading.Thread(target=_send, args=(line, answers), daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            number, samples = line.recv()
            answers.put((number, [files[sample] for sample in samples]))


def _send(line: Connection, answers: queue.SimpleQueue[tuple[int, list[Photo]]]) -> None:
    with suppress(OSError):  # nobody is there to take it
        while True:
            line.send(answers.get())


def _prepare_worker() -> None:
    """A worker leaves signals to the process that started it, and ends with it however that ends."""
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
