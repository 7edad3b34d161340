"""Maps of every class at once, from one matrix product a sample; and the mean maps of every class from one mean map.

Both rest on affine heads: S_p = M_p A for all classes, and the mean over images of M_p A is M_p times the mean of A.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from safenet.head_arrays import FoldedHead
from stages.half_precision import to_single

Float = NDArray[np.float32]


def class_maps(
    cells: NDArray[np.floating], weights: Float, heads: Sequence[FoldedHead], method: str, classes: NDArray[np.integer] | None = None
) -> Float:
    """Maps of the mean part logit of every class.

    Parameters
    ----------
    cells : float [B, N, K]
        A, at the patch or the aligned map.
    weights : float32 [B, P, N]
        T_p there.
    heads : sequence of FoldedHead
    method : {"grad_cam", "hires_cam"}
        Others differ by more than a matrix product; see `compute_cams`.
    classes : int [C'], optional
        Numbers of the classes; default: all.

    Returns
    -------
    float32 [B, C', N]
        Raw and signed. As large as the features for all classes of the published network: made when asked for, never stored.
    """
    rows = slice(None) if classes is None else classes
    matrices = np.stack([head.matrix[rows] for head in heads]).astype(np.float32) / np.float32(len(heads))
    return CLASS_METHODS[method](to_single(cells), weights, matrices)


def _grad_cam(cells: Float, weights: Float, matrices: Float) -> Float:
    """sum_p mean_n(T_p) M_p is one matrix per sample: one product for all classes."""
    mixed = weights.mean(axis=2) @ matrices.reshape(len(matrices), -1)
    return np.matmul(mixed.reshape(-1, *matrices.shape[1:]), cells.swapaxes(1, 2))


def _hires_cam(cells: Float, weights: Float, matrices: Float) -> Float:
    """sum_p T_p (M_p A): on the aligned grid every cell has one part, so that each part's product is of its own cells alone."""
    found = np.zeros((*cells.shape[:2], matrices.shape[1]), np.float32)
    for sample, (values, of_parts) in enumerate(zip(cells, weights, strict=True)):
        for matrix, weight in zip(matrices, of_parts, strict=True):
            seen = np.flatnonzero(weight)
            found[sample, seen] += weight[seen, None] * (values[seen] @ matrix.T)
    return found.swapaxes(1, 2)


CLASS_METHODS: Mapping[str, Callable[[Float, Float, Float], Float]] = MappingProxyType({"grad_cam": _grad_cam, "hires_cam": _hires_cam})


def mean_weighted_cells(cells: NDArray[np.floating], weights: Float, method: str) -> NDArray[np.float64]:
    """Sum over samples of what `mean_class_maps` takes: each part's weight times the cells, float64 [P, N, K]; parameters as in `class_maps`."""
    factor = weights if method == "hires_cam" else np.broadcast_to(weights.mean(axis=2, keepdims=True), weights.shape)
    found = np.zeros((weights.shape[1], *cells.shape[1:]))
    for values, of_parts in zip(cells, factor, strict=True):
        found += of_parts[:, :, None].astype(np.float64) * values
    return found


def mean_class_maps(mean_cells: NDArray[np.float64], heads: Sequence[FoldedHead]) -> NDArray[np.float64]:
    """Mean signed map of every class from one mean map.

    Parameters
    ----------
    mean_cells : float64 [P, N, K]
        `mean_weighted_cells` over the number of samples.
    heads : sequence of FoldedHead

    Returns
    -------
    float64 [C, N]
        Mean over the samples of the maps of the mean part logit: exact, since the maps are linear in the cells.
    """
    return np.asarray(sum(head.matrix @ part.T for head, part in zip(heads, mean_cells, strict=True)) / len(heads))
