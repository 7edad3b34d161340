"""Photos -> network input as upstream's test does it, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def load_image(path: str | Path, size_px: int = 256) -> Tensor:
    """Decode one photo as the network reads it.

    Returns
    -------
    Tensor [3, size_px, size_px] of float32
        RGB, squashed to a square (the aspect is not kept) and normalised.

    Raises
    ------
    OSError
        If the file is missing or cannot be decoded.
    """
    return normalise(torch.from_numpy(decode_photo(path, size_px))[None])[0]


def decode_photo(path: str | Path, size_px: int) -> NDArray[np.uint8]:
    """Decode to RGB and resize to a square with Pillow's antialiased bicubic filter (cv2's INTER_CUBIC differs).

    Returns
    -------
    uint8 [size_px, size_px, 3]
    """
    with Image.open(path) as photo:
        return resize_photo(np.asarray(photo.convert("RGB")), size_px)


def resize_photo(photo: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Squash `photo` uint8 [h, w, 3] to [size_px, size_px, 3]."""
    resized = Image.fromarray(photo).resize((size_px, size_px), Image.Resampling.BICUBIC)
    return np.array(resized)


def normalise(photos: Tensor) -> Tensor:
    """Scale uint8 [B, H, W, 3] to [0, 1], subtract the ImageNet mean, divide by the deviation -> float32 [B, 3, H, W]."""
    mean = torch.tensor(MEAN, device=photos.device).view(3, 1, 1)
    std = torch.tensor(STD, device=photos.device).view(3, 1, 1)
    return (photos.permute(0, 3, 1, 2).float().div(255) - mean) / std


def denormalise(images: Tensor) -> Tensor:
    """Undo `normalise`: float32 [B, 3, H, W] -> uint8 [B, H, W, 3]."""
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(3, 1, 1)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
