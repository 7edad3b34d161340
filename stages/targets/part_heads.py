"""The heads of the parts as the scores need them: what they give, how a gradient passes them, what is left without a share of their input.

An affine head (Linear, BatchNorm in evaluation mode, Linear) answers in closed form. A head with an activation is run forwards and backwards on the
stored part features: still no backbone, no photo.

Symbols: B samples, P parts, K channels, E embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safenet.architecture import HeadActivation
from safenet.head_arrays import FoldedHead, HeadArrays, Output, embed_head, fold_head, run_behind_bottleneck, run_head, run_head_backward

Float = NDArray[np.floating]
Exact = NDArray[np.float64]


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
class LayeredHeads:
    """Heads of any kind, run forwards and backwards layer by layer.

    Parameters
    ----------
    arrays : sequence of mapping
        The arrays of safenet.head_arrays.HEAD_ARRAYS, of each part's head.
    activation : {"none", "leaky_relu"}
        What follows BatchNorm.
    """

    arrays: Sequence[HeadArrays]
    activation: HeadActivation
    is_affine = False

    @property
    def count(self) -> int:
        """P."""
        return len(self.arrays)

    def at_zero(self, output: Output) -> Exact:
        """Run on zeros."""
        zero = np.zeros((1, self.arrays[0]["w1"].shape[1]))
        return np.concatenate([run_head(arrays, self.activation, zero)[output == "logit"] for arrays in self._exact])

    def back(self, output: Output, gradient: Exact, part_feature: Float) -> Exact:
        """Backwards through the layers, at the part features."""
        found = [
            run_head_backward(arrays, self.activation, part_feature[:, part], output, gradient[:, part]) for part, arrays in enumerate(self._exact)
        ]
        return np.stack(found, axis=1)

    def class_gradient(self, index: NDArray[np.int64], part_feature: Float) -> Exact:
        """As `back`, of a one in the class's place."""
        classes = self.arrays[0]["w2"].shape[0]
        one_hot = np.eye(classes)[index][:, None].repeat(self.count, axis=1)
        return self.back("logit", one_hot, part_feature)

    def without(self, output: Output, whole: Exact, part_feature: Float, removal: Removal, sample: int, part: int) -> Exact:
        """Run on what is left of the part feature; `whole` differs from the run on all of it by rounding alone, and is not needed."""
        arrays = self._exact[part]
        left = arrays["w1"] @ part_feature[sample, part] - removal.through(sample, part, arrays["w1"])
        return run_behind_bottleneck(arrays, self.activation, left)[output == "logit"]

    @cached_property
    def _exact(self) -> list[dict[str, Exact]]:
        """In float64, converted once."""
        return [{name: np.asarray(values, np.float64) for name, values in arrays.items()} for arrays in self.arrays]


def part_heads(arrays: Sequence[HeadArrays], activation: HeadActivation = "none", *, closed_form: bool = True) -> PartHeads:
    """Return the heads in the simplest form that is exact.

    Parameters
    ----------
    arrays : sequence of mapping
        The arrays of safenet.head_arrays.HEAD_ARRAYS, of each part's head, innermost first.
    activation : {"none", "leaky_relu"}
    closed_form : bool
        False: layer by layer whatever they are.
    """
    if closed_form and activation == "none":
        return AffineHeads([fold_head(of_head) for of_head in arrays])
    return LayeredHeads(arrays, activation)


def run_heads(arrays: Sequence[HeadArrays], activation: HeadActivation, features: Float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run heads on features that may be another network's.

    Parameters
    ----------
    arrays : sequence of mapping
        The arrays of safenet.head_arrays.HEAD_ARRAYS, of each head, the global one last.
    activation : {"none", "leaky_relu"}
    features : float [B, heads, K]
        Part features, then the global feature.

    Returns
    -------
    embedding : float32 [B, heads, E]
    logit : float32 [B, heads, C]
    """
    pairs = [run_head(of_head, activation, features[:, number]) for number, of_head in enumerate(arrays)]
    embedding, logit = (np.stack(outputs, axis=1).astype(np.float32) for outputs in zip(*pairs, strict=True))
    return embedding, logit


def embed_with_heads(arrays: Sequence[HeadArrays], activation: HeadActivation, features: Float) -> NDArray[np.float32]:
    """Return the embeddings of `run_heads` alone, float32 [B, heads, E]: what a gallery is compared by."""
    return np.stack([embed_head(of_head, activation, features[:, number]) for number, of_head in enumerate(arrays)], axis=1).astype(np.float32)
