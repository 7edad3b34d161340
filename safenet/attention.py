"""CLS attention rows and attention rollout, recorded while a forward pass runs with fused attention."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from safenet.model import SafeNet
from safenet.timm_parts import Attention


class AttentionRecorder:
    """Within its `with` block, every forward pass of the model leaves its attention here.

    Fused attention never holds the attention matrix, so it is computed a second time, from each attention layer's
    input; the forward pass itself stays as it is.

    Attributes
    ----------
    cls_attention : Tensor [B, layers, heads, H, W]
        Attention of CLS to the patches in each block (CLS to itself left out).
    block_rollout : Tensor [B, layers, H, W]
        CLS row of the product, over the blocks up to and including each, of row-normalised (mean over heads + I).
    rollout : Tensor [B, H, W]
        Its last layer: over all blocks.

    Notes
    -----
    Rollout: Abnar and Zuidema 2020, arXiv:2005.00928, eq. 1.
    """

    def __init__(self, model: SafeNet) -> None:
        self._layers = [module for module in model.transformer.modules() if isinstance(module, Attention)]
        self._grid = model.architecture.grid
        self._rows: list[Tensor] = []
        self._rollouts: list[Tensor] = []
        self._product: Tensor | None = None
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> AttentionRecorder:
        for index, layer in enumerate(self._layers):
            self._handles.append(layer.register_forward_pre_hook(lambda module, inputs, index=index: self._record(index, module, inputs[0])))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @property
    def cls_attention(self) -> Tensor:
        """Of the last forward pass."""
        return torch.stack(self._rows, dim=1)

    @property
    def block_rollout(self) -> Tensor:
        """Of the last forward pass."""
        return torch.stack(self._rollouts, dim=1)

    @property
    def rollout(self) -> Tensor:
        """Of the last forward pass."""
        return self._rollouts[-1]

    @torch.no_grad()
    def _record(self, index: int, layer: Attention, tokens: Tensor) -> None:
        if index == 0:
            self._rows, self._rollouts, self._product = [], [], None
        weights = attention_weights(layer, tokens).float()
        self._rows.append(weights[:, :, 0, 1:].unflatten(2, (self._grid, self._grid)))
        step = weights.mean(dim=1) + torch.eye(weights.shape[-1], device=weights.device)
        step = step / step.sum(dim=-1, keepdim=True)
        self._product = step if self._product is None else step @ self._product
        self._rollouts.append(self._product[:, 0, 1:].unflatten(1, (self._grid, self._grid)))


def attention_weights(layer: Attention, tokens: Tensor) -> Tensor:
    """Softmax attention [B, heads, N, N] of one layer on its (normalised) input [B, N, D]."""
    batch, length, _ = tokens.shape
    query, key, _ = layer.qkv(tokens).reshape(batch, length, 3, layer.num_heads, layer.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    return (layer.q_norm(query) * layer.scale @ layer.k_norm(key).transpose(-2, -1)).softmax(dim=-1)
