"""Pairs of photos of a place, augmented and drawn in an order that the seed and the epoch decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from safenet.photos import MEAN, STD, open_photo, to_rgb
from safenet.timm_parts import transforms
from safenet.training.places import TrainingPlace
from safenet.training.settings import TrainSettings

KEPT_PHOTOS = 4096  # decoded: 0.8 GB at 256 px


class PairDataset(Dataset[tuple[Tensor, Tensor, int]]):
    """Item (place, draw) -> one random satellite and one random drone image of the place, augmented, and its class.

    Photos are kept decoded at the network's size, the first `KEPT_PHOTOS` of them; the augmentation is redone at every draw.
    """

    def __init__(self, places: Sequence[TrainingPlace], size_px: int, settings: TrainSettings) -> None:
        self.places = places
        self.size_px = size_px
        self.augment = {"satellite": _augmentation("satellite", size_px, settings), "drone": _augmentation("drone", size_px, settings)}
        self._decoded: dict[Path, Image.Image] = {}

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Draw by torch's generator, which the loader seeds."""
        place = self.places[index]
        return self._draw(place.satellite, "satellite"), self._draw(place.drone, "drone"), index

    def _draw(self, paths: Sequence[Path], view: str) -> Tensor:
        path = paths[int(torch.randint(len(paths), ()))]
        decoded = self._decoded.get(path)
        if decoded is None:
            with path.open("rb") as file, open_photo(file) as photo:
                decoded = to_rgb(photo).resize((self.size_px, self.size_px), Image.Resampling.BICUBIC)
            if len(self._decoded) < KEPT_PHOTOS:
                self._decoded[path] = decoded
        image: Tensor = self.augment[view](decoded)
        return image


def _augmentation(view: str, size_px: int, settings: TrainSettings) -> transforms.Compose:
    """Upstream's order: pad by the edge, (satellite) rotate, crop, flip, then to a normalised tensor."""
    rotation = settings.rotate_satellite_deg if view == "satellite" else settings.rotate_drone_deg
    crop = transforms.RandomResizedCrop(size_px, scale=(settings.crop_scale, 1.0), ratio=(0.8, 1.25), antialias=True)
    steps: list[Any] = [
        (settings.pad_px > 0, transforms.Pad(settings.pad_px, padding_mode="edge")),
        (rotation > 0, transforms.RandomAffine(rotation)),
        (settings.pad_px > 0, transforms.RandomCrop(size_px)),
        (settings.crop_scale < 1, crop),
        (settings.flip > 0, transforms.RandomHorizontalFlip(settings.flip)),
        (settings.colour_jitter, transforms.ColorJitter(0.1, 0.1, 0.1, 0.0)),
        (True, transforms.ToTensor()),
        (True, transforms.Normalize(MEAN, STD)),
        (view == "drone" and settings.erase > 0, transforms.RandomErasing(settings.erase)),
    ]
    return transforms.Compose([step for wanted, step in steps if wanted])


def pair_loader(pairs: PairDataset, epoch: int, settings: TrainSettings) -> DataLoader[tuple[Tensor, Tensor, int]]:
    """Shuffled classes, each repeated in a row; whole batches only."""
    generator = torch.Generator().manual_seed(epoch_seed(settings.seed, epoch))
    order = torch.randperm(len(pairs), generator=generator).repeat_interleave(settings.draws_per_place).tolist()
    return DataLoader(
        pairs,
        batch_size=settings.batch_size,
        sampler=order,
        drop_last=True,
        num_workers=settings.workers,
        multiprocessing_context="forkserver" if settings.workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=generator,
    )


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of an epoch: no two epochs of a training share one."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
