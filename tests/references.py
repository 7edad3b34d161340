"""Slow twins: each formula written once more, straight from its definition, one sample and one cell at a time."""

from __future__ import annotations

import numpy as np
import torch


def recursive_boundaries(saliency: np.ndarray, parts: int) -> list[int]:
    """FPM's recursion as the specification words it, on one saliency vector (float32 arithmetic)."""

    def cut(low: int, high: int, level: int) -> list[int]:
        if level == 0:
            return []
        distance = [abs(abs(saliency[t] - saliency[low]) - abs(saliency[t] - saliency[high])) for t in range(low, high + 1)]
        b = low + int(np.argmin(distance))
        b = max(b, low + 2 ** (level - 1))
        b = min(b, high - 2 ** (level - 1) + 1)
        return [*cut(low, b - 1, level - 1), b, *cut(b, high, level - 1)]

    return [*cut(0, len(saliency) - 1, int(np.log2(parts))), len(saliency)]


def square(values: np.ndarray, half_width: int) -> np.ndarray:
    """The centred square of a map [..., H, W], of side 2 * half_width."""
    centre = values.shape[-1] // 2
    return values[..., centre - half_width : centre + half_width, centre - half_width : centre + half_width]


def saliency(features: np.ndarray) -> np.ndarray:
    """S_r of one map [D, H, W]: the square less its inner square, over the square's area."""
    strongest = features.max(axis=0)
    rings = features.shape[-1] // 2
    sums = [0.0, *(float(square(strongest, r).sum()) for r in range(1, rings + 1))]
    return np.array([(sums[r] - sums[r - 1]) / (4 * r * r) for r in range(1, rings + 1)])


def pooled_parts(features: np.ndarray, boundary: list[int]) -> np.ndarray:
    """z_p of one map [D, H, W] -> [D, P]: zero the inner square, average over the whole square, zeros included."""
    parts, inner = [], 0
    for outer in boundary:
        block = square(features, outer).copy()
        if inner:
            square(block, inner)[...] = 0
        parts.append(block.mean(axis=(1, 2)))
        inner = outer
    return np.stack(parts, axis=1)


def gradient_maps(
    model: torch.nn.Module, patch_map: torch.Tensor, theta: torch.Tensor, boundary: torch.Tensor, score
) -> dict[str, dict[str, np.ndarray]]:
    """Grad-CAM and HiResCAM by autograd through FAM's resampling, FPM's pooling and the heads, at every position.

    `score(embedding [P, E], logit [P, C])` is the scalar whose gradient is taken; one sample, parts only.
    Returns position -> method -> raw map [H, W] (for `part`: a value a part).
    """
    from safenet.alignment import resample
    from safenet.partition import pool_rings

    patch = patch_map.clone().requires_grad_()
    aligned = resample(patch, theta, model.architecture.sampling)
    aligned.retain_grad()
    part = pool_rings(aligned, boundary)
    part.retain_grad()
    outputs = [head(feature) for head, feature in zip(model.heads[:-1], part.unbind(2), strict=True)]
    score(torch.cat([embedding for embedding, _ in outputs]), torch.cat([logit for _, logit in outputs])).backward()
    found = {}
    for name, tensor in (("patch", patch), ("aligned", aligned), ("part", part)):
        value, gradient = tensor.detach().flatten(2)[0], tensor.grad.flatten(2)[0]
        maps = {"grad_cam": (gradient.mean(dim=1, keepdim=True) * value).sum(dim=0), "hires_cam": (gradient * value).sum(dim=0)}
        found[name] = {method: heat.numpy() for method, heat in maps.items()}
    return found
