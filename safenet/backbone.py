"""The ViT of Safe-Net on timm's VisionTransformer, and the way between tokens and the grid."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial

import torch
from torch import Tensor, nn

from safenet.architecture import Architecture
from safenet.timm_parts import VisionTransformer


class QueryScale(nn.Module):
    """Multiply the queries by `heads ** -0.5`.

    timm scales attention by head_dim ** -0.5, upstream by the full dim ** -0.5; their quotient is heads ** -0.5.
    Standing in timm's slot for query normalisation, it leaves fused attention on and the weights as they are in the file.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.factor = heads**-0.5

    def forward(self, query: Tensor) -> Tensor:
        """Scale `query` [B, heads, tokens, head_dim]."""
        return query * self.factor


def build_backbone(architecture: Architecture) -> VisionTransformer:
    """Return the headless ViT: pre-norm blocks, LayerNorm eps 1e-6, no qkv bias, learned position embedding with CLS."""
    backbone = VisionTransformer(
        img_size=architecture.image_size,
        patch_size=architecture.patch_size,
        embed_dim=architecture.width,
        depth=architecture.depth,
        num_heads=architecture.heads,
        mlp_ratio=architecture.mlp_ratio,
        qkv_bias=False,
        num_classes=0,
        global_pool="",
        drop_path_rate=architecture.drop_path,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        weight_init="skip",
    )
    for block in backbone.blocks:
        block.attn.q_norm = QueryScale(architecture.heads)  # type: ignore[union-attr]
    initialise(backbone)
    return backbone


@torch.no_grad()
def initialise(backbone: VisionTransformer) -> None:
    """Draw upstream's initial weights: truncated normal 0.02 cut at 2, biases 0, patch convolution by its fan-out."""
    truncated = partial(nn.init.trunc_normal_, std=0.02, a=-2.0, b=2.0)
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            truncated(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for embedding in (backbone.pos_embed, backbone.cls_token):
        assert embedding is not None
        truncated(embedding)
    convolution = backbone.patch_embed.proj
    nn.init.normal_(convolution.weight, std=math.sqrt(2 / (convolution.kernel_size[0] * convolution.kernel_size[1] * convolution.out_channels)))


def forward_tokens(
    backbone: VisionTransformer, images: Tensor, blocks: Collection[int] = (), graph_from: int | None = None
) -> tuple[Tensor, dict[int, Tensor]]:
    """Run the ViT once.

    Parameters
    ----------
    images : Tensor [B, 3, S, S]
        Normalised images.
    blocks : collection of int
        Which blocks' outputs to return, 0 first. They are not normalised, as upstream returns them.
    graph_from : int, optional
        Block whose output is cut off from what lies below it, and requires a gradient.

    Returns
    -------
    tokens : Tensor [B, 1 + HW, D]
        After the final LayerNorm; CLS first, then patches row-major.
    block_tokens : dict of int -> Tensor [B, 1 + HW, D]

    Raises
    ------
    ValueError
        If a block does not exist.
    """
    depth = len(backbone.blocks)
    unknown = [index for index in blocks if not 0 <= index < depth]
    if unknown:
        raise ValueError(f"block {unknown[0]} does not exist: the network has blocks 0 to {depth - 1}")
    tokens = backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(images))))
    block_tokens = {}
    for index, block in enumerate(backbone.blocks):
        tokens = block(tokens)
        if index == graph_from:
            tokens = tokens.detach().requires_grad_()
        if index in blocks:
            block_tokens[index] = tokens
    return backbone.norm(tokens), block_tokens


def tokens_to_map(tokens: Tensor) -> Tensor:
    """Drop CLS and lay the patch tokens [B, 1 + HW, D] out as a square map [B, D, H, W]."""
    batch, length, channels = tokens.shape
    side = math.isqrt(length - 1)
    return tokens[:, 1:].transpose(1, 2).reshape(batch, channels, side, side)
