"""Between the aligned grid, where FAM's output lies, and the patch grid, which is the frame of the (squashed) photo."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from safenet.architecture import Sampling
from safenet.warps import sampling_matrix

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Float = NDArray[np.floating]


def carry_back(weights: Float, theta: NDArray[np.float32], source_cell: NDArray[np.integer], sampling: Sampling) -> Float:
    """Transpose of FAM's resampling: where on the patch grid each weight on the aligned grid was read.

    Parameters
    ----------
    weights : float [B, P, H, W]
        On the aligned grid.
    theta : float32 [B, 2, 3]
        Read under bilinear sampling.
    source_cell : int [B, H, W]
        Read under nearest sampling: the cells that the network really copied, whatever device rounded the ties.
    sampling : {"nearest", "bilinear"}

    Returns
    -------
    float [B, P, H, W]
        On the patch grid, in the type of the weights; the sum over the cells is kept.
    """
    if sampling == "bilinear":
        return _through(sampling_matrix(theta, (weights.shape[2], weights.shape[3])).T, weights)
    batch, channels, height, width = weights.shape
    first = np.arange(0, weights.size, height * width).reshape(batch, channels, 1)
    found = np.zeros(weights.size, weights.dtype)
    np.add.at(found, (first + source_cell.reshape(batch, 1, height * width)).ravel(), weights.ravel())
    return found.reshape(weights.shape)


def carry_forward(values: Float, theta: NDArray[np.float32], source_cell: NDArray[np.integer], sampling: Sampling) -> Float:
    """FAM's resampling: what each cell of the aligned grid reads of values [B, P, H, W] on the patch grid; parameters as in `carry_back`."""
    if sampling == "bilinear":
        return _through(sampling_matrix(theta, (values.shape[2], values.shape[3])), values)
    batch, channels, height, width = values.shape
    index = source_cell.astype(np.int64).reshape(batch, 1, height * width)
    return np.take_along_axis(values.reshape(batch, channels, height * width), index, axis=2).reshape(values.shape)


def to_photo_frame(
    maps: NDArray[np.float32], theta: NDArray[np.float32], source_cell: NDArray[np.integer], sampling: Sampling, additive: bool
) -> NDArray[np.float32]:
    """Carry heat maps from the aligned grid to the photo's.

    Parameters
    ----------
    maps : float32 [B, ..., H, W]
        On the aligned grid; several of a sample share its warp.
    theta, source_cell, sampling
        As in `carry_back`.
    additive : bool
        True for maps whose cells add up to a score: a patch cell gets the sum of what was read from it. False: the
        (weighted) mean of those that have a value.

    Returns
    -------
    float32 [B, ..., H, W]
        On the patch grid; NaN where the network read nothing, or nothing with a value, and all of it where the warp is not finite.
    """
    several = maps.reshape(len(maps), math.prod(maps.shape[1:-2]), *maps.shape[-2:])
    known = np.ones(several.shape, bool) if additive else ~np.isnan(several)
    exact = np.concatenate([np.where(known, several, 0), known], axis=1, dtype=np.float64)  # so that cells of one value keep one value
    total = carry_back(exact, theta, source_cell, sampling)
    value, read = np.split(total, 2, axis=1)
    seen = read > 1e-6  # bilinear weights below this are rounding; not so of NaN
    return np.where(seen, value if additive else value / np.where(seen, read, 1), np.nan).astype(np.float32).reshape(maps.shape)


def image_frame(maps: xr.DataArray, position: str, features: xr.Dataset, sampling: Sampling, additive: bool) -> xr.DataArray:
    """Carry labelled heat maps to the photo's frame.

    Parameters
    ----------
    maps : DataArray (sample, y, x)
    position : str
        Where they were taken; `patch` and blocks lie in the photo's frame already.
    features : Dataset
        `theta` and `source_cell` of the same samples.
    sampling, additive
        As in `to_photo_frame`.

    Returns
    -------
    DataArray (sample, y, x)
        With the attribute frame = "patch".
    """
    if position not in ("aligned", "part"):
        return maps.assign_attrs(frame="patch")
    values = to_photo_frame(maps.values, features["theta"].values, features["source_cell"].values, sampling, additive)
    return maps.copy(data=values).assign_attrs(frame="patch")


def copy_cells(patch_map: Float, source_cell: NDArray[np.integer]) -> Float:
    """Rebuild the aligned map [B, y, x, K] from the patch map and the cells [B, y, x] that it copies: bit for bit what nearest sampling gave."""
    cells = patch_map.reshape(len(patch_map), -1, patch_map.shape[-1])
    index = source_cell.reshape(len(source_cell), -1, 1).astype(np.int64)
    return np.take_along_axis(cells, index, axis=1).reshape(patch_map.shape)


def _through(matrix: csr_array, values: Float) -> Float:
    """Values [B, P, H, W] through a matrix between the cells of all samples, in their type."""
    batch, channels, height, width = values.shape
    columns = values.transpose(0, 2, 3, 1).reshape(batch * height * width, channels)
    found = (matrix @ columns).astype(values.dtype).reshape(batch, height, width, channels)
    return np.ascontiguousarray(found.transpose(0, 3, 1, 2))
