"""The heads as arrays, in NumPy: what they give in evaluation mode, and the affine map that they fold into; safenet/heads.py is the same in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from safenet.architecture import Architecture, HeadActivation

BATCH_NORM_EPS = 1e-5
LEAKY_SLOPE = 0.1
CLASSIFIER_STD = 0.001

HEAD_ARRAYS: Mapping[str, str] = MappingProxyType(
    {
        "w1": "add_block.0.weight",
        "b1": "add_block.0.bias",
        "bn_weight": "add_block.1.weight",
        "bn_bias": "add_block.1.bias",
        "bn_mean": "add_block.1.running_mean",
        "bn_var": "add_block.1.running_var",
        "w2": "classifier.0.weight",
        "b2": "classifier.0.bias",
    }
)
Float = NDArray[np.floating]
HeadArrays = Mapping[str, Float]
Output = Literal["embedding", "logit"]


def run_head(arrays: HeadArrays, activation: HeadActivation, feature: Float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run a head in evaluation mode, layer by layer, in float64.

    Parameters
    ----------
    arrays : mapping
        The arrays named in HEAD_ARRAYS, of one head.
    activation : {"none", "leaky_relu"}
    feature : float [B, D]

    Returns
    -------
    embedding : float64 [B, E]
    logit : float64 [B, C]
    """
    return run_behind_bottleneck(arrays, activation, feature @ _exact(arrays)["w1"].T)


def embed_head(arrays: HeadArrays, activation: HeadActivation, feature: Float) -> NDArray[np.float64]:
    """Return the embedding [B, E] alone; parameters as in `run_head`, which also asks the classifier."""
    exact = _exact({name: value for name, value in arrays.items() if name not in ("w2", "b2")})
    return _ACTIVATIONS[activation].value(_normalised(exact, feature @ exact["w1"].T))


def run_behind_bottleneck(arrays: HeadArrays, activation: HeadActivation, hidden: Float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run what stands behind the product with w1; `hidden` [B, E] is that product, and the rest as in `run_head`."""
    exact = _exact(arrays)
    embedding = _ACTIVATIONS[activation].value(_normalised(exact, hidden))
    logit = embedding @ exact["w2"].T
    logit += exact["b2"]
    return embedding, logit


def run_head_backward(arrays: HeadArrays, activation: HeadActivation, feature: Float, output: Output, gradient: Float) -> NDArray[np.float64]:
    """Carry a gradient from an output of a head back to its input, layer by layer, in float64.

    Parameters
    ----------
    arrays, activation, feature
        As in `run_head`.
    output : {"embedding", "logit"}
    gradient : float [B, E] or [B, C]
        With respect to that output.

    Returns
    -------
    float64 [B, D]
    """
    exact = _exact(arrays)
    of_embedding = gradient if output == "embedding" else gradient @ exact["w2"]
    of_normalised = of_embedding * _ACTIVATIONS[activation].slope(_normalised(exact, feature @ exact["w1"].T))
    return (of_normalised * _gain(exact)) @ exact["w1"]


@dataclass(frozen=True)
class FoldedHead:
    """A head without activation, in evaluation mode, as two affine maps of its input z.

    embedding = embed_matrix @ z + embed_const, logit = matrix @ z + const; `matrix` is M_p of the heat-map formulas.

    Parameters
    ----------
    embed_matrix : float64 [E, D]
    embed_const : float64 [E]
    matrix : float64 [C, D]
    const : float64 [C]
    """

    embed_matrix: NDArray[np.float64]
    embed_const: NDArray[np.float64]
    matrix: NDArray[np.float64]
    const: NDArray[np.float64]


def fold_head(arrays: HeadArrays) -> FoldedHead:
    """Fold BatchNorm's running statistics into the two linear layers, in float64; see `Architecture.is_linear` for when this is the head.

    Parameters
    ----------
    arrays : mapping
        The arrays named in HEAD_ARRAYS, of one head.
    """
    exact = _exact(arrays)
    gain = _gain(exact)
    embed_matrix = gain[:, None] * exact["w1"]
    embed_const = gain * (exact["b1"] - exact["bn_mean"]) + exact["bn_bias"]
    return FoldedHead(embed_matrix, embed_const, exact["w2"] @ embed_matrix, exact["w2"] @ embed_const + exact["b2"])


def draw_head(network: Architecture, random: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Draw a head as training starts from it: the distributions of `safenet.heads.Head`, drawn by NumPy.

    Parameters
    ----------
    network : Architecture
        Its width, embedding and classes.
    random : numpy.random.Generator

    Returns
    -------
    dict
        The arrays named in HEAD_ARRAYS.
    """
    embedding, classes = network.embedding, network.classes
    ones, zeros = np.ones(embedding, np.float32), np.zeros(embedding, np.float32)
    return {
        "w1": random.normal(0, np.sqrt(2 / embedding), (embedding, network.width)).astype(np.float32),  # He et al. 2015, arXiv:1502.01852, fan out
        "b1": zeros,
        "bn_weight": ones,
        "bn_bias": zeros,
        "bn_mean": zeros,
        "bn_var": ones,
        "w2": random.normal(0, CLASSIFIER_STD, (classes, embedding)).astype(np.float32),
        "b2": np.zeros(classes, np.float32),
    }


@dataclass(frozen=True)
class _Activation:
    """What follows BatchNorm, and its derivative."""

    value: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    slope: Callable[[NDArray[np.float64]], NDArray[np.float64]]


_ACTIVATIONS: Mapping[HeadActivation, _Activation] = MappingProxyType(
    {
        "none": _Activation(lambda values: values, np.ones_like),
        "leaky_relu": _Activation(lambda values: np.maximum(values, LEAKY_SLOPE * values), lambda values: np.where(values > 0, 1.0, LEAKY_SLOPE)),
    }
)


def _normalised(exact: Mapping[str, NDArray[np.float64]], hidden: Float) -> NDArray[np.float64]:
    """What BatchNorm gives, from the product with w1."""
    found = hidden + (exact["b1"] - exact["bn_mean"])
    found *= _gain(exact)
    found += exact["bn_bias"]
    return found


def _gain(exact: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """What BatchNorm multiplies each number by."""
    return exact["bn_weight"] / np.sqrt(exact["bn_var"] + BATCH_NORM_EPS)


def _exact(arrays: HeadArrays) -> dict[str, NDArray[np.float64]]:
    return {name: np.asarray(value, dtype=np.float64) for name, value in arrays.items()}
