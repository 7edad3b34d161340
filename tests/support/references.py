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


class Tail:
    """The network behind one map of one sample, in float64: FAM's resampling, FPM's pooling at fixed boundaries, the part heads.

    `value` is the map as the position has it: [N, K] cells, row-major (`part`: [P, K]).
    """

    def __init__(self, model: torch.nn.Module, position: str, patch_map: torch.Tensor, theta: torch.Tensor, boundary: torch.Tensor) -> None:
        from safenet.alignment import resample
        from safenet.partition import POOLINGS

        self._heads, self._position, self._side = model.heads[:-1], position, patch_map.shape[2]
        self.patch, self.theta, self.sampling = patch_map[0].numpy(), theta[0].double().numpy(), model.architecture.sampling
        self._resample = lambda cells: resample(cells, theta, model.architecture.sampling)
        self._pool = lambda cells: POOLINGS[model.architecture.pooling](cells, boundary)
        aligned = self._resample(patch_map)
        maps = {"patch": patch_map.flatten(2), "aligned": aligned.flatten(2), "part": self._pool(aligned)}
        self.value = maps[position][0].T.contiguous()

    def __call__(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [P, E] and logits [P, C] of the parts."""
        value = cells.T[None]
        if self._position != "part":
            value = value.unflatten(2, (self._side, self._side))
            value = self._pool(self._resample(value) if self._position == "patch" else value)
        outputs = [head(feature) for head, feature in zip(self._heads, value.unbind(2), strict=True)]
        return torch.cat([embedding for embedding, _ in outputs]), torch.cat([logit for _, logit in outputs])


def class_score(number: int, weights: np.ndarray, global_logit: np.ndarray, softmax: bool = False):
    """y = sum over heads of weight * logit[number], or the probability of that sum over the classes."""

    def score(embedding: torch.Tensor, logit: torch.Tensor) -> torch.Tensor:
        mixed = torch.from_numpy(weights[:-1]) @ logit + weights[-1] * torch.from_numpy(global_logit).double()
        return (mixed.softmax(dim=0) if softmax else mixed)[number]

    return score


def cosine_score(reference: np.ndarray, weights: np.ndarray, embedding: np.ndarray, flip: np.ndarray | None, fixed_norm: bool):
    """y = sum over heads of weight * q . f / |f|; with `fixed_norm` |f| is that of the image as it is. All [P + 1, E], the global head last."""
    extra = torch.zeros(embedding.shape).double() if flip is None else torch.from_numpy(flip).double()
    whole = torch.from_numpy(embedding).double() + extra
    wanted = torch.from_numpy(reference).double()

    def score(parts: torch.Tensor, logit: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(()).double()
        for index, weight in enumerate(weights):
            if weight:
                found = parts[index] + extra[index] if index < len(parts) else whole[index]
                norm = whole[index].norm() if fixed_norm else found.norm()
                total = total + weight * (found @ wanted[index]) / norm
        return total

    return score


@torch.enable_grad()
def heat(method: str, tail: Tail, score, rivals=()) -> np.ndarray:
    """A map [N] by its definition: the gradient by autograd, every channel and cell taken out one by one; nothing factored, nothing shared."""
    cells = tail.value.clone().requires_grad_()
    y = score(*tail(cells))
    (gradient,) = torch.autograd.grad(y, cells)
    A, g, y = tail.value.numpy(), gradient.numpy(), float(y.detach())  # [N, K]
    count, channels = A.shape

    def without(chosen: tuple) -> float:
        rest = tail.value.clone()
        rest[chosen] = 0
        return float(score(*tail(rest)).detach())

    def weighted(weights) -> np.ndarray:
        return np.array([sum(weights[k] * A[n, k] for k in range(channels)) for n in range(count)])

    if method == "l2_norm":
        return np.array([np.sqrt(sum(a * a for a in row)) for row in A])
    if method == "l2_norm_source":
        return carried(np.sqrt((tail.patch**2).sum(axis=0)), tail.theta, tail.sampling).ravel()
    if method == "max":
        return np.array([max(row) for row in A])
    if method == "mean":
        return np.array([sum(row) / channels for row in A])
    if method == "sum":
        return np.array([sum(row) for row in A])
    if method in ("eigen_cam", "eigen_grad_cam"):
        matrix = A if method == "eigen_cam" else g * A
        matrix = matrix - matrix.mean(axis=0)
        left, size, _ = np.linalg.svd(matrix, full_matrices=False)
        found = left[:, 0] * size[0]
        first = next(n for n in range(count) if abs(found[n]) >= (1 - 1e-4) * max(abs(found)))
        return found if found[first] >= 0 else -found
    if method == "grad_cam":
        return weighted(g.mean(axis=0))
    if method == "hires_cam":
        return (g * A).sum(axis=1)
    if method == "layer_cam":
        return (np.clip(g, 0, None) * A).sum(axis=1)
    if method == "element_wise":
        return np.clip(g * A, 0, None).sum(axis=1)
    if method == "grad_cam_pp":  # eq. 19 with Y = exp(y): the derivatives are exp(y) g, exp(y) g^2, exp(y) g^3, and exp(y) cancels but for a factor
        total = A.sum(axis=0)
        alpha = np.zeros_like(g)
        for n in range(count):
            for k in range(channels):
                if g[n, k] != 0:
                    alpha[n, k] = g[n, k] ** 2 / (2 * g[n, k] ** 2 + total[k] * g[n, k] ** 3)
        return weighted((alpha * np.clip(g, 0, None)).sum(axis=0))
    if method == "xgrad_cam":
        return weighted([(g[:, k] * A[:, k]).sum() / A[:, k].sum() for k in range(channels)])
    if method == "ablation_cam":
        return weighted([(y - without((slice(None), k))) / y for k in range(channels)])
    if method == "token_deletion":
        return np.array([y - without((n,)) for n in range(count)])
    if method == "finer_cam":
        contrast = [torch.autograd.grad(rival(*tail(cells)), cells)[0].numpy() for rival in rivals]
        return weighted((g - np.mean(contrast, axis=0)).mean(axis=0))
    raise AssertionError(f"{method} has no twin")


def carried(values: np.ndarray, theta: np.ndarray, sampling: str) -> np.ndarray:
    """FAM's resampling of one value a cell [H, W], cell by cell: where theta points, kept inside the map; the nearest value, or four of them."""
    height, width = values.shape
    found = np.empty_like(values)
    for row in range(height):
        for column in range(width):
            x, y = theta @ [2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1, 1]
            x, y = min(max((x + 1) / 2 * (width - 1), 0), width - 1), min(max((y + 1) / 2 * (height - 1), 0), height - 1)
            if sampling == "nearest":
                found[row, column] = values[round(y), round(x)]
                continue
            left, top = min(int(x), width - 2), min(int(y), height - 2)
            shares = [[(1 - y + top) * (1 - x + left), (1 - y + top) * (x - left)], [(y - top) * (1 - x + left), (y - top) * (x - left)]]
            found[row, column] = sum(shares[i][j] * values[top + i, left + j] for i in (0, 1) for j in (0, 1))
    return found


def deletion_shares(order: np.ndarray, hires: np.ndarray) -> list[float]:
    """Score left after each of the hottest cells is gone, one by one, over the sum of the magnitudes of all; summed anew each time."""
    cells, total = list(hires.ravel()), np.abs(hires).sum()
    left, heat = set(range(len(cells))), list(order.ravel())
    found = [sum(cells) / total]
    while left:
        hottest = min(cell for cell in left if heat[cell] == max(heat[other] for other in left))
        left.remove(hottest)
        found.append(sum(cells[cell] for cell in left) / total)
    return found


def block_heat(model: torch.nn.Module, image: torch.Tensor, number: int, score) -> dict[str, np.ndarray]:
    """Heat maps [H, W] of one image at a block, in float64: the score's gradient with respect to the block's own output, by autograd.

    `score(logit [C, heads])` is a scalar; boundaries are those of the pass itself, which have no gradient.
    """
    from safenet.backbone import forward_tokens

    with torch.enable_grad():
        tokens, found = forward_tokens(model.transformer, image[None].requires_grad_(), (number,))
        found[number].retain_grad()
        score(model._after_backbone(tokens, found).logit[0]).backward()  # without the cast to float32 that a forward pass makes
    A, g = found[number].detach()[0, 1:].numpy(), found[number].grad[0, 1:].numpy()
    side = int(np.sqrt(len(A)))
    maps = {"grad_cam": A @ g.mean(axis=0), "hires_cam": (g * A).sum(axis=1), "layer_cam": (np.clip(g, 0, None) * A).sum(axis=1)}
    return {name: values.reshape(side, side) for name, values in maps.items()}
