"""Figures of FAM's warp and FPM's cuts, an image.

Every function takes `Modules` of n images and returns float64 [n, ...], NaN where undefined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safenet.rings import boundaries_of_a_constant_map
from stages.finite import finite_rows, whole_or_nothing

Float = NDArray[np.float64]
ROUNDING = 1e-5  # a relative change of the map below this is float32 rounding of an identity warp
WARP_FIGURES = ("scale_x", "scale_y", "rotation_deg", "shear", "shift_x", "shift_y")


@dataclass(frozen=True)
class Modules:
    """What the features tell of n images.

    Attributes
    ----------
    valid : bool [n]
    theta : float32 [n, 2, 3]
    source_cell : int [n, H, W]
    fam_change : float32 [n]
    saliency : float32 [n, R]
    boundary : int [n, P]
    """

    valid: NDArray[np.bool_]
    theta: NDArray[np.floating]
    source_cell: NDArray[np.integer]
    fam_change: NDArray[np.floating]
    saliency: NDArray[np.floating]
    boundary: NDArray[np.integer]


MODULE_FEATURES = ("valid", "theta", "source_cell", "fam_change", "saliency", "boundary")  # the fields of Modules


def moved_cells(images: Modules) -> Float:
    """Share of the aligned cells that copy another patch cell than their own."""
    known = images.valid.astype(bool) & finite_rows(images.theta)
    return np.where(known, moved_share(images.source_cell), np.nan)


def fam_change(images: Modules) -> Float:
    """Norm of (aligned map - patch map) over norm of the patch map."""
    return np.where(images.valid, whole_or_nothing(images.fam_change.astype(np.float64)), np.nan)


def warp(images: Modules) -> Float:
    """Scale, rotation, shear and shift of FAM's warp, output to input; rotation in degrees, shifts in half image sides."""
    return decompose_theta(images.theta)


def boundary(images: Modules) -> Float:
    """Half-width of each part's square in cells, the innermost first; NaN where the saliency that cut it is not finite."""
    return np.where(finite_rows(images.saliency)[:, None], images.boundary, np.nan)


def cut_as_constant(images: Modules) -> Float:
    """Whether FPM cuts where it cuts a map whose cells are all alike: 1 or 0."""
    constant = boundaries_of_a_constant_map(images.saliency.shape[1], images.boundary.shape[1])
    return np.where(finite_rows(images.saliency), (images.boundary == constant).all(axis=1), np.nan)


def decompose_theta(theta: NDArray[np.floating]) -> Float:
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


def moved_share(source_cell: NDArray[np.integer]) -> Float:
    """Share of each sample's aligned cells that copy another patch cell than their own; [n, H, W] -> [n]."""
    flat = source_cell.reshape(len(source_cell), -1)
    return (flat != np.arange(flat.shape[1])).mean(axis=1)
