"""The heat-map formulas, one function and one row each.

All of them read the same view of a batch (`CamInput`), whatever the position: B samples of N cells with K channels, and the gradient of the score
with respect to the cells. Maps are signed and raw: the ReLU that most methods end with is applied where they are drawn or counted; a ReLU
within a formula, as in LayerCAM, stays.

A row gives either channel weights w (the map is sum_k w_k A_k: what CAM means in the narrow sense) or the cells' values themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from stages.cam.gradients import Gradient
from stages.cam.principal import first_component
from stages.cam.rounding import component_rounding, norm_rounding, sum_rounding, value_rounding
from stages.spreading import spread

if TYPE_CHECKING:
    from stages.targets.part_heads import Removal
    from stages.targets.scores import Score

Float = NDArray[np.floating]
_NEAR_ZERO = 0.01  # a channel's sum over the cells, over the sum of their magnitudes
_FEW = 8  # cells whose size stands for all in the estimate of rounding


@dataclass(frozen=True)
class Cells:
    """The cells of a batch at one position, and what all targets share of them.

    Parameters
    ----------
    values : float [B, N, K]
        A, one row per cell.
    """

    values: Float

    @cached_property
    def column_sum(self) -> Float:
        """S_k, each channel's sum over the cells, [B, K]."""
        with np.errstate(invalid="ignore", over="ignore"):  # of cells that are not finite, which is how they are found
            return np.matmul(np.ones((1, self.values.shape[1]), self.values.dtype), self.values)[:, 0]

    @cached_property
    def column_magnitude(self) -> Float:
        """Each channel's sum of magnitudes over the cells, [B, K]."""
        return np.matmul(np.ones((1, self.values.shape[1]), self.values.dtype), self.magnitude)[:, 0]

    @cached_property
    def is_finite(self) -> NDArray[np.bool_]:
        """Whether all cells of a sample are finite, [B]: a sum is, only if all its terms are. Sums that overflow count as not finite."""
        return np.asarray(np.isfinite(self.column_sum).all(axis=1))

    @cached_property
    def few_squares(self) -> NDArray[np.float64]:
        """A^2 of a few cells, evenly spread: enough to estimate rounding from, [B, n, K]."""
        return self.values[:, spread(self.values.shape[1], _FEW)].astype(np.float64) ** 2

    @cached_property
    def magnitude(self) -> Float:
        """|A|, [B, N, K]."""
        return np.abs(self.values)


@dataclass(frozen=True)
class CarriedCells:
    """The cells before FAM, and how FAM carries a value of each of them to the aligned grid.

    Parameters
    ----------
    cells : Cells
        Of the patch map.
    carry : callable
        [B, N] on the patch grid -> [B, N] on the aligned grid.
    """

    cells: Cells
    carry: Callable[[Float], Float]


@dataclass(frozen=True)
class CamInput:
    """A batch at one position, as seen by one target.

    Parameters
    ----------
    cells : Cells
    gradient : Gradient, optional
        Of the score with respect to the cells; absent for class-free methods.
    score : Score, optional
        The target itself.
    rivals : Gradient, optional
        Of the score less RIVAL_WEIGHT times the mean score of the classes or places most like the target.
    channels, tokens : Removal, optional
        What the loss of each channel, and of each cell, takes from the part features.
    stored : float [B, ..., y, x], optional
        The stored variable that the row reads in place of the cells.
    source : CarriedCells, optional
        The cells that FAM read, at the aligned map.
    """

    cells: Cells
    gradient: Gradient | None = None
    score: Score | None = None
    rivals: Gradient | None = None
    channels: Removal | None = None
    tokens: Removal | None = None
    stored: Float | None = None
    source: CarriedCells | None = None


def l2_norm(view: CamInput) -> Float:
    """sqrt(sum_k A^2). After a LayerNorm it varies little; it may still point at something."""
    return _norms(view.cells.values)


def l2_norm_source(view: CamInput) -> Float:
    """sqrt(sum_k A^2) of the patch tokens, carried through FAM: bilinear sampling blends the norms, so blending shortens none."""
    assert view.source is not None, "the cells that FAM read were not read"
    return view.source.carry(_norms(view.source.cells.values))


