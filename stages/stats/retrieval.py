"""Retrieval figures of University-1652: Recall@K and average precision from descriptors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RANKS = (1, 5, 10)
JUNK = "-1"
_QUERIES_AT_ONCE = 256
_NOT_FOUND = np.iinfo(np.int64).max  # a rank beyond every other


def descriptors(embedding: NDArray[np.floating]) -> NDArray[np.float32]:
    """Each head's embedding over its norm times sqrt(heads), flattened: unit length, inner product = mean cosine of the heads.

    Parameters
    ----------
    embedding : [n, heads, E]
        Of the images, or the sum with those of their flips.

    Returns
    -------
    float32 [n, heads * E]
    """
    norm = np.linalg.norm(embedding, axis=2, keepdims=True) * embedding.shape[1] ** 0.5
    return (embedding / np.where(norm > 0, norm, 1)).reshape(len(embedding), embedding.shape[1] * embedding.shape[2]).astype(np.float32)


def retrieval_metrics(
    query: NDArray[np.float32], query_place: Sequence[str], gallery: NDArray[np.float32], gallery_place: Sequence[str], misses: int = 0
) -> dict[str, float]:
    """Rank the gallery by inner product for every query.

    Parameters
    ----------
    query : float32 [Q, F]
    query_place : Q names
    gallery : float32 [G, F]
    gallery_place : G names
    misses : int
        Further queries that find nothing: those whose descriptor is not finite, which can be ranked against none.

    Returns
    -------
    dict
        recall_1, recall_5, recall_10, recall_top1pct and average_precision, each a share of 1. Queries without a
        match count as 0; gallery images of place "-1" are junk and take no rank.

    Notes
    -----
    As the University-1652 evaluation: AP is the trapezoid under the precision-recall curve, "top 1 %" looks at the
    first round(0.01 G) + 1 ranks. Equal scores keep the gallery's order.
    """
    names = np.asarray(gallery_place)
    size, kept = len(names), names != JUNK
    gallery, gallery_place = gallery[kept], names[kept].tolist()
    _, number = np.unique(np.concatenate([np.asarray(query_place), np.asarray(gallery_place)]), return_inverse=True)
    wanted, offered = number[: len(query)], number[len(query) :]
    first: list[NDArray[np.integer]] = [np.full(misses, _NOT_FOUND)]
    precision: list[float] = [0.0] * misses
    for start in range(0, len(query), _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        order = np.argsort(-(query[part] @ gallery.T), axis=1, kind="stable")
        hits = offered[order] == wanted[part, None]
        found = hits.any(axis=1)
        first.append(np.where(found, hits.argmax(axis=1), _NOT_FOUND) if len(gallery) else np.full(len(hits), _NOT_FOUND))
        precision.extend(_average_precision(np.flatnonzero(row)) for row in hits)
    rank = np.concatenate(first)
    figures = {f"recall_{k}": float((rank < k).mean()) for k in RANKS}
    figures["recall_top1pct"] = float((rank <= round(0.01 * size)).mean())
    figures["average_precision"] = float(np.mean(precision))
    return figures


def _average_precision(ranks: NDArray[np.integer]) -> float:
    """Trapezoid: mean over the hits i of (precision just before it + precision at it) / 2; ranks count from 0."""
    if not len(ranks):
        return 0.0
    number = np.arange(len(ranks))
    at = (number + 1) / (ranks + 1)
    before = np.where(ranks > 0, number / np.maximum(ranks, 1), 1.0)
    return float(((at + before) / 2).mean())
