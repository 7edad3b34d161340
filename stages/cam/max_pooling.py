"""Heads that see each part's channel maxima: no closed form, so that gradients and removals go through the pooling itself, on the stored map.

Upstream's FPM has this mode and never uses it. Mean pooling, the published one, needs none of this: see stages/cam/gradients.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safenet.architecture import Sampling
from safenet.rings import part_cells
from stages.cam.frames import carry_back, carry_forward

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

    def forward(self, maps: Float, rows: slice = slice(None)) -> Float:
        """Carry maps [B, K, y, x] of the samples `rows`, or several of one sample, to the aligned grid."""
        theta = self.theta[rows]
        of_samples = maps.reshape(len(theta), -1, *maps.shape[2:])
        return carry_forward(of_samples, theta, self.source_cell[rows], self.sampling).reshape(maps.shape)

    def back(self, gradient: Float) -> Float:
        """Carry a gradient [B, K, y, x] back from the aligned grid."""
        return carry_back(gradient, self.theta, self.source_cell, self.sampling)


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
        maps = np.moveaxis(self.maps, 3, 1)
        cells = (self.warp.forward(maps) if self.warp else maps).reshape(*maps.shape[:2], -1)
        found = np.zeros_like(cells)
        for part, inside in enumerate(self._inside(slice(None)).swapaxes(0, 1)):
            seen = np.where(inside[:, None], cells, -np.inf)
            hottest = seen.argmax(axis=2)[..., None]
            passes = np.take_along_axis(seen, hottest, axis=2)[..., 0] >= _floor(part)
            np.put_along_axis(found, hottest, np.where(passes, direction[:, part], 0)[..., None], axis=2)  # each cell is in one part at most
        carried = found.reshape(maps.shape)
        return (self.warp.back(carried) if self.warp else carried).reshape(cells.shape).swapaxes(1, 2)

    def through(self, sample: int, part: int, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The matrix times what z_part loses without each cell."""
        maps, rows = np.moveaxis(self.maps[sample], 2, 0)[None], slice(sample, sample + 1)
        count, lost = maps.shape[2] * maps.shape[3], []
        whole = self._pooled(maps, rows, part)
        for start in range(0, count, _AT_ONCE):
            missing = np.arange(start, min(start + _AT_ONCE, count))
            kept = np.ones((len(missing), 1, count), maps.dtype)
            kept[np.arange(len(missing)), 0, missing] = 0
            lost.append(whole - self._pooled(maps * kept.reshape(-1, 1, *maps.shape[2:]), rows, part))
        return np.concatenate(lost).astype(np.float64) @ matrix.T

    def _pooled(self, maps: Float, rows: slice, part: int) -> Float:
        """z_part [B, K] of maps [B, K, y, x], several of one sample."""
        cells = (self.warp.forward(maps, rows) if self.warp else maps).reshape(*maps.shape[:2], -1)
        return np.maximum(cells[:, :, self._inside(rows)[0, part]].max(axis=2), _floor(part))

    def _inside(self, rows: slice) -> NDArray[np.bool_]:
        """Which cells each part has, [B, P, N]."""
        return part_cells(self.boundary[rows], self.maps.shape[1:3]).reshape(len(self.boundary[rows]), self.boundary.shape[1], -1)


def _floor(part: int) -> float:
    """The inner square of every part but the first is zeroed, so that its maximum is 0 at least."""
    return 0.0 if part else -np.inf
