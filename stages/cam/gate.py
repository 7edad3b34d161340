"""The gate before a checkpoint's heat maps: whether the stored map and heads give the stored logits, and the closed form what each cell adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from safenet.architecture import HeadActivation, Pooling
from safenet.head_arrays import HeadArrays, fold_head, run_head
from safenet.rings import POOLINGS
from stages.cam.gradients import CellWeights, FactoredGradient
from stages.cam.positions import ring_weights_of
from stages.schema import Arrays

Float = NDArray[np.floating]
LOGIT_TOLERANCE = {"float16": 2e-2, "float32": 1e-3}
GRADIENT_TOLERANCE = 1e-4
GATE_READS = ("valid", "aligned_map", "boundary", "source_cell", "logit")
FEW = 8


@dataclass(frozen=True)
class Exactness:
    """What the gate found.

    Attributes
    ----------
    form : {"closed", "autograd"}
        How gradients are taken: "autograd", backwards through pooling and heads layer by layer, where the heads have an activation, parts are
        maxima, or the closed form disagreed.
    logit_error : float
        Largest difference between the stored logits of the parts and those of the stored map through the stored heads, over the largest logit
        (less its value at a map of zeros): what storing the map in half precision costs.
    gradient_error : float
        Largest difference between the closed form's HiResCAM and what the score falls by without each cell, found by running the heads in float64 on
        what is left; over the map's maximum. NaN where there is no closed form.
    samples : int
        How many images were looked at.
    """

    form: Literal["closed", "autograd"]
    logit_error: float
    gradient_error: float
    samples: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values; NaN, which JSON has not, becomes None."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def examine(block: Arrays, head_arrays: Sequence[HeadArrays], activation: HeadActivation, pooling: Pooling) -> Exactness:
    """Compare a few images with what the network gave for them, and the closed form with the heads themselves.

    Parameters
    ----------
    block : mapping
        `valid`, `aligned_map`, `boundary`, `source_cell` and `logit` of some samples.
    head_arrays : sequence of mapping
        Stored arrays of the parts' heads, innermost first.
    activation : {"none", "leaky_relu"}
    pooling : {"mean", "max"}
    """
    usable = np.flatnonzero(block["valid"].astype(bool) & np.isfinite(block["logit"]).all(axis=(1, 2)))
    rows = list(islice((row for row in usable if np.isfinite(block["aligned_map"][row]).all()), FEW))
    is_linear = activation == "none" and pooling == "mean"
    if not rows:
        return Exactness("closed" if is_linear else "autograd", float("nan"), float("nan"), 0)
    few = {name: block[name][rows] for name in ("aligned_map", "boundary", "source_cell", "logit")}
    side = few["aligned_map"].shape[1:3]
    cells = few["aligned_map"].reshape(len(rows), side[0] * side[1], -1).astype(np.float64)
    feature = POOLINGS[pooling](cells, few["boundary"], side)
    logit, at_zero = (_part_logits(head_arrays, activation, values) for values in (feature, np.zeros_like(feature[:1])))
    stored = few["logit"][:, :-1].astype(np.float64)
    logit_error = np.abs(stored - logit).max() / np.abs(stored - at_zero).max()
    if not is_linear:
        return Exactness("autograd", float(logit_error), float("nan"), len(rows))
    error = _gradient_error(cells, ring_weights_of(few).reshape(*few["boundary"].shape, -1), feature, logit, head_arrays)
    return Exactness("closed" if error <= GRADIENT_TOLERANCE else "autograd", float(logit_error), error, len(rows))


def _part_logits(head_arrays: Sequence[HeadArrays], activation: HeadActivation, feature: Float) -> NDArray[np.float64]:
    """Logits [n, P, C] of part features [n, P, K], layer by layer."""
    return np.stack([run_head(arrays, activation, feature[:, part])[1] for part, arrays in enumerate(head_arrays)], axis=1)


def _gradient_error(cells: Float, weights: Float, feature: Float, logit: Float, head_arrays: Sequence[HeadArrays]) -> float:
    """How far the closed form is from what each cell really adds to the mean part logit of the image's predicted class."""
    classes, chosen = np.unique(logit.mean(axis=1).argmax(axis=1), return_inverse=True)
    of_classes = [{**arrays, "w2": arrays["w2"][classes], "b2": arrays["b2"][classes]} for arrays in head_arrays]
    expected = _by_removal(cells, weights, feature, of_classes, chosen)
    found = _closed_form(cells.astype(np.float32), weights, of_classes, chosen)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _by_removal(cells: Float, weights: Float, feature: Float, head_arrays: Sequence[HeadArrays], chosen: NDArray[np.integer]) -> Float:
    """What the mean part logit of the chosen classes falls by without each cell, [n, N]: nothing folded, no gradient.

    Each cell is taken out of its part's feature, and the head is run, layer by layer, on what is left. If the score is affine in the cells, that is
    the cell's share of it.
    """
    found = np.zeros(cells.shape[:2])
    for part, arrays in enumerate(head_arrays):
        sample, cell = np.nonzero(weights[:, part])
        left = feature[sample, part] - weights[sample, part, cell, None] * cells[sample, cell]
        fallen = run_head(arrays, "none", feature[:, part])[1][sample] - run_head(arrays, "none", left)[1]
        found[sample, cell] += fallen[np.arange(len(cell)), chosen[sample]] / len(head_arrays)
    return found


def _closed_form(cells: Float, weights: Float, head_arrays: Sequence[HeadArrays], chosen: NDArray[np.integer]) -> Float:
    """HiResCAM of the mean part logit of the chosen classes at the aligned map, as the heat maps take it, [n, N]."""
    matrices = [fold_head(arrays).matrix for arrays in head_arrays]
    direction = np.stack([matrix[chosen] / len(matrices) for matrix in matrices], axis=1).astype(np.float32)
    return FactoredGradient(cells, direction, CellWeights(weights), lambda: np.abs(cells)).contribution
