"""What has no closed form, by autograd on what is stored: heads with an activation, and parts that are channel maxima.

The one module after `extract` that needs torch. It is imported where such heads or such a pooling are met, and nowhere else. Upstream has both and
uses neither: the published network has its closed forms, see stages/cam/gradients.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safenet.alignment import resample
from safenet.architecture import HeadActivation, Sampling
from safenet.head_arrays import HeadArrays
from safenet.heads import build_head
from safenet.partition import POOLINGS
from stages.targets.part_heads import Exact, Float, Output, Removal

_AT_ONCE = 16  # maps with one cell missing


@dataclass(frozen=True)
class AutogradHeads:
    """Heads of any kind, by autograd.

    Parameters
    ----------
    arrays : sequence of mapping
        The arrays of safenet.head_arrays.HEAD_ARRAYS, of each part's head.
    activation : {"none", "leaky_relu"}
        What follows BatchNorm.
    """

    arrays: Sequence[HeadArrays]
    activation: HeadActivation
    is_affine = False

    @property
    def count(self) -> int:
        """P."""
        return len(self.arrays)

    def at_zero(self, output: Output) -> Exact:
        """Run on zeros."""
        zero = np.zeros((1, self.arrays[0]["w1"].shape[1]))
        return np.concatenate([self._run(output, part, zero) for part in range(self.count)])

    def back(self, output: Output, gradient: Exact, part_feature: Float) -> Exact:
        """Vector-Jacobian products at the part features."""
        found = []
        for part in range(self.count):
            value = torch.tensor(part_feature[:, part], dtype=torch.float64, requires_grad=True)
            with torch.enable_grad():
                result = self._modules[part](value)[output == "logit"]
                found.append(torch.autograd.grad(result, value, torch.from_numpy(np.ascontiguousarray(gradient[:, part])))[0].numpy())
        return np.stack(found, axis=1)

    def class_gradient(self, index: NDArray[np.int64], part_feature: Float) -> Exact:
        """As `back`, of a one in the class's place."""
        classes = self.arrays[0]["w2"].shape[0]
        one_hot = np.eye(classes)[index][:, None].repeat(self.count, axis=1)
        return self.back("logit", one_hot, part_feature)

    def without(self, output: Output, whole: Exact, part_feature: Float, removal: Removal, sample: int, part: int) -> Exact:
        """Run on what is left of the part feature; `whole` differs from the run on all of it by rounding alone, and is not needed."""
        feature = part_feature[sample, part].astype(np.float64)
        return self._run(output, part, feature - removal.through(sample, part, np.eye(len(feature))))

    def _run(self, output: Output, part: int, feature: Exact) -> Exact:
        with torch.no_grad():
            found: Exact = self._modules[part](torch.from_numpy(feature))[output == "logit"].numpy()
        return found

    @cached_property
    def _modules(self) -> list[torch.nn.Module]:
        return [build_head(arrays, self.activation, torch.float64) for arrays in self.arrays]


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
