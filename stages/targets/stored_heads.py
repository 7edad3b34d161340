"""From the stored arrays of heads to heads that scores can ask, and to what the heads give for other features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from safenet.architecture import HeadActivation
from safenet.head_arrays import HeadArrays, fold_head, run_head
from safenet.needs_network import require_network
from stages.targets.part_heads import AffineHeads, Float, PartHeads


def part_heads(arrays: Sequence[HeadArrays], activation: HeadActivation = "none", *, closed_form: bool = True) -> PartHeads:
    """Return the heads in the simplest form that is exact; only what has no closed form imports torch.

    Parameters
    ----------
    arrays : sequence of mapping
        The arrays of safenet.head_arrays.HEAD_ARRAYS, of each part's head, innermost first.
    activation : {"none", "leaky_relu"}
    closed_form : bool
        False: by autograd whatever they are.

    Raises
    ------
    ImportError
        If there is no closed form and torch is not installed.
    """
    if closed_form and activation == "none":
        return AffineHeads([fold_head(of_head) for of_head in arrays])
    require_network("a gradient of heads without a closed form")
    from stages.targets.autograd import AutogradHeads

    return AutogradHeads(arrays, activation)


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
