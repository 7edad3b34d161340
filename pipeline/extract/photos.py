"""Reading photos and masks, in worker processes."""

from __future__ import annotations

import atexit
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pipeline.disk.stamps import bytes_digest
from pipeline.work.stops import SIGNALS
from safenet.photos import decode_photo, open_photo, to_rgb

FEW_IMAGES = 64  # fewer than this are read faster than worker processes start


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

    def pixels(self) -> torch.Tensor:
        """uint8 [B, S, S, 3]."""
        return torch.from_numpy(np.stack([photo.pixels for photo in self.photos]))


class PhotoFiles(Dataset[Photo]):
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
    """Batches of decoded photos, read ahead by worker processes that live as long as this object.

    Parameters
    ----------
    files : PhotoFiles
    workers : int
        0 reads in this process.
    """

    def __init__(self, files: PhotoFiles, workers: int) -> None:
        self._batches: list[list[int]] = []
        if workers:
            _start_helpers()
        self._loader: DataLoader[Photo] = DataLoader(
            files,
            batch_sampler=self._batches,
            collate_fn=_keep,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_prepare_worker,
            multiprocessing_context="forkserver" if workers else None,  # forked workers hang on some stores' threads
        )

    def read(self, batches: Sequence[Sequence[int]]) -> Iterator[PhotoBatch]:
        """Yield the photos of the samples of every batch, in order.

        Raises
        ------
        LostWorkerError
            If a decoding process was killed.
        """
        self._batches[:] = [list(samples) for samples in batches]
        try:
            for photos in self._start():
                yield PhotoBatch(photos)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise LostWorkerError(
                "a process that decodes photos was killed, often because memory ran out. What is done is kept: call again, "
                "with fewer extract.workers or a smaller extract.batch_size if it happens again"
            ) from error

    def _start(self) -> Iterator[list[Photo]]:
        """Begin to read; processes that are started for it are killed when this one ends, before anything waits for them.

        They take no gentler signal, and `multiprocessing` would wait for ever for one that missed the end of its queue.
        """
        before = set(multiprocessing.active_children())
        photos: Iterator[list[Photo]] = iter(self._loader)
        if started := set(multiprocessing.active_children()) - before:
            atexit.register(_kill, started)  # last in, first called: before those of the loader and of `multiprocessing`
        return photos


def _kill(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        process.kill()


def _start_helpers() -> None:
    """Start what starts workers; a signal to the whole group of processes is not for them, and would end them with a warning."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker(number: int) -> None:
    """A worker leaves signals to the process that started it, and ends with it however that ends."""
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _keep(photos: list[Photo]) -> list[Photo]:
    return photos
