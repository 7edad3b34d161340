"""The first principal component of a map's cells, with a sign that does not depend on chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating]
_SMALL = 32  # cells; of so few, all eigenvectors are found at once
_STEPS = 48  # of Lanczos' iteration; maps take 6 to 15
_LOOK_EVERY = 3  # steps
_ROUNDINGS = 64  # units of rounding that a map may be off, of its maximum: in float32 7.6e-6
_LEAST_GAP = 0.01  # between the two largest eigenvalues, over the largest; below this, the rounding of float32 turns the component
_TIE = 1e-4  # two cells lie equally far from their mean: rounding must not choose the sign


def first_component(cells: Float) -> Float:
    """Scores of the cells on their first principal component.

    Parameters
    ----------
    cells : float [B, N, K]
        One row per cell. The mean over the cells is taken off first.

    Returns
    -------
    float [B, N]
        Square root of the largest eigenvalue times its eigenvector of the N x N Gram matrix, within 64 units of rounding of the map's maximum; NaN
        where a cell is not finite. An eigenvector's sign is undefined: the cell farthest from zero is made positive; of cells as far but for a
        ten-thousandth, the first in row-major order. Where the two largest eigenvalues differ by less than a hundred-thousandth of them, any
        direction between their eigenvectors may be the component.

    Notes
    -----
    Lanczos' iteration (Golub and Van Loan 2013, "Matrix Computations", 4th ed., section 10.1), with full orthogonalisation and on the cells
    themselves: a step reads them twice, and a Gram matrix costs as much as 20 steps. Where it does not converge, and where rounding would count, the
    Gram matrix is formed in float64 and all of its eigenvectors are found. The start depends on nothing: the same map gives the same bits.
    """
    count = cells.shape[1]
    with np.errstate(invalid="ignore", over="ignore"):  # of cells that are not finite, and of squares that float32 cannot hold
        centred = cells - np.matmul(np.full((1, count), 1 / count, cells.dtype), cells)  # ten times as fast as `mean`
        start = np.asarray(np.random.default_rng(0).standard_normal(cells.shape[2]), cells.dtype)
        return np.stack([_signed(_scores(*of_sample, start)) for of_sample in zip(cells, centred, strict=True)])


def _scores(cells: Float, centred: Float, start: Float) -> Float:
    """Of the cells [N, K] of a sample, with whatever sign."""
    first = centred @ start
    if not np.isfinite(first).all():
        return np.full_like(first, np.nan)
    found = _by_iteration(centred, first) if len(cells) >= _SMALL and first.any() else None
    return _exactly(cells) if found is None else found


def _by_iteration(cells: Float, first: Float) -> Float | None:
    """Of centred cells, from a combination of the channels; None where the scores are not found within the tolerance."""
    basis, projected = np.empty((_STEPS, len(cells)), cells.dtype), np.zeros((_STEPS, _STEPS))
    tolerance = _ROUNDINGS * np.finfo(cells.dtype).eps
    scale = cells.dtype.type(np.linalg.norm(first.astype(np.float64)))  # of the cells: no square of theirs is taken
    left = first / scale
    for step in range(_STEPS):
        basis[step] = left / np.sqrt(left @ left)
        known = basis[: step + 1]
        image = cells @ (basis[step] @ cells / scale) / scale
        projected[step, : step + 1] = share = known @ image
        left = image - share @ known
        left -= (known @ left) @ known  # twice is enough: Parlett 1998, "The Symmetric Eigenvalue Problem", section 6.9
        residual = np.sqrt(left @ left)
        if step % _LOOK_EVERY == _LOOK_EVERY - 1 or residual <= tolerance * projected[0, 0]:
            values, vectors = np.linalg.eigh(projected[: step + 1, : step + 1])
            vector, gap = vectors[:, -1].astype(cells.dtype) @ known, values[-1] - (values[-2] if step else 0)
            if residual * abs(vectors[-1, -1]) <= tolerance * np.abs(vector).max() * gap:
                return np.asarray(scale * np.sqrt(values[-1]) * vector, cells.dtype) if gap >= _LEAST_GAP * values[-1] else None
    return None


def _exactly(cells: Float) -> Float:
    """In float64, the mean included, of the Gram matrix's eigenvectors."""
    exact = cells.astype(np.float64)
    exact -= exact.mean(axis=0)
    values, vectors = np.linalg.eigh(exact @ exact.T)
    return np.asarray(np.sqrt(max(values[-1], 0)) * vectors[:, -1], cells.dtype)


def _signed(scores: Float) -> Float:
    farthest = (np.abs(scores) >= (1 - _TIE) * np.abs(scores).max()).argmax()
    return scores if scores[farthest] >= 0 else -scores
