"""The first principal component of a map's cells, with a sign that does not depend on chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating]
_SMALL = 32  # cells; below this, and where Lanczos' iteration does not converge, all eigenvectors are found at once
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
        Square root of the largest eigenvalue times its eigenvector of the N x N Gram matrix; NaN where a cell is not finite. An eigenvector's
        sign is undefined: the cell farthest from zero is made positive; of cells as far but for a ten-thousandth, the first in row-major order.
    """
    return np.stack([_of_one(sample) for sample in cells])


def _of_one(cells: Float) -> Float:
    centred = cells - cells.mean(axis=0)
    gram = centred @ centred.T
    if not np.isfinite(gram).all():
        return np.full_like(cells, np.nan, shape=len(cells))
    value, vector = _largest(gram)
    score = np.sqrt(np.maximum(value, 0)) * vector
    farthest = (np.abs(score) >= (1 - _TIE) * np.abs(score).max()).argmax()
    return np.asarray(score if score[farthest] >= 0 else -score)


def _largest(gram: Float) -> tuple[float, Float]:
    """Largest eigenvalue of a symmetric matrix and its eigenvector; started from the matrix itself, so that the same map gives the same bits."""
    import scipy.linalg  # the table of methods is read by commands that compute nothing
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    start = gram[np.diag(gram).argmax()]
    if len(gram) >= _SMALL and start.any():
        try:
            value, vector = eigsh(gram, k=1, v0=start)
            return value[0], vector[:, 0]
        except ArpackNoConvergence:
            pass
    values, vectors = scipy.linalg.eigh(gram, check_finite=False)
    return values[-1], vectors[:, -1]