def channel_max(view: CamInput) -> Float:
    """max_k A: what FPM itself uses."""
    return view.cells.values.max(axis=2)


def mean(view: CamInput) -> Float:
    """w_k = 1 / K: zero at initialisation, because it follows a LayerNorm."""
    return np.full_like(view.cells.column_sum, 1 / view.cells.values.shape[2])


def channel_sum(view: CamInput) -> Float:
    """w_k = 1: K times the mean, as the scripts of FSRA and LPN draw it."""
    return np.ones_like(view.cells.column_sum)


def eigen_cam(view: CamInput) -> Float:
    """Scores of the cells on the first principal component of A."""
    return first_component(view.cells.values)


def grad_cam(view: CamInput) -> Float:
    """w_k = 1/N sum_n g[k, n]."""
    return _gradient(view).mean


def hires_cam(view: CamInput) -> Float:
    """sum_k g[k, n] A[k, n]: the cells add up to the score minus its constant."""
    return _gradient(view).contribution


def layer_cam(view: CamInput) -> Float:
    """sum_k (g[k, n])+ A[k, n], as (g A + |g| A) / 2."""
    return (_gradient(view).contribution + _gradient(view).absolute_contribution) / 2


def element_wise(view: CamInput) -> Float:
    """sum_k (g[k, n] A[k, n])+, as (g A + |g A|) / 2."""
    return (_gradient(view).contribution + _gradient(view).magnitude_contribution) / 2


def grad_cam_pp(view: CamInput) -> Float:
    """w_k = sum_n a (g)+ with a = g^2 / (2 g^2 + S_k g^3), which is 1 / (2 + S_k g): for the score exp(y), whose own factor cancels."""
    positive, sums = np.maximum, view.cells.column_sum
    with np.errstate(divide="ignore"):  # a denominator of exactly zero makes the map infinite, and its status says so
        return _gradient(view).sum_over_cells(lambda gradient, sample: positive(gradient, 0) / (2 + sums[sample] * gradient))


def xgrad_cam(view: CamInput) -> Float:
    """w_k = sum_n g[k, n] A[k, n] / sum_n A[k, n]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _gradient(view).channel_contribution / view.cells.column_sum


def ablation_cam(view: CamInput) -> Float:
    """w_k = (y - y without channel k) / y."""
    score = _score(view)
    with np.errstate(divide="ignore", invalid="ignore"):
        if score.is_linear:
            return (_gradient(view).channel_contribution / score.value[:, None]).astype(view.cells.values.dtype)
        assert view.channels is not None
        return (1 - score.without(view.channels) / score.value[:, None]).astype(view.cells.values.dtype)


def token_deletion(view: CamInput) -> Float:
    """How much y falls without cell n: sorted in descending order, the order of token deletion. For an affine score this is hires_cam."""
    score = _score(view)
    assert view.tokens is not None
    if score.is_linear and view.tokens.is_linear:
        return _gradient(view).contribution
    return (score.value[:, None] - score.without(view.tokens)).astype(view.cells.values.dtype)


def finer_cam(view: CamInput) -> Float:
    """Grad-CAM of y - RIVAL_WEIGHT * mean of the scores of the rivals that are most similar to the target."""
    assert view.rivals is not None, "finer_cam was asked for without rivals"
    return view.rivals.mean


def eigen_grad_cam(view: CamInput) -> Float:
    """Scores of the cells on the first principal component of g A."""
    return first_component(_gradient(view).products)


def cls_attention(view: CamInput) -> Float:
    """Attention of CLS to each patch in a block, mean over its heads."""
    return _stored(view).mean(axis=1)


def rollout(view: CamInput) -> Float:
    """CLS row of the product of row-normalised (mean over heads + I), from the first block to this one."""
    return _stored(view)


def _norms(cells: Float) -> Float:
    return np.sqrt(np.einsum("bnk,bnk->bn", cells, cells))


def _stored(view: CamInput) -> Float:
    assert view.stored is not None, "what the method reads was not read"
    return view.stored


def _gradient(view: CamInput) -> Gradient:
    assert view.gradient is not None, "a gradient method was asked for without a target"
    return view.gradient


def _score(view: CamInput) -> Score:
    assert view.score is not None, "a method of the score was asked for without a target"
    return view.score


def _bad_gradient_denominators(view: CamInput) -> Float:
    """Share of Grad-CAM++'s denominators 2 + S_k g, where g is positive and they count, that are not positive."""
    sums, gradient = view.cells.column_sum, _gradient(view)
    used = gradient.sum_over_cells(lambda values, sample: (values > 0).astype(values.dtype)).sum(axis=1)
    bad = gradient.sum_over_cells(lambda values, sample: ((values > 0) & (2 + sums[sample] * values <= 0)).astype(values.dtype)).sum(axis=1)
    return bad / np.maximum(used, 1)


