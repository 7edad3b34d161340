"""The heat-map formulas, one row each.

All of them read the same view of a batch (`CamInput`), whatever the position: N cells with K channels, and for
gradient methods the exact gradient of the score in factored form, g[k, n] = sum over parts p of V_p[k] T_p[n].
Maps are signed and raw: the ReLU that Grad-CAM and HiResCAM end with is applied where they are drawn or counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


@dataclass(frozen=True)
class CamInput:
    """A batch at one position.

    Parameters
    ----------
    cells : float32 [B, N, K]
        A, one row a cell.
    direction : float32 [B, P, K], optional
        V_p = dy/dz_p, the gradient of the score with respect to each part feature. Absent for class-free methods.
    weight : float32 [B, P, N], optional
        T_p, how much each cell counts in part feature p (R_p on the aligned grid; carried back through FAM on the
        patch grid; the identity for the part features themselves).
    """

    cells: Float
    direction: Float | None = None
    weight: Float | None = None

    @cached_property
    def projection(self) -> Float:
        """V_p . A[:, n] of every cell and part, [B, N, P]; shared by the gradient methods."""
        assert self.direction is not None, "a gradient method was asked for without a target"
        return np.matmul(self.cells, self.direction.transpose(0, 2, 1))


def l2_norm(view: CamInput) -> Float:
    """sqrt(sum_k A^2). After LayerNorm this is nearly the same in every cell: look at the raw range."""
    return np.sqrt(np.einsum("bnk,bnk->bn", view.cells, view.cells))


def channel_max(view: CamInput) -> Float:
    """max_k A: what FPM itself looks at."""
    return view.cells.max(axis=2)


def channel_mean(view: CamInput) -> Float:
    """mean_k A: zero at initialisation, because it follows a LayerNorm."""
    return view.cells.mean(axis=2)


def grad_cam(view: CamInput) -> Float:
    """sum_k (1/N sum_m g[k, m]) A[k, n], before the ReLU: each part's projection, weighted by the mean of T_p."""
    assert view.weight is not None
    return np.einsum("bnp,bp->bn", view.projection, view.weight.mean(axis=2))


def hires_cam(view: CamInput) -> Float:
    """sum_k g[k, n] A[k, n], before the ReLU: the cells add up to the score less its constant."""
    assert view.weight is not None
    return np.einsum("bnp,bpn->bn", view.projection, view.weight)


@dataclass(frozen=True)
class CamMethod:
    """A row of METHODS.

    Parameters
    ----------
    formula
        CamInput -> float32 [B, N].
    kind : {"statistic", "gradient"}
        A statistic of the channels needs no target; a gradient needs one.
    additive : bool
        Whether the cells add up to the score (less its constant), so that carrying the map to another frame must sum.
    source : str
        Where the definition stands.
    """

    formula: Callable[[CamInput], Float]
    kind: Literal["statistic", "gradient"]
    additive: bool
    source: str


METHODS: Mapping[str, CamMethod] = MappingProxyType(
    {
        "l2_norm": CamMethod(l2_norm, "statistic", False, "the published code's habit"),
        "max": CamMethod(channel_max, "statistic", False, "FPM's aggregated map"),
        "mean": CamMethod(channel_mean, "statistic", False, "class-free channel mean"),
        "grad_cam": CamMethod(grad_cam, "gradient", False, "Selvaraju et al. 2017, arXiv:1610.02391, eqs. 1-2"),
        "hires_cam": CamMethod(hires_cam, "gradient", True, "Draelos and Carin 2020, arXiv:2011.08891, eq. 4"),
    }
)
