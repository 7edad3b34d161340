"""FAM's bilinear sampling in NumPy, as a sparse matrix; safenet/alignment.py is the same in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_IDENTITY = np.eye(2, 3)


def sampling_matrix(theta: NDArray[np.floating], size: tuple[int, int]) -> csr_array:
    """What `safenet.alignment.resample` blends under bilinear sampling, the border replicated, in float64.

    Parameters
    ----------
    theta : float [B, 2, 3]
        Maps normalised output coordinates to normalised input coordinates, corners at the centres of the corner cells.
    size : (int, int)
        Grid (height, width), at least 2 x 2.

    Returns
    -------
    csr_array [B * N, B * N]
        N = height * width, row-major, sample after sample: a row is a cell of the aligned grid and has the shares of the four cells of the patch
        grid that it reads. They add up to 1; NaN where the warp is not finite.
    """
    from scipy.sparse import csr_array  # here: it takes a fifth of a second to import, and nearest sampling does without

    height, width = size
    finite = np.isfinite(theta).all(axis=(1, 2))[:, None, None]
    row, column = np.indices(size).reshape(2, -1)
    output = np.stack([2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1, np.ones(len(row))])
    x, y = (np.where(finite, theta, _IDENTITY).astype(np.float64) @ output).swapaxes(0, 1)
    left, across = _between(x, width)
    top, down = _between(y, height)
    of_column, of_row = (np.stack([1 - share, share], axis=-1) for share in (across, down))
    shares = np.where(finite, (of_row[..., :, None] * of_column[..., None, :]).reshape(*left.shape, 4), np.nan)
    first = np.arange(len(theta))[:, None] * height * width + top * width + left
    cells = first[..., None] + [0, 1, width, width + 1]
    return csr_array((shares.ravel(), cells.ravel(), np.arange(first.size + 1) * 4), shape=(first.size, first.size))


def _between(coordinate: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The cell before a normalised coordinate along an axis of `count` cells, and the share of the one after it."""
    place = np.clip((coordinate + 1) / 2 * (count - 1), 0, count - 1)
    before = np.minimum(place.astype(np.int64), count - 2)
    return before, place - before
