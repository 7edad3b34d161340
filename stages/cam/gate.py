"""The gate before a checkpoint's heat maps: whether stored map and heads give the stored logits, and the closed form what each cell really adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
        How gradients are taken: by autograd where the heads have an activation, parts are maxima, or the closed form disagreed.
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
    """Compare the two ways on a few images.

    Parameters
    ----------
    block : mapping
        `valid`, `aligned_map`, `boundary`, `source_cell` and `logit` of some samples.
    head_arrays : sequence of mapping
        Stored arrays of the parts' heads, innermost first.
    activation : {"none", "leaky_relu"}
    pooling : {"mean", "max"}
    """
    usable = block["valid"].astype(bool) & np.isfinite(block["logit"]).all(axis=(1, 2)) & np.isfinite(block["aligned_map"]).all(axis=(1, 2, 3))
    rows = np.flatnonzero(usable)[:FEW]
    if not len(rows):
        return Exactness("closed" if activation == "none" and pooling == "mean" else "autograd", float("nan"), float("nan"), 0)
    few = {name: block[name][rows] for name in ("aligned_map", "boundary", "source_cell", "logit")}
    side = few["aligned_map"].shape[1:3]
    cells = few["aligned_map"].reshape(len(rows), side[0] * side[1], -1).astype(np.float64)
    feature = POOLINGS[pooling](cells, few["boundary"], side)
    logit, at_zero = (_part_logits(head_arrays, activation, values) for values in (feature, np.zeros_like(feature[:1])))
    stored = few["logit"][:, :-1].astype(np.float64)
    logit_error = np.abs(stored - logit).max() / np.abs(stored - at_zero).max()
    if activation != "none" or pooling != "mean":
        return Exactness("autograd", float(logit_error), float("nan"), len(rows))
    chosen = logit.mean(axis=1).argmax(axis=1)
    expected = _by_removal(cells, ring_weights_of(few).reshape(*few["boundary"].shape, -1), feature, head_arrays, chosen)
    error = np.abs(_closed_form(few, head_arrays, chosen) - expected).max() / np.abs(expected).max()
    return Exactness("closed" if error <= GRADIENT_TOLERANCE else "autograd", float(logit_error), float(error), len(rows))


def _part_logits(head_arrays: Sequence[HeadArrays], activation: HeadActivation, feature: Float) -> NDArray[np.float64]:
    """Logits [n, P, C] of part features [n, P, K], layer by layer."""
    return np.stack([run_head(arrays, activation, feature[:, part])[1] for part, arrays in enumerate(head_arrays)], axis=1)


def _by_removal(cells: Float, weights: Float, feature: Float, head_arrays: Sequence[HeadArrays], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the mean part logit of the chosen classes falls by without each cell, [n, N]: nothing folded, no gradient.

    Each cell is taken out of its part's feature, and the head is run, layer by layer, on what is left. Of a score that is affine in the cells that
    is the cell's share.
    """
    found, (classes, column) = np.zeros(cells.shape[:2]), np.unique(chosen, return_inverse=True)
    for part, arrays in enumerate(head_arrays):
        of_few = {**arrays, "w2": arrays["w2"][classes], "b2": arrays["b2"][classes]}
        whole = run_head(of_few, "none", feature[:, part])[1]
        sample, cell = np.nonzero(weights[:, part])
        left = feature[sample, part] - weights[sample, part, cell, None] * cells[sample, cell]
        fallen = whole[sample] - run_head(of_few, "none", left)[1]
        found[sample, cell] += fallen[np.arange(len(cell)), column[sample]] / len(head_arrays)
    return found


def _closed_form(few: Arrays, head_arrays: Sequence[HeadArrays], chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """HiResCAM of the mean part logit of the chosen classes at the aligned map, as the heat maps take it."""
    folded = [fold_head(arrays) for arrays in head_arrays]
    direction = np.stack([head.matrix[chosen] / len(folded) for head in folded], axis=1).astype(np.float32)
    cells = few["aligned_map"].reshape(len(chosen), -1, few["aligned_map"].shape[3]).astype(np.float32)
    weights = ring_weights_of(few).reshape(len(chosen), len(folded), -1)
    return np.asarray(FactoredGradient(cells, direction, CellWeights(weights), lambda: np.abs(cells)).contribution)
