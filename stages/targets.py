"""What a gradient is taken of: a score y, as its derivative with respect to each part feature.

Heads are affine in evaluation mode, so for a class c the score y = mean over parts of logit_p[c] has
dy/dz_p = M_p[c] / P, whatever the image. For retrieval, y is the mean over the parts of the cosine between the part's
embedding and those of the true images of the other view, in three readings:

match           the gradient of the cosine, through the norm: what would make the pair more alike. As training brings
                the cosine near 1, what is left to gain is small and says little.
match_share     the norm held fixed: what makes the pair alike. The cells of HiResCAM add up to the cosine, less what the
                heads' constants contribute (a term of the image, not of its cells).
match_contrast  the same, less the mean over all places of that view and split, the true one among them: what makes the pair more
                alike than any pair is (the idea of Finer-CAM, arXiv:2501.11309).

The global head reads CLS alone: its gradient at the patch and aligned maps is exactly zero, so no target uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from safenet.heads import HEAD_ARRAYS, FoldedHead, fold_head
from stages.naming import known
from stages.schema import HEAD_PREFIX

NO_TARGET = "none"
CLASS_PREFIX = "class_"
UNDEFINED = -1


@dataclass(frozen=True)
class TargetContext:
    """What targets need beyond a block's own features.

    Parameters
    ----------
    heads : sequence of FoldedHead
        Of the parts, innermost first.
    class_names : sequence of str
        Training places in the order of the logits.
    reference : float32 [G, P, E]
        Mean unit embedding of each reference group (see `reference_embeddings`); empty where no target needs it.
    rivals : float32 [G, P, E]
        Mean of the references that a group competes with (see `rival_embeddings`).
    """

    heads: Sequence[FoldedHead]
    class_names: Sequence[str]
    reference: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    rivals: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))


def part_heads(features: xr.Dataset) -> list[FoldedHead]:
    """Fold the stored heads of the parts (all but the last, global one), in float64."""
    arrays = {name: features[HEAD_PREFIX + name].values for name in HEAD_ARRAYS}
    return [fold_head({name: value[index] for name, value in arrays.items()}) for index in range(features.sizes["head"] - 1)]


def label_index(places: Sequence[str], class_names: Sequence[str]) -> NDArray[np.int64]:
    """Class of each place, UNDEFINED for places that were not trained."""
    number = {name: index for index, name in enumerate(class_names)}
    return np.array([number.get(place, UNDEFINED) for place in places], dtype=np.int64)


@dataclass(frozen=True)
class ReferenceGroups:
    """Which mean embedding a sample is compared with, and which samples make it up.

    Parameters
    ----------
    member : int64 [sample]
        Group that the sample's embedding contributes to, UNDEFINED for none.
    wanted : int64 [sample]
        Group that the sample is compared with: its place in the other view; UNDEFINED where there is none.
    family : int64 [group]
        View and split of each group, as a number: groups of one family compete with each other.
    """

    member: NDArray[np.int64]
    wanted: NDArray[np.int64]
    family: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.family)


_OTHER_VIEW = {"drone": "satellite", "satellite": "drone"}


def reference_groups(place: Sequence[str], view: Sequence[str], split: Sequence[str], roles: Sequence[str], valid: Sequence[bool]) -> ReferenceGroups:
    """Group the possible references by (place, view, split); test images are compared with gallery images only."""
    rows = list(zip(place, view, split, roles, valid, strict=True))
    serves = [ok and ("gallery" in role or s == "train") for _, _, s, role, ok in rows]
    keys = sorted({(p, v, s) for (p, v, s, _, _), serve in zip(rows, serves, strict=True) if serve})
    number = {key: index for index, key in enumerate(keys)}
    member = [number[p, v, s] if serve else UNDEFINED for (p, v, s, _, _), serve in zip(rows, serves, strict=True)]
    wanted = [number.get((p, _OTHER_VIEW.get(v, ""), s), UNDEFINED) if ok else UNDEFINED for p, v, s, _, ok in rows]
    families = sorted({(v, s) for _, v, s in keys})
    family = [families.index((v, s)) for _, v, s in keys]
    return ReferenceGroups(np.array(member, np.int64), np.array(wanted, np.int64), np.array(family, np.int64))


def reference_embeddings(blocks: Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]], count: int) -> NDArray[np.float32]:
    """Mean over each group of the unit embeddings of the parts.

    Parameters
    ----------
    blocks : (embedding float32 [B, P, E], member int64 [B]) pairs
    count : int
        Number of groups.

    Returns
    -------
    float32 [count, P, E]
    """
    total, seen = None, np.zeros(count)
    for embedding, member in blocks:
        chosen = member != UNDEFINED
        unit = embedding[chosen] / np.linalg.norm(embedding[chosen], axis=2, keepdims=True)
        total = np.zeros((count, *embedding.shape[1:])) if total is None else total
        np.add.at(total, member[chosen], unit)
        np.add.at(seen, member[chosen], 1)
    if total is None:
        return np.zeros((count, 0, 0), np.float32)
    return (total / np.maximum(seen, 1)[:, None, None]).astype(np.float32)


def rival_embeddings(reference: NDArray[np.float32], family: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean of the references of each group's family, its own among them, float32 [G, P, E]."""
    means = {number: reference[family == number].mean(axis=0) for number in np.unique(family)}
    return np.stack([means[number] for number in family]) if len(family) else reference


