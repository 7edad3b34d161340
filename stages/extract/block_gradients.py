"""Heat maps at transformer blocks: the gradient of class scores through the rest of the network, taken while the network is at hand.

With A[k, n] the patch tokens that a block returns (not normalised, as `block_map` stores them) and g = dy/dA:

grad_cam   sum_k (mean_n g[k]) A[k]    Selvaraju et al. 2017, arXiv:1610.02391, eqs. 1-2
hires_cam  sum_k g[k] A[k]             Draelos and Carin 2020, arXiv:2011.08891
layer_cam  sum_k (g[k])+ A[k]          Jiang et al. 2021, doi:10.1109/TIP.2021.3089943

raw and signed: the outer ReLU of the papers is left to drawing. FPM's boundaries are held fixed, they have no gradient; under
bilinear sampling FAM's warp has one, and it is in. The global head reads CLS, which has read the patches of the block before:
at the last block its maps are exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from safenet.backbone import tokens_to_map
from safenet.model import SafeNetOutput
from stages.extract.gradient_plan import GradientPlan
from stages.extract.settings import GRADIENT_TARGETS
from stages.targets.head_weights import head_weights
from stages.targets.names import TargetName
from stages.targets.references import UNDEFINED

FORMULAS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {  # of map and gradient [B, K, H, W]; in the order of stages.schema.GRADIENT_METHODS
        "grad_cam": lambda maps, gradient: (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1),
        "hires_cam": lambda maps, gradient: (gradient * maps).sum(dim=1),
        "layer_cam": lambda maps, gradient: (gradient.clamp(min=0) * maps).sum(dim=1),
    }
)


def gradient_maps(plan: GradientPlan, output: SafeNetOutput, label: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """Take the gradients: one backward pass per target, from its score to the lowest block. The graph is used up.

    Parameters
    ----------
    plan : GradientPlan
    output : SafeNetOutput
        Of B images, run in grad mode with `graph_from` the lowest block.
    label : Tensor [B] of int64, optional
        Class of each image's place, -1 where it was not trained; needed where a target is `label`.
    scale : float
        The score is multiplied by it, and the gradient divided: what keeps float16's backward pass from underflowing.

    Returns
    -------
    Tensor [B, targets, blocks, methods, H, W] of float32
        In the patch frame; NaN for images that have no such target, infinite where the gradient overflows.
    """
    tokens = [output.block_tokens[number] for number in plan.blocks]
    maps = [tokens_to_map(value.detach().float()) for value in tokens]
    found = []
    for rank, target in enumerate(plan.targets, start=1):
        index = _class_index(plan, target, output, label)
        with torch.enable_grad():
            total = scale * _score(plan, target, output, index).sum()  # images do not see each other: the gradient of a sum is each one's own
        gradients = torch.autograd.grad(total, tokens, retain_graph=rank < len(plan.targets))
        heat = [_heat(one, tokens_to_map(gradient.float()) / scale) for one, gradient in zip(maps, gradients, strict=True)]
        defined = (index != UNDEFINED).view(-1, 1, 1, 1, 1)
        known = torch.stack(heat, dim=1).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)  # NaN means that there is no target
        found.append(torch.where(defined, known, torch.nan))
    return torch.stack(found, dim=1)


def _class_index(plan: GradientPlan, target: TargetName, output: SafeNetOutput, label: Tensor | None) -> Tensor:
    """Class of each image [B]; UNDEFINED where it has none."""
    scores = output.logit.detach()[:, :, : plan.parts].mean(dim=2)
    if target.row.who == "class":
        return torch.full_like(scores[:, 0], plan.class_names.index(target.name), dtype=torch.int64)
    if target.row.who == "label":
        if label is None:
            raise ValueError(f"{GRADIENT_TARGETS}: target {target} needs the class of each image; pass class_index")
        return label.to(scores.device)
    index = scores.argmax(dim=1)
    if target.row.who == "counter":
        index = scores.scatter(1, index[:, None], -torch.inf).argmax(dim=1)
    return torch.where(scores.isfinite().all(dim=1), index, UNDEFINED)


def _score(plan: GradientPlan, target: TargetName, output: SafeNetOutput, index: Tensor) -> Tensor:
    """Score of each image's class [B]: the heads' logits as the target weights them; their softmax where it says so."""
    scores = output.logit @ output.logit.new_tensor(head_weights(target, plan.parts))
    scores = scores.softmax(dim=1) if target.softmax else scores
    return scores.gather(1, index.clamp(min=0)[:, None])[:, 0]


def _heat(maps: Tensor, gradient: Tensor) -> Tensor:
    """Every method's map [B, methods, H, W] of one block."""
    return torch.stack([formula(maps, gradient) for formula in FORMULAS.values()], dim=1)
