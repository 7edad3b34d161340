"""The heads of the parts as the scores need them: what they give, how a gradient passes them, what is left without a share of their input.

An affine head (Linear, BatchNorm in evaluation mode, Linear) answers in closed form. A head with an activation is asked by autograd, on the stored
part features: still no backbone, no photo; see stages/targets/autograd.py.

Symbols: B samples, P parts, K channels, E embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from safenet.head_arrays import FoldedHead

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


class Pooled(Removal, Protocol):
    """The cells of a map behind a pooling that is no weighting, taken out one by one."""

    def gradient(self, direction: Float) -> Float:
        """Carry dy/dz [B, P, K] back to the cells, [B, N, K]."""


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