def directions(features: xr.Dataset, target: str, context: TargetContext) -> NDArray[np.float32]:
    """Return V_p = dy/dz_p of every sample, float32 [B, P, K]; all NaN for samples that have no such target.

    Parameters
    ----------
    features : Dataset
        A block in memory with `logit`, `embedding` and the coordinates `class_index` and `reference_group`.
    target : str
        "label", "predicted", "class_<name>", "match", "match_share" or "match_contrast".
    """
    kind, name = _split(target)
    return TARGETS[kind](features, name, context)


def check_target(target: str, class_names: Sequence[str] | None = None) -> str:
    """Return `target` if it is one, else raise a ValueError that names the nearest known one."""
    if target.startswith(CLASS_PREFIX):
        if class_names is not None:
            known(target.removeprefix(CLASS_PREFIX), class_names, f"cam.targets: class of {target!r}")
        return target
    return known(target, [kind for kind in TARGETS if kind != CLASS_PREFIX] + [f"{CLASS_PREFIX}<name>"], "cam.targets")


def _split(target: str) -> tuple[str, str]:
    if target.startswith(CLASS_PREFIX):
        return CLASS_PREFIX, target.removeprefix(CLASS_PREFIX)
    return target, ""


def _of_class(index: NDArray[np.int64], context: TargetContext) -> NDArray[np.float32]:
    """M_p[c] / P; the mean of the parts' logits is the score."""
    rows = np.stack([head.matrix[index] for head in context.heads], axis=1) / len(context.heads)
    rows[index == UNDEFINED] = np.nan
    return rows.astype(np.float32)


def _label(features: xr.Dataset, name: str, context: TargetContext) -> NDArray[np.float32]:
    return _of_class(features["class_index"].values, context)


def _predicted(features: xr.Dataset, name: str, context: TargetContext) -> NDArray[np.float32]:
    logit = features["logit"].values[:, :-1].mean(axis=1)
    index = np.where(np.isfinite(logit).all(axis=1), logit.argmax(axis=1), UNDEFINED)
    return _of_class(index, context)


def _class(features: xr.Dataset, name: str, context: TargetContext) -> NDArray[np.float32]:
    index = list(context.class_names).index(name)
    return _of_class(np.full(features.sizes["sample"], index), context)


def _match(features: xr.Dataset, name: str, context: TargetContext) -> NDArray[np.float32]:
    """W_p^T (q - (q . f) f) / |f_p| / P with f the unit embedding and q the mean unit embedding of the true images."""
    unit, norm = _unit(features)
    reference = _of_group(context.reference, features)
    return _through_heads((reference - (reference * unit).sum(axis=2, keepdims=True) * unit) / norm, context)


def _match_share(features: xr.Dataset, name: str, context: TargetContext) -> NDArray[np.float32]:
    """W_p^T q / |f_p| / P: |f_p| is a constant."""
    return _through_heads(_of_group(context.reference, features) / _unit(features)[1], context)


def _match_contrast(features: xr.Dataset, name: str, context: TargetContext) -> NDArray[np.float32]:
    """W_p^T (q - q0) / |f_p| / P with q0 the mean over all places of the true images' view and split."""
    return _through_heads(_of_group(context.reference - context.rivals, features) / _unit(features)[1], context)


def _unit(features: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit embeddings of the parts [B, P, E], and their norms [B, P, 1]; NaN where an embedding is zero."""
    embedding = features["embedding"].values[:, :-1].astype(np.float64)
    norm = np.linalg.norm(embedding, axis=2, keepdims=True)
    norm[norm == 0] = np.nan
    return embedding / norm, norm


def _of_group(reference: NDArray[np.float32], features: xr.Dataset) -> NDArray[np.float64]:
    group = features["reference_group"].values
    rows = reference[group].astype(np.float64)
    rows[group == UNDEFINED] = np.nan
    return rows


def _through_heads(gradient: NDArray[np.float64], context: TargetContext) -> NDArray[np.float32]:
    """Carry dy/df_p [B, P, E], times P, back to the part features."""
    rows = [gradient[:, index] @ head.embed_matrix for index, head in enumerate(context.heads)]
    return (np.stack(rows, axis=1) / len(context.heads)).astype(np.float32)


NEEDS_REFERENCE = frozenset({"match", "match_share", "match_contrast"})
TARGETS: Mapping[str, Callable[[xr.Dataset, str, TargetContext], NDArray[np.float32]]] = MappingProxyType(
    {
        "label": _label,
        "predicted": _predicted,
        CLASS_PREFIX: _class,
        "match": _match,
        "match_share": _match_share,
        "match_contrast": _match_contrast,
    }
)
