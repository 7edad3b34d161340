"""Deletion and insertion in pixel space: photos are blurred cell by cell in the order of a map, and the network runs on them again.

Petsiuk et al. 2018 (RISE), arXiv:1806.07421, section 4.2. Unlike the curves in token space (stages/stats/faithfulness.py), attention sees what was
taken away, FAM and the ring boundaries follow, and nothing is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safenet.model import SafeNet
from safenet.photos import MEAN
from safenet.preprocess import normalise
from stages.stats.settings import Baseline

Pixels = NDArray[np.uint8]


def _blurred(photo: Pixels, cell_px: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(photo, (0, 0), sigmaX=2 * cell_px), np.uint8)


def _mean_colour(photo: Pixels, cell_px: float) -> Pixels:
    return np.broadcast_to(np.rint(255 * np.array(MEAN)).astype(np.uint8), photo.shape)


BASELINES: Mapping[Baseline, Callable[[Pixels, float], Pixels]] = MappingProxyType({"blur": _blurred, "mean": _mean_colour})


def step_counts(cells: int, steps: int) -> NDArray[np.int64]:
    """How many cells are gone at each step, int64 [steps + 1]: from 0 to all."""
    return np.rint(np.linspace(0, cells, steps + 1)).astype(np.int64)


def perturbed(photo: Pixels, heat: NDArray[np.floating], steps: int, baseline: Baseline, *, insertion: bool) -> Pixels:
    """Photos on the way from whole to gone, or back.

    Parameters
    ----------
    photo : uint8 [S, S, 3]
    heat : float [h, w]
        In the photo's frame; the hottest cells go (or come) first, cells without a value last.
    steps : int
    baseline : {"blur", "mean"}
    insertion : bool
        The hottest cells come, on the baseline, rather than go.

    Returns
    -------
    uint8 [steps + 1, S, S, 3]
    """
    height, width = heat.shape
    rank = np.empty(heat.size, np.int64)
    rank[np.argsort(-np.where(np.isfinite(heat), heat, -np.inf).ravel(), kind="stable")] = np.arange(heat.size)
    of_pixels = cv2.resize(rank.reshape(height, width).astype(np.float32), photo.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    other = BASELINES[baseline](photo, photo.shape[0] / height)
    before, after = (other, photo) if insertion else (photo, other)
    return np.stack([np.where((of_pixels < count)[..., None], after, before) for count in step_counts(heat.size, steps)])


@torch.inference_mode()
def look(model: SafeNet, photos: Pixels, device: torch.device, precision: torch.dtype | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run the network on photos [n, S, S, 3]: embeddings [n, heads, E] and logits [n, heads, C]."""
    images: Tensor = normalise(torch.from_numpy(photos).to(device))
    with torch.autocast(device.type, precision, enabled=precision is not None):
        output = model(images)
    return output.embedding.transpose(1, 2).float().cpu().numpy(), output.logit.transpose(1, 2).float().cpu().numpy()
