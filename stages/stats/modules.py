"""Figures of FAM's warp and FPM's cuts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.finite import whole_or_nothing

ROUNDING = 1e-5  # a relative change of the map below this is float32 rounding of an identity warp
WARP_FIGURES = ("scale_x", "scale_y", "rotation_deg", "shear", "shift_x", "shift_y")


def decompose_theta(theta: NDArray[np.floating]) -> NDArray[np.float64]:
    """Split each warp into scale, rotation, shear and shift.

    The linear part is rotation(a) @ [[scale_x, scale_x * shear], [0, scale_y]]; a negative scale_y is a reflection.

    Parameters
    ----------
    theta : [n, 2, 3]
        Output to input, normalised coordinates: a scale below 1 magnifies the middle of the photo.

    Returns
    -------
    float64 [n, 6]
        In the order of WARP_FIGURES; rotation in degrees, shifts in half image sides. NaN for a warp that is not finite.
    """
    (a, b, shift_x), (c, d, shift_y) = np.moveaxis(whole_or_nothing(theta).astype(np.float64), 0, -1)
    scale_x = np.hypot(a, c)
    divisor = np.where(scale_x > 0, scale_x, np.nan)
    return np.stack([scale_x, (a * d - b * c) / divisor, np.degrees(np.arctan2(c, a)), (a * b + c * d) / divisor**2, shift_x, shift_y], axis=1)


def moved_share(source_cell: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of each sample's aligned cells that copy another patch cell than their own; [n, H, W] -> [n]."""
    flat = source_cell.reshape(len(source_cell), -1)
    return (flat != np.arange(flat.shape[1])).mean(axis=1)


def boundary_counts(boundary: NDArray[np.integer], rings: int) -> NDArray[np.int64]:
    """How often each part ends at each ring: [n, P] -> [P, R], ring 1 first."""
    return (boundary[:, :, None] == np.arange(1, rings + 1)).sum(axis=0)
