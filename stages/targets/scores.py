"""What a gradient is taken of: the score of a target, its derivative with respect to each part feature, and what is left without a part of the map.

With affine heads a logit, or the cosine at a fixed norm, is affine in the part features: its gradient V_p is the same whatever the image. A
probability and a cosine are not: each image has its own. The global head's share of a score is a constant: it does not see the map.

Symbols: B samples, P parts, K channels, E embedding, C classes; head weights h_p from the target's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.targets.part_heads import Exact, Float, PartHeads, Removal


@dataclass(frozen=True)
class ChannelRemoval:
    """Each channel set to zero in the whole map: z_p[k] goes.

    Parameters
    ----------
    part_feature : float [B, P, K]
    """

    part_feature: Float
    is_linear = True

    def through(self, sample: int, part: int, matrix: Exact) -> Exact:
        """Column k of the matrix times z_p[k]."""
        return (matrix * self.part_feature[sample, part]).T


@dataclass(frozen=True)
class CellRemoval:
    """Each cell set to zero in all channels, under mean pooling: T_p[n] A[n] goes.

    Parameters
    ----------
    cells : float [B, N, K]
    weights : float [B, P, N]
    """

    cells: Float
    weights: Float
    is_linear = True

    def through(self, sample: int, part: int, matrix: Exact) -> Exact:
        """The matrix times each cell, weighted."""
        return self.weights[sample, part][:, None] * (self.cells[sample].astype(np.float64) @ matrix.T)


class Score(Protocol):
    """The score y of every sample of a batch; NaN for samples that have no such target."""

    @property
    def absent(self) -> NDArray[np.bool_]:
        """Which samples have no such target, [B]."""

    @property
    def value(self) -> Exact:
        """As the network gave it, [B]."""

    @property
    def constant(self) -> Exact:
        """At a map of zeros, [B]: what no cell contributes."""

    @property
    def direction(self) -> Exact:
        """V_p = dy/dz_p, [B, P, K]."""

    @property
    def is_linear(self) -> bool:
        """Whether y is affine in the part features."""

    def without(self, removal: Removal) -> Exact:
        """What y falls to, [B, J]."""


@dataclass(frozen=True)
class _ClassScore:
    """What the scores of a class share.

    Parameters
    ----------
    index : int64 [B]
        c of each sample, -1 for none.
    weights : float64 [P + 1]
        h, the global head last.
    logit : float [B, P + 1, C]
    part_feature : float [B, P, K]
    heads : PartHeads
    """

    index: NDArray[np.int64]
    weights: Exact
    logit: Float
    part_feature: Float
    heads: PartHeads

    @property
    def absent(self) -> NDArray[np.bool_]:
        """Those that have no such class."""
        return self.index < 0

    @cached_property
    def _mixed(self) -> Exact:
        """Sum over heads of h_p logit_p, [B, C]."""
        return np.einsum("h,bhc->bc", self.weights, self.logit)

    @cached_property
    def _mixed_at_zero(self) -> Exact:
        return self.weights[:-1] @ self.heads.at_zero("logit") + self.weights[-1] * self.logit[:, -1]

    def _back(self, gradient: Exact) -> Exact:
        """Carry the gradient of the mixed logits [B, C] back to the part features."""
        of_parts = self.weights[:-1, None] * gradient[:, None]
        return self._defined(self.heads.back("logit", of_parts, self.part_feature))

    def _mixed_without(self, removal: Removal, sample: int) -> Exact:
        """Mixed logits of what is left of a sample, [J, C]."""
        total: Exact = self.weights[-1] * self.logit[sample, -1].astype(np.float64)
        for part in np.flatnonzero(self.weights[:-1]):
            whole = self.logit[sample, part].astype(np.float64)
            total = total + self.weights[part] * self.heads.without("logit", whole, self.part_feature, removal, sample, int(part))
        return total

    def _own(self, of_classes: Exact) -> Exact:
        return self._defined(np.take_along_axis(of_classes, self._row[:, None], axis=1)[:, 0])

    def _defined(self, values: Exact) -> Exact:
        found = np.array(values, dtype=np.float64)
        found[self.index < 0] = np.nan
        return found

    @property
    def _row(self) -> NDArray[np.int64]:
        return np.maximum(self.index, 0)

    @cached_property
    def _one_hot(self) -> Exact:
        found = np.zeros((len(self.index), self.logit.shape[2]))
        found[np.arange(len(found)), self._row] = 1
        return found


class LogitScore(_ClassScore):
    """y = sum over heads of h_p logit_p[c]."""

    @property
    def is_linear(self) -> bool:
        """Whether the heads are affine."""
        return self.heads.is_affine

    @cached_property
    def value(self) -> Exact:
        """Of the stored logits."""
        return self._own(self._mixed)

    @cached_property
    def constant(self) -> Exact:
        """Of the heads' logits for a map of zeros, and the global head's."""
        return self._own(self._mixed_at_zero)

    @cached_property
    def direction(self) -> Exact:
        """h_p M_p[c], for affine heads."""
        return self._defined(self.weights[:-1, None] * self.heads.class_gradient(self._row, self.part_feature))

    def without(self, removal: Removal) -> Exact:
        """Logits of what is left."""
        left = [self._mixed_without(removal, sample)[:, row] for sample, row in enumerate(self._row)]
        return self._defined(np.stack(left))


class SoftmaxScore(_ClassScore):
    """y = softmax(sum over heads of h_p logit_p)[c]."""

    is_linear = False

    @cached_property
    def value(self) -> Exact:
        """Of the stored logits."""
        return self._own(_softmax(self._mixed))

    @cached_property
    def constant(self) -> Exact:
        """The probability at a map of zeros."""
        return self._own(_softmax(self._mixed_at_zero))

    @cached_property
    def direction(self) -> Exact:
        """h_p p_c (M_p[c] - sum_j p_j M_p[j]), for affine heads."""
        probability = _softmax(self._mixed)
        own = np.take_along_axis(probability, self._row[:, None], axis=1)
        return self._back(own * (self._one_hot - probability))

    def without(self, removal: Removal) -> Exact:
        """Probabilities of what is left."""
        left = [_softmax(self._mixed_without(removal, sample))[:, row] for sample, row in enumerate(self._row)]
        return self._defined(np.stack(left))


@dataclass(frozen=True)
class CosineScore:
    """y = sum over heads of h_p f_p . q_p / |f_p|.

    Parameters
    ----------
    embedding : float64 [B, P + 1, E]
        f, the global head last.
    flipped : float [B, P + 1, E] or None
        Of the flipped image, added to f where the target says so; a constant of the map.
    reference : float [B, P + 1, E]
        q: mean unit embedding of what the image is compared with (less the mean over all places, for a contrast); NaN for none.
    weights : float64 [P + 1]
    part_feature : float [B, P, K]
    heads : PartHeads
    fixed_norm : bool
        |f_p| is a constant: y is affine in the embedding. Else the gradient goes through it.
    """

    embedding: Exact
    flipped: Float | None
    reference: Float
    weights: Exact
    part_feature: Float
    heads: PartHeads
    fixed_norm: bool

    @property
    def absent(self) -> NDArray[np.bool_]:
        """Those that have nothing to be compared with."""
        return np.asarray(np.isnan(self.reference).any(axis=(1, 2)))

    @property
    def is_linear(self) -> bool:
        """Whether the norm is held fixed and the heads are affine."""
        return self.fixed_norm and self.heads.is_affine

    @cached_property
    def value(self) -> Exact:
        """Of the stored embeddings."""
        return self._total((self._unit * self.reference).sum(axis=2))

    @cached_property
    def constant(self) -> Exact:
        """Of the embeddings for a map of zeros: over |f_p| where the norm is fixed, else over their own."""
        left = self.embedding.copy()
        left[:, :-1] = self.heads.at_zero("embedding")
        left = left if self.flipped is None else left + self.flipped
        norm = self._norm if self.fixed_norm else _norm(left)
        return self._total((left / norm * self.reference).sum(axis=2))

    @cached_property
    def direction(self) -> Exact:
        """h_p (q - (q . u) u) / |f_p| with u = f_p / |f_p|, or at a fixed norm h_p q / |f_p|; carried back through the heads."""
        gradient = self.reference.astype(np.float64)
        if not self.fixed_norm:
            gradient = gradient - (gradient * self._unit).sum(axis=2, keepdims=True) * self._unit
        return self.heads.back("embedding", (self.weights[:, None] * gradient / self._norm)[:, :-1], self.part_feature)

    def without(self, removal: Removal) -> Exact:
        """Cosines of what is left."""
        return np.stack([self._left(sample, removal) for sample in range(len(self.embedding))])

    def _left(self, sample: int, removal: Removal) -> Exact:
        total: Exact = np.asarray(self._total((self._unit * self.reference).sum(axis=2) * _only_last(len(self.weights)))[sample])
        for part in np.flatnonzero(self.weights[:-1]):
            left = self.heads.without("embedding", self.embedding[sample, part], self.part_feature, removal, sample, int(part))
            left = left if self.flipped is None else left + self.flipped[sample, part]
            norm = self._norm[sample, part] if self.fixed_norm else _norm(left)
            total = total + self.weights[part] * (left / norm) @ self.reference[sample, part]
        return total

    @cached_property
    def _whole(self) -> Exact:
        return self.embedding if self.flipped is None else self.embedding + self.flipped

    @cached_property
    def _norm(self) -> Exact:
        return _norm(self._whole)

    @cached_property
    def _unit(self) -> Exact:
        return self._whole / self._norm

    def _total(self, of_heads: Exact) -> Exact:
        """sum_p h_p ...; a head of weight 0 must not spoil it."""
        return np.where(self.weights > 0, of_heads, 0) @ self.weights


def _only_last(count: int) -> Exact:
    found = np.zeros(count)
    found[-1] = 1
    return found


def _softmax(logit: Exact) -> Exact:
    shifted = np.exp(logit - logit.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _norm(embedding: Exact) -> Exact:
    """Lengths, NaN where an embedding is zero."""
    norm = np.linalg.norm(embedding, axis=-1, keepdims=True)
    norm[norm == 0] = np.nan
    return norm
