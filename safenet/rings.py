"""The rings of FPM in NumPy: which cells each part has, and how it pools them; safenet/partition.py is the same in torch.

Symbols: c = floor(H/2) is the centre, R = floor(H/2) the number of rings; the square of half-width r covers rows and
columns c-r ... c+r-1, and ring r is that square without the one of half-width r-1. On odd grids the last row and
column lie outside of every ring. A boundary b is a half-width in cells: rings 1 ... b lie inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from safenet.architecture import Pooling

Float = NDArray[np.floating]


@lru_cache(maxsize=8)
def ring_numbers(size: tuple[int, int]) -> NDArray[np.int64]:
    """Ring of each cell, int64 [H, W], not to be written into: 1 at the centre ... R at the rim, 0 outside of all rings (odd grids).

    Raises
    ------
    ValueError
        If the grid is not square.
    """
    height, width = size
    if height != width:
        raise ValueError(f"the map is {height} x {width} cells; FPM is defined on square grids")
    centre = height // 2
    offset = np.arange(height) - centre
    half_width = np.maximum(-offset, offset + 1)  # the smallest square that holds this row
    ring = np.maximum(half_width[:, None], half_width[None, :])
    found = np.where(ring > centre, 0, ring)
    found.flags.writeable = False
    return found


def part_cells(boundary: NDArray[np.integer], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which cells each part has.

    Parameters
    ----------
    boundary : int [B, P]
    size : (int, int)
        Grid (height, width).

    Returns
    -------
    bool [B, P, H, W]
    """
    ring, outer = ring_numbers(size), boundary[:, :, None, None]
    inner = np.concatenate([np.zeros_like(outer[:, :1]), outer[:, :-1]], axis=1)
    return np.asarray((ring > inner) & (ring <= outer))


def ring_weights(boundary: NDArray[np.integer], size: tuple[int, int]) -> NDArray[np.float32]:
    """R_p of every part as a map: 1 / (2 b_p)^2 on the part's cells, 0 elsewhere; float32 [B, P, H, W], parameters as in `part_cells`."""
    outer = boundary[:, :, None, None].astype(np.float32)
    return part_cells(boundary, size) / (4 * outer * outer)


def find_boundaries(saliency: Float, parts: int) -> NDArray[np.int64]:
    """Where FPM cuts the rings of one sample, as `safenet.partition.find_boundaries` does for a batch.

    Parameters
    ----------
    saliency : float [R]
    parts : int
        A power of two, at most R.

    Returns
    -------
    int64 [parts]
    """
    return np.array([*_cut(saliency, 0, len(saliency) - 1, parts // 2), len(saliency)])


def boundaries_of_a_constant_map(rings: int, parts: int) -> NDArray[np.int64]:
    """Where FPM cuts a map whose cells are all alike: a ring's saliency is then the ring's share of its square."""
    radius = np.arange(1, rings + 1, dtype=np.float32)
    return find_boundaries((radius**2 - (radius - 1) ** 2) / radius**2, parts)


def _cut(saliency: Float, low: int, high: int, room: int) -> list[int]:
    """Cut the rings low ... high, counted from 0, into 2 * room ranges; `room` rings must stay free at either end."""
    if room == 0:
        return []
    within = saliency[low : high + 1]
    cut = low + int(np.abs(np.abs(within - saliency[low]) - np.abs(within - saliency[high])).argmin())
    cut = min(max(cut, low + room), high - room + 1)
    return [*_cut(saliency, low, cut - 1, room // 2), cut, *_cut(saliency, cut, high, room // 2)]


def pool_rings(cells: Float, boundary: NDArray[np.integer], size: tuple[int, int]) -> Float:
    """Part features: z_p = sum over the part's cells of A / (4 b_p^2).

    Parameters
    ----------
    cells : float [B, H * W, D]
    boundary : int [B, P]
    size : (int, int)
        Grid (height, width).

    Returns
    -------
    float [B, P, D]
    """
    weights = ring_weights(boundary, size).reshape(*boundary.shape, -1)
    return np.matmul(weights.astype(cells.dtype), cells)


def pool_rings_max(cells: Float, boundary: NDArray[np.integer], size: tuple[int, int]) -> Float:
    """Part features as the channel maximum over each part's cells, and 0 but for the first part; as `pool_rings`."""
    inside = part_cells(boundary, size).reshape(*boundary.shape, -1)
    strongest = np.stack([np.where(part[:, :, None], cells, -np.inf).max(axis=1) for part in inside.swapaxes(0, 1)], axis=1)
    strongest[:, 1:] = np.maximum(strongest[:, 1:], 0)  # the inner square is zeroed, so that 0 is a floor
    return strongest


POOLINGS: Mapping[Pooling, Callable[[Float, NDArray[np.integer], tuple[int, int]], Float]] = MappingProxyType(
    {"mean": pool_rings, "max": pool_rings_max}
)
