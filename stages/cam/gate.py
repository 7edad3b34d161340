"""The gate before a checkpoint's heat maps: whether stored map and heads give the stored logits, and the closed form agrees with autograd."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from safenet.architecture import HeadActivation, Pooling
from safenet.heads import build_head, fold_head
from safenet.partition import POOLINGS
from stages.cam.gradients import CellWeights, FactoredGradient
from stages.cam.positions import ring_weights_of
from stages.schema import Arrays

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
        Largest difference between the closed form's HiResCAM and autograd's in float64, over the map's maximum; NaN where there is no closed form.
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


def examine(block: Arrays, head_arrays: list[dict[str, NDArray]], activation: HeadActivation, pooling: Pooling) -> Exactness:
    """Compare the two ways on a few images.

    Parameters
    ----------
    block : mapping
        `valid`, `aligned_map`, `boundary`, `source_cell` and `logit` of some samples.
    head_arrays : list of dict
        Stored arrays of the parts' heads, innermost first.
    activation : {"none", "leaky_relu"}
    pooling : {"mean", "max"}
    """
    usable = block["valid"].astype(bool) & np.isfinite(block["logit"]).all(axis=(1, 2)) & np.isfinite(block["aligned_map"]).all(axis=(1, 2, 3))
    rows = np.flatnonzero(usable)[:FEW]
    if not len(rows):
        return Exactness("closed" if activation == "none" and pooling == "mean" else "autograd", float("nan"), float("nan"), 0)
    few = {name: block[name][rows] for name in ("aligned_map", "boundary", "source_cell", "logit")}
    modules = [build_head(arrays, activation, torch.float64) for arrays in head_arrays]
    cells = torch.tensor(np.moveaxis(few["aligned_map"], 3, 1).astype(np.float64), requires_grad=True)
    with torch.enable_grad():
        pooled = POOLINGS[pooling](cells, torch.from_numpy(few["boundary"].astype(np.int64)))
        logit = torch.stack([head(part)[1] for head, part in zip(modules, pooled.unbind(2), strict=True)], dim=1)
        chosen = logit.detach().mean(dim=1).argmax(dim=1)
        score = logit.mean(dim=1).gather(1, chosen[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, cells)
    at_zero = torch.stack([head(torch.zeros_like(pooled[:1, :, 0]))[1][0] for head in modules]).numpy()
    stored = few["logit"][:, :-1].astype(np.float64)
    logit_error = np.abs(stored - logit.detach().numpy()).max() / np.abs(stored - at_zero).max()
    if activation != "none" or pooling != "mean":
        return Exactness("autograd", float(logit_error), float("nan"), len(rows))
    expected = (gradient * cells.detach()).sum(dim=1).flatten(1).numpy()
    error = np.abs(_closed_form(few, head_arrays, chosen.numpy()) - expected).max() / np.abs(expected).max()
    return Exactness("closed" if error <= GRADIENT_TOLERANCE else "autograd", float(logit_error), float(error), len(rows))


def _closed_form(few: Arrays, head_arrays: list[dict[str, NDArray]], chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """HiResCAM of the mean part logit of the chosen classes at the aligned map, as the heat maps take it."""
    folded = [fold_head(arrays) for arrays in head_arrays]
    direction = np.stack([head.matrix[chosen] / len(folded) for head in folded], axis=1).astype(np.float32)
    cells = few["aligned_map"].reshape(len(chosen), -1, few["aligned_map"].shape[3]).astype(np.float32)
    weights = ring_weights_of(few).reshape(len(chosen), len(folded), -1)
    return FactoredGradient(cells, direction, CellWeights(weights), lambda: np.abs(cells)).contribution
