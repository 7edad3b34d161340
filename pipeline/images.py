"""Reading photos and masks, in worker processes; writing pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from torch.utils.data import DataLoader, Dataset

from safenet.preprocess import decode_photo

FEW_IMAGES = 64  # fewer than this are read faster than worker processes start


@dataclass(frozen=True)
class Photo:
    """A decoded photo; `problem` says why it is void. Masks as in the schema's mask_share and mask_centre."""

    pixels: NDArray[np.uint8]
    problem: str
    mask_share: NDArray[np.float32]
    mask_centre: NDArray[np.int8]


@dataclass(frozen=True)
class PhotoBatch:
    """Photos of consecutive samples `start` ... of one block."""

    start: int
    photos: Sequence[Photo]

    def pixels(self) -> torch.Tensor:
        """uint8 [B, S, S, 3]."""
        return torch.from_numpy(np.stack([photo.pixels for photo in self.photos]))


class PhotoFiles(Dataset[Photo]):
    """The manifest's photos at the network's size. A photo that cannot be decoded is black and tells its problem."""

    def __init__(self, root: Path, paths: Sequence[str], mask_paths: Sequence[str], problems: Sequence[str], size_px: int, grid: int) -> None:
        self.root, self.paths, self.mask_paths, self.problems = root, paths, mask_paths, problems
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
                pixels = decode_photo(self.root / self.paths[index], self.size_px)
                what = "its mask cannot be decoded"
                mask = read_mask(self.root / self.mask_paths[index] if self.mask_paths[index] else None, self.grid)
        except Exception as error:  # noqa: BLE001  (decoders raise what they like; a bad photo never stops a run)
            problem = f"{what}: {' '.join(str(error).split())[:200] or type(error).__name__}"
        return Photo(pixels, problem, *mask)


def read_mask(path: Path | None, grid: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Lay a mask (8-bit image, bright is the target) on the grid: share of each cell, and what its centre shows."""
    if path is None:
        return np.full((grid, grid), np.nan, np.float32), np.full((grid, grid), -1, np.int8)
    with Image.open(path) as image:
        inside = image.convert("L").point(lambda value: 255 * (value >= 128))
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
        self._loader: DataLoader[Photo] = DataLoader(
            files,
            batch_sampler=self._batches,
            collate_fn=_keep,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="forkserver" if workers else None,  # forked workers hang on some stores' threads
        )

    def read(self, spans: Sequence[tuple[int, int]]) -> Iterator[PhotoBatch]:
        """Yield the samples start ... stop - 1 of every span, in order."""
        self._batches[:] = [list(range(start, stop)) for start, stop in spans]
        for (start, _), photos in zip(spans, self._loader, strict=True):
            yield PhotoBatch(start, photos)


def _keep(photos: list[Photo]) -> list[Photo]:
    return photos


def write_png(path: Path, picture: NDArray[np.uint8], settings: Mapping[str, Any]) -> None:
    """Write uint8 [H, W, 3] with its settings as PNG text chunks; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chunks = PngImagePlugin.PngInfo()
    for key, value in settings.items():
        chunks.add_itxt(key, str(value))
    partial = path.with_name(f"{path.name}.partial")
    Image.fromarray(picture).save(partial, format="PNG", pnginfo=chunks)
    partial.replace(path)


def png_settings(path: Path) -> dict[str, str]:
    """Read the text chunks of a PNG; empty where there is no such file, or it is damaged."""
    try:
        with Image.open(path) as image:
            return {str(key): str(value) for key, value in image.info.items() if isinstance(value, str)}
    except OSError:
        return {}
