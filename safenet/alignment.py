"""FAM, the feature alignment module: one affine warp per sample, predicted from the CLS token.

Frames: `theta` maps normalised output coordinates (x, y) in [-1, 1] to normalised input coordinates, corners at the
centres of the corner cells (align_corners=True). The output lies on the aligned grid, the input on the patch grid,
which is the frame of the (resized) photo.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from safenet.architecture import Sampling


class LocNet(nn.Module):
    """The localisation network: CLS feature [B, D] -> theta [B, 2, 3]; starts at the identity."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        last = nn.Linear(hidden, 6)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))
        self.fc_loc = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), last)

    def forward(self, global_feature: Tensor) -> Tensor:
        """Predict theta; row 0 gives the input's x, row 1 its y."""
        return self.fc_loc(global_feature).view(-1, 2, 3)


def resample(features: Tensor, theta: Tensor, sampling: Sampling) -> Tensor:
    """Warp a map.

    Parameters
    ----------
    features : Tensor [B, D, H, W]
        On the patch grid.
    theta : Tensor [B, 2, 3]
    sampling : {"nearest", "bilinear"}
        Both replicate the border. Nearest rounds half to even, and its gradient to theta is exactly zero.

    Returns
    -------
    Tensor [B, D, H, W]
        On the aligned grid; NaN where theta is not finite.

    Notes
    -----
    `grid_sample` must never see a coordinate that is not finite: its backward pass then writes out of bounds (pytorch#24823).
    """
    known = _is_finite(theta)
    grid = F.affine_grid(torch.where(known, theta.float(), _identity(theta)), list(features.shape), align_corners=True)
    warped = F.grid_sample(features, grid.to(features.dtype), mode=sampling, padding_mode="border", align_corners=True)
    return torch.where(known[..., None], warped, torch.nan)


def source_cells(theta: Tensor, size: tuple[int, int]) -> Tensor:
    """Which patch token each aligned cell copies.

    Resampling a map of cell numbers takes every tie exactly as the map itself takes it.

    Parameters
    ----------
    theta : Tensor [B, 2, 3]
    size : (int, int)
        Grid (height, width).

    Returns
    -------
    Tensor [B, H, W] of int64
        Row-major patch token index (CLS not counted). Under bilinear sampling: the nearest one. Where theta is not finite: its own.
    """
    height, width = size
    numbers = torch.arange(height * width, dtype=torch.float32, device=theta.device)
    numbers = numbers.view(1, 1, height, width).expand(len(theta), -1, -1, -1)
    warped = torch.where(_is_finite(theta)[..., None], resample(numbers, theta, "nearest"), numbers)
    return warped.squeeze(1).to(torch.int64)


def resample_adjoint(weights: Tensor, theta: Tensor, sampling: Sampling) -> Tensor:
    """Carry weights on the aligned grid back to the patch grid: the transpose of `resample`.

    sum(resample(a) * w) = sum(a * resample_adjoint(w)) for every a: this is how a gradient passes FAM.

    Parameters
    ----------
    weights : Tensor [B, P, H, W]
        On the aligned grid.
    theta : Tensor [B, 2, 3]
    sampling : {"nearest", "bilinear"}

    Returns
    -------
    Tensor [B, P, H, W]
        On the patch grid; NaN where theta is not finite.
    """
    with torch.enable_grad():
        probe = torch.zeros_like(weights, requires_grad=True)
        found = torch.autograd.grad(resample(probe, theta.detach(), sampling), probe, weights)[0]
    return torch.where(_is_finite(theta)[..., None], found, torch.nan)


def _is_finite(theta: Tensor) -> Tensor:
    """Whether each warp is a warp, bool [B, 1, 1]."""
    return theta.isfinite().all(dim=2).all(dim=1)[:, None, None]


def _identity(theta: Tensor) -> Tensor:
    return torch.eye(2, 3, device=theta.device)
