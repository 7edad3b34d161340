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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from safenet.architecture import Architecture
from safenet.backbone import tokens_to_map
from safenet.model import SafeNetOutput
from stages.naming import known
from stages.targets.names import TargetName, parse_target
from stages.targets.scoring import UNDEFINED

SETTING = "extract.gradient_targets"
FORMULAS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {  # of map and gradient [B, K, H, W]; in the order of stages.schema.GRADIENT_METHODS
        "grad_cam": lambda maps, gradient: (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1),
        "hires_cam": lambda maps, gradient: (gradient * maps).sum(dim=1),
        "layer_cam": lambda maps, gradient: (gradient.clamp(min=0) * maps).sum(dim=1),
    }
)


@dataclass(frozen=True)
class BlockGradients:
    """Which scores are traced back to which blocks; made, and checked, by `plan_gradients`.

    Attributes
    ----------
    targets : tuple of TargetName
        Of classes.
    blocks : tuple of int
        Ascending, at least one; the lowest is where the graph starts.
    parts : int
    class_names : tuple of str
    """

    targets: tuple[TargetName, ...]
    blocks: tuple[int, ...]
    parts: int
    class_names: tuple[str, ...] = ()

    @property
    def needs_label(self) -> bool:
        """Whether a target is the class of the image's own place."""
        return any(target.base == "label" for target in self.targets)

    def maps(self, output: SafeNetOutput, label: Tensor | None = None, scale: float = 1.0) -> Tensor:
        """Take the gradients: one backward pass a target, from its score to the lowest block. The graph is used up.

        Parameters
        ----------
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
        tokens = [output.block_tokens[number] for number in self.blocks]
        maps = [tokens_to_map(value.detach().float()) for value in tokens]
        found = []
        for rank, target in enumerate(self.targets, start=1):
            index = self._class_index(target, output, label)
            with torch.enable_grad():
                total = scale * self._score(target, output, index).sum()  # images do not see each other: the gradient of a sum is each one's own
            gradients = torch.autograd.grad(total, tokens, retain_graph=rank < len(self.targets))
            heat = [_heat(one, tokens_to_map(gradient.float()) / scale) for one, gradient in zip(maps, gradients, strict=True)]
            defined = (index != UNDEFINED).view(-1, 1, 1, 1, 1)
            known = torch.stack(heat, dim=1).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)  # NaN means that there is no target
            found.append(torch.where(defined, known, torch.nan))
        return torch.stack(found, dim=1)

    def _class_index(self, target: TargetName, output: SafeNetOutput, label: Tensor | None) -> Tensor:
        """Class of each image [B]; UNDEFINED where it has none."""
        scores = output.logit.detach()[:, :, : self.parts].mean(dim=2)
        if target.row.who == "class":
            return torch.full_like(scores[:, 0], self.class_names.index(target.name), dtype=torch.int64)
        if target.row.who == "label":
            if label is None:
                raise ValueError(f"{SETTING}: target {target} needs the class of each image; pass class_index")
            return label.to(scores.device)
        index = scores.argmax(dim=1)
        if target.row.who == "counter":
            index = scores.scatter(1, index[:, None], -torch.inf).argmax(dim=1)
        return torch.where(scores.isfinite().all(dim=1), index, UNDEFINED)

    def _score(self, target: TargetName, output: SafeNetOutput, index: Tensor) -> Tensor:
        """Score of each image's class [B]: the heads' logits as the target weights them; their softmax where it says so."""
        scores = output.logit @ output.logit.new_tensor(target.head_weights(self.parts))
        scores = scores.softmax(dim=1) if target.softmax else scores
        return scores.gather(1, index.clamp(min=0)[:, None])[:, 0]


def class_target(text: str) -> TargetName:
    """Take a target of extract.gradient_targets apart.

    Raises
    ------
    ValueError
        If it is unknown, or a similarity.
    """
    target = parse_target(text, SETTING)
    if target.row.kind == "similarity":
        raise ValueError(
            f"{SETTING}: {text!r} is a similarity: it needs the embeddings of other images, which are not there before the pass is over. "
            f"Name a target of a class (label, predicted, counter, class_NAME) here, and this one in cam.targets"
        )
    return target


def plan_gradients(targets: Sequence[str], blocks: Sequence[int], architecture: Architecture, class_names: Sequence[str]) -> BlockGradients:
    """Check targets and blocks against a network, before anything is computed.

    Parameters
    ----------
    targets : sequence of str
    blocks : sequence of int
        Ascending.
    architecture : Architecture
    class_names : sequence of str
        Training places in the order of the logits; empty where they are not known.

    Raises
    ------
    ValueError
        If a block or part does not exist, a class is unknown, or a target needs more classes or names than there are.
    """
    if blocks[-1] >= architecture.depth:
        raise ValueError(f"extract.gradient_blocks: block {blocks[-1]} does not exist: the network has blocks 0 to {architecture.depth - 1}")
    parsed = tuple(class_target(text) for text in targets)
    for target in parsed:
        _check_target(target, architecture, class_names)
    return BlockGradients(parsed, tuple(blocks), architecture.parts, tuple(class_names))


def _check_target(target: TargetName, architecture: Architecture, class_names: Sequence[str]) -> None:
    try:
        target.head_weights(architecture.parts)
    except ValueError as error:
        raise ValueError(f"{SETTING}: {error}") from None
    if target.row.who in ("label", "class") and not class_names:
        raise ValueError(
            f"{SETTING}: {str(target)!r} needs the names of the {architecture.classes} training classes, and neither the checkpoint nor the "
            f"manifest's training places give them. Index the training split too, or use 'predicted'"
        )
    if target.row.who == "class":
        known(target.name, class_names, f"{SETTING}: class of {str(target)!r}")
    if target.row.who == "counter" and architecture.classes < 2:
        raise ValueError(f"{SETTING}: {str(target)!r} needs a second class; the network has {architecture.classes}. Use 'predicted'")


def _heat(maps: Tensor, gradient: Tensor) -> Tensor:
    """Every method's map [B, methods, H, W] of one block."""
    return torch.stack([formula(maps, gradient) for formula in FORMULAS.values()], dim=1)