def _bad_sums(view: CamInput) -> Float:
    """Share of the channels whose sum over the cells is near zero, so that dividing by it means nothing; its sign cancels, and may be either."""
    return (np.abs(view.cells.column_sum) <= _NEAR_ZERO * view.cells.column_magnitude).mean(axis=1)


def _bad_score(view: CamInput) -> Float:
    """1 where the score is not positive, so that dividing by it turns the map over."""
    return (_score(view).value <= 0).astype(np.float64)


def _source_rounding(view: CamInput, values: Float) -> NDArray[np.float64]:
    assert view.source is not None
    return norm_rounding(view.source.cells.few_squares)


@dataclass(frozen=True)
class CamMethod:
    """A row of METHODS.

    Parameters
    ----------
    formula : callable
        CamInput -> channel weights [B, K] or values of the cells [B, N].
    gives : {"weights", "cells"}
        Which of the two.
    kind : {"statistic", "gradient"}
        A statistic needs no target.
    source : str
        Where the definition stands.
    where : {"anywhere", "maps", "aligned", "blocks"}
        Any position; patch, aligned and part only; aligned only; or transformer blocks only.
    additive : bool
        Whether a cell's value is its share of something, so that carrying the map to another frame must sum.
    exact : bool
        Whether the cells add up to the score less its constant, for a score that is affine in the map.
    reads : str
        Stored variable that it is made of in place of the cells.
    clipped : callable, optional
        CamInput -> share of the bad denominators, [B]: those that turn the map over, or blow it up.
    rounding : callable, optional
        (CamInput, values of the cells [B, N]) -> standard deviation of a cell's value, for relative errors of standard deviation 1 of what it is
        made of, [B]; see stages/cam/rounding.py. Of the statistics, which are drawn from their minimum.
    drawn : str
        What is drawn, for a picture's footer, where the name does not tell.
    cost : str
        Beside reading the cells.
    note : str
        What to know before drawing it; which methods it coincides with.
    """

    formula: Callable[[CamInput], Float]
    gives: Literal["weights", "cells"]
    kind: Literal["statistic", "gradient"]
    source: str
    where: Literal["anywhere", "maps", "aligned", "blocks"] = "maps"
    additive: bool = False
    exact: bool = False
    reads: str = ""
    clipped: Callable[[CamInput], Float] | None = None
    rounding: Callable[[CamInput, Float], NDArray[np.float64]] | None = None
    drawn: str = ""
    cost: str = "low"
    note: str = ""

    def exists_at(self, position: str, is_block: bool) -> bool:
        """Whether there is such a map at a position; `is_block`: whether that is a transformer block."""
        return {"anywhere": True, "maps": not is_block, "aligned": position == "aligned", "blocks": is_block}[self.where]


