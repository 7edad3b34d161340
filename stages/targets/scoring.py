"""From a target's name to its score on a block of samples, and to the score minus that of its rivals.

For a class, the score is its logit: the mean over the parts, or that of one part. For retrieval, it is the mean over the parts of the cosine between
the embedding of the part and its reference. There are three readings:

gradient
    The gradient of the cosine, through the norm: what would make the pair more similar. As training brings the cosine near 1, little is left to
    gain, and the map says little.
share
    The norm is held fixed: what makes the pair similar. The cells of HiResCAM add up to the cosine, minus what the constants of the heads
    contribute.
contrast
    As share, minus the mean over all places of that view and split, including the true one: what makes the pair more similar than the average is.

The global head reads only CLS. Its gradient at the patch and aligned maps is exactly zero, so a target of that head alone is refused there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from safenet.architecture import HeadActivation
from safenet.head_arrays import HEAD_ARRAYS
from stages.naming import known
from stages.schema import HEAD_PREFIX, Arrays
from stages.targets.head_weights import head_weights
from stages.targets.names import TargetName, parse_target
from stages.targets.part_heads import PartHeads, part_heads
from stages.targets.references import UNDEFINED, reference_name
from stages.targets.scores import CosineScore, LogitScore, Score, SoftmaxScore

RIVALS = 3
RIVAL_WEIGHT = 1.0


@dataclass(frozen=True)
class TargetContext:
    """What targets need beyond a block's own features and references.

    Parameters
    ----------
    heads : PartHeads
    class_names : sequence of str
        Training places in the order of the logits; empty where they are not known.
    classifiers : float [P, C, E]
        W2 of the parts: classes are alike as their rows are.
    """

    heads: PartHeads
    class_names: Sequence[str]
    classifiers: NDArray[np.floating]

    @cached_property
    def rivals(self) -> NDArray[np.int64]:
        """Other classes whose classifier rows are most like those of each class, int64 [C, RIVALS or fewer], nearest first."""
        rows = np.concatenate(list(self.classifiers.astype(np.float64)), axis=1)
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = rows / np.where(length > 0, length, 1)
        likeness = unit @ unit.T
        np.fill_diagonal(likeness, -np.inf)
        return np.argsort(-likeness, axis=1, kind="stable")[:, : min(RIVALS, len(rows) - 1)]


def target_context(heads: Arrays, class_names: Sequence[str], activation: HeadActivation = "none", *, closed_form: bool = True) -> TargetContext:
    """Return the context of stored heads.

    Parameters
    ----------
    heads : mapping
        The variables head_<name> of the feature schema, [head, ...], parts first, the global head last.
    class_names : sequence of str
    activation : {"none", "leaky_relu"}
        What follows a head's BatchNorm.
    closed_form : bool
        False: every gradient layer by layer.
    """
    arrays = {name: heads[HEAD_PREFIX + name][:-1] for name in HEAD_ARRAYS}
    of_each = [{name: value[part] for name, value in arrays.items()} for part in range(len(arrays["w1"]))]
    return TargetContext(part_heads(of_each, activation, closed_form=closed_form), class_names, arrays["w2"])


def label_index(places: Sequence[str], class_names: Sequence[str]) -> NDArray[np.int64]:
    """Class of each place, UNDEFINED for places that were not trained."""
    number = {name: index for index, name in enumerate(class_names)}
    return np.array([number.get(place, UNDEFINED) for place in places], dtype=np.int64)


def check_target(text: str, parts: int, class_names: Sequence[str] | None = None) -> TargetName:
    """Return the target, taken apart, if it can have a gradient at a map.

    Raises
    ------
    ValueError
        If a word of it is unknown, the class or part does not exist, or it is the score of the global head alone.
    """
    target = parse_target(text)
    weights = head_weights(target, parts)
    if not weights[:-1].any():
        raise ValueError(
            f"cam.targets: {text!r}: the global head reads CLS alone, so that its gradient at the patch map, the aligned map and the part "
            f"features is exactly zero. Use it at blocks (extract.gradient_targets), or a target of the parts"
        )
    if target.base == "class_" and class_names is not None:
        known(target.name, class_names, f"cam.targets: class of {text!r}")
    return target


def open_score(block: Arrays, target: TargetName, context: TargetContext) -> Score:
    """Score of every sample of a block.

    Parameters
    ----------
    block : mapping
        `logit`, `embedding` and `class_index` of the samples, and the references that the target is compared with; see stages/targets/references.py.
    target : TargetName
    context : TargetContext
    """
    weights = head_weights(target, context.heads.count)
    if target.row.kind == "class":
        score = SoftmaxScore if target.softmax else LogitScore
        return score(class_of(block, target, context), weights, block["logit"], block["part_feature"], context.heads)
    reference = block[reference_name(target, "own")]
    if target.row.reading == "contrast":
        reference = reference - block[reference_name(target, "all")]
    return _cosine(block, target, context, reference)


def rival_direction(block: Arrays, target: TargetName, context: TargetContext) -> NDArray[np.float64]:
    """Mean over the RIVALS classes or places most like the target of dy/dz_p, float64 [B, P, K].

    Classes are alike by the cosine of their classifiers' rows, places by their mean embeddings. Finer-CAM: Zhang et al. 2025, arXiv:2501.11309.
    """
    if target.row.kind == "similarity":
        return _cosine(block, target, context, block[reference_name(target, "rivals")]).direction
    index = class_of(block, target, context)
    nearest = context.rivals[np.maximum(index, 0)]
    if not nearest.shape[1]:
        return np.full(block["part_feature"].shape, np.nan)
    weights = head_weights(target, context.heads.count)
    score = SoftmaxScore if target.softmax else LogitScore
    of_rank = (np.where(index < 0, UNDEFINED, column) for column in nearest.T)
    rivals = [score(rival, weights, block["logit"], block["part_feature"], context.heads).direction for rival in of_rank]
    return np.asarray(np.mean(rivals, axis=0))


def without_rivals(block: Arrays, target: TargetName, context: TargetContext) -> NDArray[np.bool_]:
    """Which samples' targets have no other class or place to compete with, [B]."""
    if target.row.kind == "similarity":
        return np.asarray(np.isnan(block[reference_name(target, "rivals")]).any(axis=(1, 2)))
    return np.full(len(block["logit"]), not context.rivals.shape[1])


def class_of(block: Arrays, target: TargetName, context: TargetContext) -> NDArray[np.int64]:
    """Class that a target names, of each sample; UNDEFINED for none."""
    logit = block["logit"]
    if target.base == "label":
        return block["class_index"]
    if target.base == "class_":
        return np.full(len(logit), list(context.class_names).index(target.name))
    mean = logit[:, :-1].mean(axis=1)
    usable, index = np.isfinite(mean).all(axis=1), mean.argmax(axis=1)  # of equal classes the first
    if target.base == "counter":
        if mean.shape[1] < 2:
            return np.full(len(logit), UNDEFINED)
        np.put_along_axis(mean, index[:, None], -np.inf, axis=1)
        index = mean.argmax(axis=1)
    return np.where(usable, index, UNDEFINED)


def _cosine(block: Arrays, target: TargetName, context: TargetContext, reference: NDArray[np.floating]) -> CosineScore:
    flipped = block["flip_embedding"] if target.flip else None
    return CosineScore(
        block["embedding"].astype(np.float64),
        flipped,
        reference,
        head_weights(target, context.heads.count),
        block["part_feature"],
        context.heads,
        fixed_norm=target.row.reading != "gradient",
    )
