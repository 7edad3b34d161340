"""Heads that see each part's channel maxima: no closed form, so that gradients and removals go through the pooling itself, on the stored map.

Upstream's FPM has this mode and never uses it. Mean pooling, the published one, needs none of this: see stages/cam/gradients.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safenet.alignment import resample
from safenet.architecture import Sampling
from safenet.partition import POOLINGS

Float = NDArray[np.floating]
_AT_ONCE = 16  # maps with one cell missing


@dataclass(frozen=True)
class Warp:
    """FAM as it read a batch: needed where the map lies before it.

    Parameters
    ----------
    theta : float32 [B, 2, 3]
    source_cell : int [B, y, x]
    sampling : {"nearest", "bilinear"}
    """

    theta: Float
    source_cell: NDArray[np.integer]
    sampling: Sampling

    def of(self, maps: Tensor, rows: slice = slice(None)) -> Tensor:
        """Carry maps [B, K, y, x] of the samples `rows` to the aligned grid: nearest sampling by the cells that the network really copied."""
        if self.sampling == "bilinear":
            return resample(maps, torch.from_numpy(np.ascontiguousarray(self.theta[rows])).expand(len(maps), -1, -1), self.sampling)
        index = torch.from_numpy(self.source_cell[rows].astype(np.int64)).flatten(1)[:, None].expand(len(maps), maps.shape[1], -1)
        return maps.flatten(2).gather(2, index).view_as(maps)


@dataclass(frozen=True)
class MaxPooled:
    """A batch of maps behind max pooling; as a Removal, each cell set to zero in all channels.

    Parameters
    ----------
    maps : float [B, y, x, K]
    boundary : int [B, P]
    warp : Warp or None
        FAM, where the maps lie before it.
    """

    maps: Float
    boundary: NDArray[np.integer]
    warp: Warp | None
    is_linear = False

    def gradient(self, direction: Float) -> Float:
        """Carry dy/dz [B, P, K] back to the cells, [B, N, K]: to the one that is the maximum, to none where the floor of zero is."""
        cells = torch.tensor(np.moveaxis(self.maps, 3, 1)).requires_grad_()
        with torch.enable_grad():
            pooled = self._pool(cells, slice(None))
            (found,) = torch.autograd.grad(pooled, cells, torch.tensor(np.swapaxes(direction, 1, 2)).to(pooled.dtype))
        return found.flatten(2).transpose(1, 2).numpy()

    def through(self, sample: int, part: int, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The matrix times what z_part loses without each cell."""
        cells = torch.tensor(np.moveaxis(self.maps[sample], 2, 0))[None]
        rows, count = slice(sample, sample + 1), cells.shape[2] * cells.shape[3]
        whole = self._pool(cells, rows)[0, :, part]
        lost = []
        for start in range(0, count, _AT_ONCE):
            missing = torch.arange(start, min(start + _AT_ONCE, count))
            kept = torch.ones(len(missing), 1, count, dtype=cells.dtype)
            kept[torch.arange(len(missing)), 0, missing] = 0
            rest = cells * kept.view(-1, 1, *cells.shape[2:])
            lost.append(whole - self._pool(rest, rows)[:, :, part])
        return torch.cat(lost).double().numpy() @ matrix.T

    def _pool(self, cells: Tensor, rows: slice) -> Tensor:
        boundary = torch.from_numpy(self.boundary[rows].astype(np.int64)).expand(len(cells), -1)
        return POOLINGS["max"](self.warp.of(cells, rows) if self.warp else cells, boundary)
