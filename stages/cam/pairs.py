"""Which cells of one image are similar to which cells of another, as the heads compare them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

OUTSIDE = -1
Float = NDArray[np.floating]


def cell_similarity(
    cells: Float, part: NDArray[np.integer], others: Float, embed_matrices: Sequence[NDArray[np.float64]], *, normalise: bool = True
) -> NDArray[np.float64]:
    """Compare every cell of an image with every cell of another: (E_p A_n) . (E_p A'_m), p the ring that cell n lies in.

    Parts are compared with their own kind alone, so that both cells go through the head of the first one's ring, wherever the second one lies.

    Parameters
    ----------
    cells : float [N, K]
        A, on the aligned grid.
    part : int [N]
        Ring of each cell, 0 the innermost part, OUTSIDE for none.
    others : float [M, K]
        A'.
    embed_matrices : sequence of float64 [E, K]
        Of the parts, without their constants.
    normalise : bool
        Cosines; else inner products.

    Returns
    -------
    float64 [N, M]
        NaN for cells outside of all rings, and for cosines with a cell of zeros.
    """
    found = np.full((len(cells), len(others)), np.nan)
    for number, matrix in enumerate(embed_matrices):
        rows = part == number
        if rows.any():
            own, other = cells[rows].astype(np.float64) @ matrix.T, others.astype(np.float64) @ matrix.T
            if normalise:
                own, other = (_unit(values) for values in (own, other))
            found[rows] = own @ other.T
    return found


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows over their length; NaN for rows of zeros, which have no direction."""
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(norm > 0, norm, np.nan))


def part_of_cells(weights: Float) -> NDArray[np.intp]:
    """Ring of each cell from R_p [P, N]: the part that it counts in, OUTSIDE for none."""
    return np.where(weights.any(axis=0), weights.argmax(axis=0), OUTSIDE)


def query_cells(heat: Float, count: int, apart: int) -> list[tuple[int, int]]:
    """Pick the hottest cells of a map that are not neighbours.

    Parameters
    ----------
    heat : float [h, w]
        NaN where there is none.
    count : int
        How many at most.
    apart : int
        Least distance in rows or columns, in cells.

    Returns
    -------
    list of (y, x)
        The hottest first; fewer than `count` where there is no more room.
    """
    left = np.where(np.isfinite(heat), heat, -np.inf)
    rows, columns = np.indices(heat.shape)
    found: list[tuple[int, int]] = []
    while len(found) < count and np.isfinite(left).any():
        y, x = (int(index) for index in np.unravel_index(left.argmax(), left.shape))
        found.append((y, x))
        left[(np.abs(rows - y) < apart) & (np.abs(columns - x) < apart)] = -np.inf
    return found
