"""Photos -> network input, as the test of the published code does it, and back."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from safenet.photos import MEAN, STD, decode_photo


def load_image(path: str | Path, size_px: int = 256) -> Tensor:
    """Decode one photo as the network reads it.

    Returns
    -------
    Tensor [3, size_px, size_px] of float32
        RGB, squashed to a square (the aspect is not kept) and normalised.

    Raises
    ------
    OSError, ValueError
        As `decode_photo`.
    """
    return normalise(torch.from_numpy(decode_photo(path, size_px))[None])[0]


def normalise(photos: Tensor) -> Tensor:
    """Scale uint8 [B, H, W, 3] to [0, 1], subtract the ImageNet mean, divide by the deviation -> float32 [B, 3, H, W]."""
    width = photos.shape[2]
    mean, std = (torch.tensor(values, device=photos.device).repeat(width) for values in (MEAN, STD))
    rows = photos.flatten(2).to(torch.float32, copy=True)  # whole rows of pixels: loops over three colours would take eight times as long
    return rows.div_(255).sub_(mean).div_(std).unflatten(2, (width, 3)).permute(0, 3, 1, 2)


def denormalise(images: Tensor) -> Tensor:
    """Undo `normalise`: float32 [B, 3, H, W] -> uint8 [B, H, W, 3]."""
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(3, 1, 1)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
