"""The heads in torch: bottleneck and classifier. As arrays, and folded, they are in safenet/head_arrays.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from safenet.architecture import HeadActivation
from safenet.head_arrays import BATCH_NORM_EPS, CLASSIFIER_STD, HEAD_ARRAYS, LEAKY_SLOPE, HeadArrays

ACTIVATIONS: Mapping[HeadActivation, Callable[[], nn.Module] | None] = {"none": None, "leaky_relu": partial(nn.LeakyReLU, LEAKY_SLOPE)}


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
        nn.init.normal_(classifier.weight, std=CLASSIFIER_STD)
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


def build_head(arrays: HeadArrays, activation: HeadActivation = "none", dtype: torch.dtype = torch.float32) -> Head:
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
