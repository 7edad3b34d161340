"""The heads: bottleneck and classifier, and the affine map that they fold into in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from safenet.architecture import HeadActivation

BATCH_NORM_EPS = 1e-5
ACTIVATIONS: Mapping[HeadActivation, Callable[[], nn.Module] | None] = {"none": None, "leaky_relu": partial(nn.LeakyReLU, 0.1)}

HEAD_ARRAYS: Mapping[str, str] = {
    "w1": "add_block.0.weight",
    "b1": "add_block.0.bias",
    "bn_weight": "add_block.1.weight",
    "bn_bias": "add_block.1.bias",
    "bn_mean": "add_block.1.running_mean",
    "bn_var": "add_block.1.running_var",
    "w2": "classifier.0.weight",
    "b2": "classifier.0.bias",
}


class Head(nn.Module):
    """Linear -> BatchNorm -> (LeakyReLU) -> Dropout 0.5 gives the embedding; one more Linear gives the logit.

    Upstream skips the classifier in evaluation mode; here both are always returned. An activation has no weights, and it
    stands behind all that has, so that the names in the state dict are the same with and without.
    """

    def __init__(self, width: int, embedding: int, classes: int, activation: HeadActivation = "none") -> None:
        super().__init__()
        bottleneck, classifier = nn.Linear(width, embedding), nn.Linear(embedding, classes)
        nn.init.kaiming_normal_(bottleneck.weight, a=0, mode="fan_out")
        nn.init.zeros_(bottleneck.bias)
        nn.init.normal_(classifier.weight, std=0.001)
        nn.init.zeros_(classifier.bias)
        make = ACTIVATIONS[activation]
        bent = [make()] if make else []
        self.add_block = nn.Sequential(bottleneck, nn.BatchNorm1d(embedding, eps=BATCH_NORM_EPS), *bent, nn.Dropout(0.5))
        self.classifier = nn.Sequential(classifier)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map `feature` [B, D] to (embedding [B, E], logit [B, C])."""
        embedding = self.add_block(feature)
        return embedding, self.classifier(embedding)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the weights under the short names of HEAD_ARRAYS."""
        state = self.state_dict()
        return {name: state[key].detach().cpu().float().numpy() for name, key in HEAD_ARRAYS.items()}


def build_head(arrays: Mapping[str, NDArray[np.floating]], activation: HeadActivation = "none", dtype: torch.dtype = torch.float32) -> Head:
    """Rebuild a head from its stored arrays, for gradients of its input where no closed form is.

    Parameters
    ----------
    arrays : mapping
        The arrays named in HEAD_ARRAYS, of one head; they are copied.
    activation : {"none", "leaky_relu"}
    dtype : torch.dtype
        float64 for a reference.

    Returns
    -------
    Head
        In evaluation mode, on the CPU, its weights without gradient.
    """
    with torch.device("meta"):  # no initial weights are drawn: the caller's seed is left alone
        classes, embedding = arrays["w2"].shape
        head = Head(arrays["w1"].shape[1], embedding, classes, activation)
    state = {key: torch.tensor(np.asarray(arrays[name]), dtype=dtype) for name, key in HEAD_ARRAYS.items()}
    head.load_state_dict({**state, "add_block.1.num_batches_tracked": torch.tensor(0)}, assign=True)
    return head.eval().requires_grad_(False)


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


def fold_head(arrays: Mapping[str, NDArray[np.floating]]) -> FoldedHead:
    """Fold BatchNorm's running statistics into the two linear layers, in float64; see `Architecture.is_linear` for when this is the head.

    Parameters
    ----------
    arrays : mapping
        The arrays named in HEAD_ARRAYS, of one head.
    """
    exact = {name: np.asarray(value, dtype=np.float64) for name, value in arrays.items()}
    gain = exact["bn_weight"] / np.sqrt(exact["bn_var"] + BATCH_NORM_EPS)
    embed_matrix = gain[:, None] * exact["w1"]
    embed_const = gain * (exact["b1"] - exact["bn_mean"]) + exact["bn_bias"]
    return FoldedHead(embed_matrix, embed_const, exact["w2"] @ embed_matrix, exact["w2"] @ embed_const + exact["b2"])
