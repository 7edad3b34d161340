"""The heads of the parts as the scores need them: what they give, how a gradient passes them, what is left without a share of their input.

An affine head (Linear, BatchNorm in evaluation mode, Linear) answers in closed form. A head with an activation is asked by autograd, on the stored
part features: still no backbone, no photo.

Symbols: B samples, P parts, K channels, E embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from safenet.architecture import HeadActivation
from safenet.heads import FoldedHead, build_head, fold_head

Float = NDArray[np.floating]
Exact = NDArray[np.float64]
Output = Literal["embedding", "logit"]


class Removal(Protocol):
    """A set of J ways to take something out of the map, by what each takes from the part features."""

    @property
    def is_linear(self) -> bool:
        """Whether what is taken is the thing's own share of the part feature."""

    def through(self, sample: int, part: int, matrix: Exact) -> Exact:
        """Return `matrix` [R, K] times what is taken from z_part, [J, R]."""


class PartHeads(Protocol):
    """All heads of the parts, innermost first; everything in float64."""

    @property
    def is_affine(self) -> bool:
        """Whether embedding and logit are affine in the part feature."""

    @property
    def count(self) -> int:
        """P."""

    def at_zero(self, output: Output) -> Exact:
        """What the heads give for a map of zeros, [P, E] or [P, C]."""

    def back(self, output: Output, gradient: Exact, part_feature: Float) -> Exact:
        """Carry dy/d(output) [B, P, E or C] back to dy/dz [B, P, K], at the part features [B, P, K]."""

    def class_gradient(self, index: NDArray[np.int64], part_feature: Float) -> Exact:
        """Gradient of the logits of one class per sample, [B, P, K]."""

    def without(self, output: Output, whole: Exact, part_feature: Float, removal: Removal, sample: int, part: int) -> Exact:
        """What is left of the output `whole` [E or C] of a part, [J, E or C]."""


@dataclass(frozen=True)
class AffineHeads:
    """Heads that are one matrix and one constant per output.

    Parameters
    ----------
    folded : sequence of FoldedHead
    """

    folded: Sequence[FoldedHead]
    is_affine = True

    @property
    def count(self) -> int:
        """P."""
        return len(self.folded)

    def at_zero(self, output: Output) -> Exact:
        """The constants."""
        return np.stack([head.const if output == "logit" else head.embed_const for head in self.folded])

    def back(self, output: Output, gradient: Exact, part_feature: Float) -> Exact:
        """The transposed matrices, whatever the part features."""
        return np.stack([gradient[:, part] @ self._matrix(output, part) for part in range(self.count)], axis=1)

    def class_gradient(self, index: NDArray[np.int64], part_feature: Float) -> Exact:
        """Rows of the matrices: a product with all classes would cost more than all maps together."""
        return np.stack([head.matrix[index] for head in self.folded], axis=1)

    def without(self, output: Output, whole: Exact, part_feature: Float, removal: Removal, sample: int, part: int) -> Exact:
        """The output less the matrix times what was taken."""
        return whole - removal.through(sample, part, self._matrix(output, part))

    def _matrix(self, output: Output, part: int) -> Exact:
        return self.folded[part].matrix if output == "logit" else self.folded[part].embed_matrix


@dataclass(frozen=True)
class AutogradHeads:
    """Heads of any kind, by autograd.

    Parameters
    ----------
    arrays : sequence of mapping
        The arrays of safenet.heads.HEAD_ARRAYS, of each part's head.
    activation : {"none", "leaky_relu"}
        What follows BatchNorm.
    """

    arrays: Sequence[Mapping[str, Float]]
    activation: HeadActivation
    is_affine = False

    @property
    def count(self) -> int:
        """P."""
        return len(self.arrays)

    def at_zero(self, output: Output) -> Exact:
        """Run on zeros."""
        zero = np.zeros((1, self.arrays[0]["w1"].shape[1]))
        return np.concatenate([self._run(output, part, zero) for part in range(self.count)])

    def back(self, output: Output, gradient: Exact, part_feature: Float) -> Exact:
        """Vector-Jacobian products at the part features."""
        found = []
        for part in range(self.count):
            value = torch.tensor(part_feature[:, part], dtype=torch.float64, requires_grad=True)
            with torch.enable_grad():
                result = self._modules[part](value)[output == "logit"]
                found.append(torch.autograd.grad(result, value, torch.from_numpy(np.ascontiguousarray(gradient[:, part])))[0].numpy())
        return np.stack(found, axis=1)

    def class_gradient(self, index: NDArray[np.int64], part_feature: Float) -> Exact:
        """As `back`, of a one in the class's place."""
        classes = self.arrays[0]["w2"].shape[0]
        one_hot = np.eye(classes)[index][:, None].repeat(self.count, axis=1)
        return self.back("logit", one_hot, part_feature)

    def without(self, output: Output, whole: Exact, part_feature: Float, removal: Removal, sample: int, part: int) -> Exact:
        """Run on what is left of the part feature; `whole` differs from the run on all of it by rounding alone, and is not needed."""
        feature = part_feature[sample, part].astype(np.float64)
        return self._run(output, part, feature - removal.through(sample, part, np.eye(len(feature))))

    def _run(self, output: Output, part: int, feature: Exact) -> Exact:
        with torch.no_grad():
            found: Exact = self._modules[part](torch.from_numpy(feature))[output == "logit"].numpy()
        return found

    @cached_property
    def _modules(self) -> list[torch.nn.Module]:
        return [build_head(arrays, self.activation, torch.float64) for arrays in self.arrays]


def part_heads(arrays: Sequence[Mapping[str, Float]], activation: HeadActivation = "none", *, closed_form: bool = True) -> PartHeads:
    """Return the heads in the simplest form that is exact.

    Parameters
    ----------
    arrays : sequence of mapping
        The arrays of safenet.heads.HEAD_ARRAYS, of each part's head, innermost first.
    activation : {"none", "leaky_relu"}
    closed_form : bool
        False: by autograd whatever they are.
    """
    if closed_form and activation == "none":
        return AffineHeads([fold_head(of_head) for of_head in arrays])
    return AutogradHeads(arrays, activation)


def run_heads(arrays: Sequence[Mapping[str, Float]], activation: HeadActivation, features: Float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run heads on features that may be another network's.

    Parameters
    ----------
    arrays : sequence of mapping
        The arrays of safenet.heads.HEAD_ARRAYS, of each head, the global one last.
    activation : {"none", "leaky_relu"}
    features : float [B, heads, K]
        Part features, then the global feature.

    Returns
    -------
    embedding : float32 [B, heads, E]
    logit : float32 [B, heads, C]
    """
    exact = torch.from_numpy(features.astype(np.float64))
    with torch.no_grad():
        pairs = [build_head(of_head, activation, torch.float64)(exact[:, number]) for number, of_head in enumerate(arrays)]
    embedding, logit = (torch.stack(outputs, dim=1).float().numpy() for outputs in zip(*pairs, strict=True))
    return embedding, logit