METHODS: Mapping[str, CamMethod] = MappingProxyType(
    {
        "l2_norm": CamMethod(
            l2_norm, "cells", "statistic", "as the published code draws it", "anywhere",
            rounding=lambda view, values: norm_rounding(view.cells.few_squares),
            drawn="at aligned, the norm of what FAM's sampling gave",
            note="low contrast after a LayerNorm, but may localise well; at aligned, bilinear sampling shortens blended tokens: see l2_norm_source",
        ),
        "l2_norm_source": CamMethod(
            l2_norm_source, "cells", "statistic", "l2_norm of the patch tokens, carried through FAM", "aligned", rounding=_source_rounding,
            drawn="the norm of the patch tokens, carried by FAM", note="equals l2_norm if sampling is nearest; shows the features, not the blending",
        ),
        "max": CamMethod(
            channel_max, "cells", "statistic", "FPM's aggregated map", "anywhere", rounding=lambda view, values: value_rounding(values),
        ),
        "mean": CamMethod(
            mean, "weights", "statistic", "class-free channel mean", "anywhere",
            rounding=lambda view, values: sum_rounding(view.cells.few_squares, 1 / view.cells.values.shape[2]),
            note="zero at initialisation, after a LayerNorm",
        ),
        "sum": CamMethod(
            channel_sum, "weights", "statistic", "scripts of FSRA, LPN", "anywhere",
            rounding=lambda view, values: sum_rounding(view.cells.few_squares, 1),
            note="K times mean: the same picture",
        ),
        "eigen_cam": CamMethod(
            eigen_cam, "cells", "statistic", "Muhammad and Yeasin 2020, arXiv:2008.00299, eq. 3", "anywhere", cost="high: an eigenvector",
            rounding=lambda view, values: component_rounding(view.cells.few_squares, view.cells.values.shape[1]),
            note="centred, as in pytorch-grad-cam; the sign is our choice: the cell farthest from zero is positive",
        ),
        "cls_attention": CamMethod(
            cls_attention, "cells", "statistic", "Dosovitskiy et al. 2021, arXiv:2010.11929", "blocks", reads="cls_attention", cost="paid by extract",
            rounding=lambda view, values: value_rounding(values),
        ),
        "rollout": CamMethod(
            rollout, "cells", "statistic", "Abnar and Zuidema 2020, arXiv:2005.00928, eq. 1", "blocks", reads="block_rollout", cost="paid by extract",
            rounding=lambda view, values: value_rounding(values),
        ),
        "grad_cam": CamMethod(
            grad_cam, "weights", "gradient", "Selvaraju et al. 2017, arXiv:1610.02391, eqs. 1-2", "anywhere",
            note="the conventional map; can peak outside the ring that a part sees. Within a ring, proportional to hires_cam of that part",
        ),
        "hires_cam": CamMethod(
            hires_cam, "cells", "gradient", "Draelos and Carin 2020, arXiv:2011.08891, eq. 4", "anywhere", additive=True, exact=True,
            note="the exact map",
        ),
        "layer_cam": CamMethod(
            layer_cam, "cells", "gradient", "Jiang et al. 2021, DOI 10.1109/TIP.2021.3089943, eqs. 6-7", "anywhere", additive=True,
        ),
        "element_wise": CamMethod(
            element_wise, "cells", "gradient", "pytorch-grad-cam's GradCAMElementWise", additive=True, cost="medium",
            note="equals layer_cam if no channel is negative",
        ),
        "grad_cam_pp": CamMethod(
            grad_cam_pp, "weights", "gradient", "Chattopadhay et al. 2018, arXiv:1710.11063, eqs. 10, 19", clipped=_bad_gradient_denominators,
            cost="medium", note="not recommended here: depends on the scale of the logit, and its denominators cross zero on signed features",
        ),
        "xgrad_cam": CamMethod(
            xgrad_cam, "weights", "gradient", "Fu et al. 2020, arXiv:2008.02312, eq. 8", clipped=_bad_sums,
            note="divides by channel sums, which cross zero on signed features",
        ),
        "ablation_cam": CamMethod(
            ablation_cam, "weights", "gradient", "Desai and Ramaswamy 2020, DOI 10.1109/WACV45572.2020.9093360, eq. 3", clipped=_bad_score,
            cost="low; high for a cosine or a probability", note="divides by the score: inverted if the score is negative",
        ),
        "eigen_grad_cam": CamMethod(
            eigen_grad_cam, "cells", "gradient", "pytorch-grad-cam's EigenGradCAM", cost="high: an eigenvector", note="sign as eigen_cam",
        ),
        "finer_cam": CamMethod(
            finer_cam, "weights", "gradient", "Zhang et al. 2025, arXiv:2501.11309", note="grad_cam of the score minus that of its nearest rivals",
        ),
        "token_deletion": CamMethod(
            token_deletion, "cells", "gradient", "leave one token out; Zeiler and Fergus 2014, arXiv:1311.2901", additive=True, exact=True,
            cost="low; high for a cosine or a probability", note="equals hires_cam for an affine score: its order is the order of deletion",
        ),
    }
)  # fmt: skip
