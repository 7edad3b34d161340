"""FPM, the feature partition module: square rings around the centre of the map, cut at boundaries found per sample.

Rings, their numbers and their symbols are those of safenet/rings.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from safenet.architecture import Pooling
from safenet.rings import ring_numbers


def ring_saliency(features: Tensor) -> Tensor:
    """Mean of the channel maximum over each ring, divided (as upstream does) by the whole square's area.

    S_r = sum over ring r of max_k A[k] / (4 r^2). Because a ring is upstream's square minus its inner square, a value
    that is not finite also spoils every ring further out.

    Parameters
    ----------
    features : Tensor [B, D, H, W]

    Returns
    -------
    Tensor [B, R] of float32
    """
    strongest = features.float().amax(dim=1).flatten(1)
    ring = _ring_numbers(features).flatten()
    radius = torch.arange(1, features.shape[2] // 2 + 1, device=features.device)
    inside = ring[:, None] == radius[None, :]
    total = torch.where(inside, strongest[:, :, None], 0.0).sum(dim=1)
    spoilt = torch.cat([torch.zeros_like(total[:, :1]), total[:, :-1]], dim=1).cumsum(dim=1) * 0.0
    return (total + spoilt) / (4 * radius * radius)


def find_boundaries(saliency: Tensor, parts: int) -> Tensor:
    """Cut the rings where the saliency is midway between the ends of the range, recursively, all samples at once.

    In the range lo ... hi the cut is the first ring t that minimises | |S_t - S_lo| - |S_t - S_hi| |, held away from
    the ends so that the ranges on both sides can still be cut as often as needed.

    Parameters
    ----------
    saliency : Tensor [B, R]
    parts : int
        A power of two, at most R.

    Returns
    -------
    Tensor [B, parts] of int64
        Strictly increasing half-widths in cells; the last is R.

    Raises
    ------
    ValueError
        If `parts` cannot be cut out of R rings.
    """
    batch, rings = saliency.shape
    if parts < 1 or parts & (parts - 1) or parts > rings:
        raise ValueError(f"{parts} parts cannot be cut out of {rings} rings; expected a power of two, at most {rings}")
    low = torch.zeros(batch, dtype=torch.int64, device=saliency.device)
    cuts = _cut(saliency, low, low + rings - 1, parts // 2)
    return torch.stack([*cuts, low + rings], dim=1)


def pool_rings(features: Tensor, boundary: Tensor) -> Tensor:
    """Part features: the sum of the map over each part's cells, divided by the area of the part's whole square.

    z_p = sum over the cells between b_(p-1) and b_p of A / (4 b_p^2).

    Parameters
    ----------
    features : Tensor [B, D, H, W]
    boundary : Tensor [B, P] of int64

    Returns
    -------
    Tensor [B, D, P]
    """
    outer = boundary[:, :, None, None]
    weight = (_part_cells(features, boundary) / (4.0 * outer * outer)).to(features.dtype)
    return torch.bmm(features.flatten(2), weight.flatten(2).transpose(1, 2))


def pool_rings_max(features: Tensor, boundary: Tensor) -> Tensor:
    """Part features as upstream's unused `max` mode takes them: the channel maximum over each part's square, its inner square zeroed.

    So 0 is a floor for every part but the first, which has no inner square. The gradient goes to the one cell that is the
    maximum, and to none where the floor is.

    Parameters
    ----------
    features : Tensor [B, D, H, W]
    boundary : Tensor [B, P] of int64

    Returns
    -------
    Tensor [B, D, P]
    """
    inside = _part_cells(features, boundary).flatten(2)
    cells = features.flatten(2)
    strongest = [cells.masked_fill(~part[:, None], -torch.inf).max(dim=2).values for part in inside.unbind(1)]
    return torch.stack([strongest[0], *(part.clamp(min=0) for part in strongest[1:])], dim=2)


POOLINGS: Mapping[Pooling, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType({"mean": pool_rings, "max": pool_rings_max})


def _ring_numbers(features: Tensor) -> Tensor:
    """Ring of each cell of a map [B, D, H, W], int64 [H, W]."""
    return torch.tensor(ring_numbers((features.shape[2], features.shape[3])), device=features.device)


def _part_cells(features: Tensor, boundary: Tensor) -> Tensor:
    """Which cells each part has: bool [B, P, H, W]."""
    ring, outer = _ring_numbers(features), boundary[:, :, None, None]
    inner = torch.cat([torch.zeros_like(outer[:, :1]), outer[:, :-1]], dim=1)
    return (ring > inner) & (ring <= outer)


def _cut(saliency: Tensor, low: Tensor, high: Tensor, room: int) -> list[Tensor]:
    """Cut low ... high (0-based rings, [B]) into 2 * room ranges; `room` rings must stay free at either end."""
    if room == 0:
        return []
    ring = torch.arange(saliency.shape[1], device=saliency.device)
    at_low, at_high = (saliency.gather(1, end[:, None]) for end in (low, high))
    distance = ((saliency - at_low).abs() - (saliency - at_high).abs()).abs()
    outside = (ring < low[:, None]) | (ring > high[:, None])
    cut = distance.masked_fill(outside, torch.inf).argmin(dim=1)
    cut = torch.minimum(torch.maximum(cut, low + room), high - room + 1)
    return [*_cut(saliency, low, cut - 1, room // 2), cut, *_cut(saliency, cut, high, room // 2)]
