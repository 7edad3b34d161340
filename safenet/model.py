"""Safe-Net: one forward pass that returns every tensor worth looking at."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from safenet.alignment import LocNet, resample, source_cells
from safenet.architecture import Architecture
from safenet.backbone import build_backbone, forward_tokens, tokens_to_map
from safenet.heads import Head
from safenet.partition import POOLINGS, find_boundaries, ring_saliency


@dataclass(frozen=True)
class SafeNetOutput:
    """What one forward pass saw: B images, D channels, H x W grid, R rings, P parts, E embedding, C classes.

    `tokens` [B, 1+HW, D] after the final LayerNorm, CLS first; `global_feature` [B, D] its CLS entry; `patch_map`
    [B, D, H, W] its patches, in the photo's frame; `theta` [B, 2, 3] FAM's warp, output to input coordinates;
    `source_cell` [B, H, W] int64, row-major index of the patch token that each aligned cell copies; `aligned_map`
    [B, D, H, W] after FAM; `saliency` [B, R] and `boundary` [B, P] int64 of FPM, in cells; `part_feature` [B, D, P];
    `embedding` [B, E, P+1] and `logit` [B, C, P+1], parts first, global last; `block_tokens` block -> [B, 1+HW, D], not
    normalised, for the blocks asked for.
    """

    tokens: Tensor
    global_feature: Tensor
    patch_map: Tensor
    theta: Tensor
    source_cell: Tensor
    aligned_map: Tensor
    saliency: Tensor
    boundary: Tensor
    part_feature: Tensor
    embedding: Tensor
    logit: Tensor
    block_tokens: dict[int, Tensor] = field(default_factory=dict)

    @property
    def block_maps(self) -> dict[int, Tensor]:
        """The patches of `block_tokens`: block -> [B, D, H, W]."""
        return {index: tokens_to_map(value) for index, value in self.block_tokens.items()}


class SafeNet(nn.Module):
    """Lin et al., "A Self-Adaptive Feature Extraction Method for Aerial-View Geo-Localization", IEEE TIP 2025.

    DOI 10.1109/TIP.2024.3513157. The state dict is that of the published code's inner model (without its
    `loc_model.` prefix and its unused 1000-class `transformer.fc`).

    Parameters
    ----------
    architecture : Architecture
    """

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or Architecture()
        sizes = (self.architecture.width, self.architecture.embedding, self.architecture.classes, self.architecture.head_activation)
        self.transformer = build_backbone(self.architecture)
        self.global_classifier = Head(*sizes)
        for number in range(1, self.architecture.parts + 1):
            self.add_module(f"part_classifier{number}", Head(*sizes))
        self.loc_net = LocNet(self.architecture.width, self.architecture.loc_hidden)

    @property
    def heads(self) -> list[Head]:
        """The heads in the order of every output: parts from the centre outwards, then global."""
        parts = [self.get_submodule(f"part_classifier{number}") for number in range(1, self.architecture.parts + 1)]
        return [*parts, self.global_classifier]  # type: ignore[list-item]

    def forward(self, images: Tensor, blocks: Collection[int] = (), graph_from: int | None = None) -> SafeNetOutput:
        """Run the network.

        Under autocast the transformer runs in the reduced precision; everything after its final LayerNorm that
        decides something (theta, saliency, boundaries) or is compared (embeddings, logits) is float32.

        Parameters
        ----------
        images : Tensor [B, 3, S, S] of float32
            RGB, resized and normalised as in `safenet.preprocess`.
        blocks : collection of int
            Blocks whose outputs are returned too, 0 first.
        graph_from : int, optional
            Block whose output is a leaf that requires a gradient, whatever its input does: so that in grad mode, with
            weights that require none, what lies below it keeps no graph.

        Raises
        ------
        ValueError
            If the images have another size than the network's, or a block does not exist.
        """
        side = self.architecture.image_size
        if images.shape[1:] != (3, side, side):
            raise ValueError(f"images are {tuple(images.shape[1:])}; this network reads (3, {side}, {side})")
        tokens, block_tokens = forward_tokens(self.transformer, images, blocks, graph_from)
        with torch.autocast(images.device.type, enabled=False):
            return self._after_backbone(tokens.float(), block_tokens)

    def _after_backbone(self, tokens: Tensor, block_tokens: dict[int, Tensor]) -> SafeNetOutput:
        global_feature = tokens[:, 0]
        patch_map = tokens_to_map(tokens)
        theta = self.loc_net(global_feature)
        aligned_map = resample(patch_map, theta, self.architecture.sampling)
        with torch.no_grad():
            saliency = ring_saliency(aligned_map)
            boundary = find_boundaries(saliency, self.architecture.parts)
            source_cell = source_cells(theta, (patch_map.shape[2], patch_map.shape[3]))
        part_feature = POOLINGS[self.architecture.pooling](aligned_map, boundary)
        pairs = [head(feature) for head, feature in zip(self.heads, [*part_feature.unbind(2), global_feature], strict=True)]
        return SafeNetOutput(
            tokens=tokens,
            global_feature=global_feature,
            patch_map=patch_map,
            theta=theta,
            source_cell=source_cell,
            aligned_map=aligned_map,
            saliency=saliency,
            boundary=boundary,
            part_feature=part_feature,
            embedding=torch.stack([embedding for embedding, _ in pairs], dim=2),
            logit=torch.stack([logit for _, logit in pairs], dim=2),
            block_tokens=block_tokens,
        )


def descriptor(embedding: Tensor) -> Tensor:
    """Retrieval descriptor: each head's embedding divided by its norm times sqrt(heads), flattened channel-major.

    Parameters
    ----------
    embedding : Tensor [B, E, P+1]
        Of the image, or the sum with that of its horizontal flip, as upstream's test takes it.

    Returns
    -------
    Tensor [B, E * (P+1)]
        Unit length; index = channel * (P+1) + head.
    """
    norm = embedding.norm(dim=1, keepdim=True) * embedding.shape[2] ** 0.5
    return (embedding / norm).flatten(1)
