"""Retrieval as University-1652 measures it, query by query: the rank of the first true match, average precision, margin, and what ranks best.

Queries are compared with the gallery block by block, and ranks are counted, so that no more is in memory than the scores of a few queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Read = Callable[[NDArray[np.intp]], NDArray[np.float32]]
RANKS = (1, 5, 10)
RETRIEVAL_FIGURES = (*(f"recall_{k}" for k in RANKS), "recall_top1pct", "average_precision")
JUNK = "-1"
QUERY_FIGURES: Mapping[str, str] = MappingProxyType(  # the columns of `search`
    {
        "rank": "rank of the first true match, 1 is the best; none where the gallery has none",
        "average_precision": "area under the precision-recall curve by the trapezoid rule, as University-1652 measures it",
        "margin": "score of the best true match less that of the best other image",
        "best": "number of the image that ranks first",
    }
)
_SCORES_AT_ONCE = 2**23  # of some queries with the whole gallery: 32 MB
_KEPT_IMAGES = 4096  # a gallery of no more than this is read once: 40 MB
_AT_ONCE = 1024  # images whose descriptors are read at once


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


def search(read: Read, places: NDArray[np.integer], asked: NDArray[np.intp], offered: NDArray[np.intp]) -> NDArray[np.float64]:
    """Rank the gallery by inner product for every query.

    Parameters
    ----------
    read : callable
        Numbers of images -> their descriptors, float32 [n, F].
    places : int [sample]
        Number of each image's place.
    asked : int [Q]
        The queries, as numbers of images.
    offered : int [G]
        The gallery.

    Returns
    -------
    float64 [Q, 4]
        The columns of QUERY_FIGURES. `rank` of the first true match, 1 is the best; NaN where there is none. `average_precision`, 0 where there is
        none. `margin`: score of the best true match less that of the best other one; NaN where either is missing. `best`: number of the image that
        ranks first.

    Notes
    -----
    As the University-1652 evaluation: AP is the trapezoid under the precision-recall curve. Equal scores keep the gallery's order.
    """
    found = np.full((len(asked), len(QUERY_FIGURES)), np.nan)
    found[:, 1] = 0
    if not len(offered):
        return found
    parts = [offered[first : first + _AT_ONCE] for first in range(0, len(offered), _AT_ONCE)]
    kept = [read(part) for part in parts] if len(offered) <= _KEPT_IMAGES else None
    step = max(1, min(_AT_ONCE, _SCORES_AT_ONCE // len(offered)))
    for start in range(0, len(asked), step):
        queries = asked[start : start + step]
        vectors, gallery = read(queries), map(read, parts) if kept is None else kept
        scores = np.concatenate([vectors @ some.T for some in gallery], axis=1)
        is_true = places[queries][:, None] == places[offered]
        found[start : start + step] = [_figures(*row, offered) for row in zip(scores, is_true, strict=True)]
    return found


def summary(figures: NDArray[np.floating], size: int, misses: int = 0) -> dict[str, float]:
    """Reduce the figures of queries to recall_1, recall_5, recall_10, recall_top1pct and average_precision, each a share of 1.

    Parameters
    ----------
    figures : float [Q, 4]
        Of `search`.
    size : int
        Images of the gallery, junk included: "top 1 %" looks at the first round(0.01 size) + 1 ranks.
    misses : int
        Further queries that find nothing: those whose descriptor is not finite, which can be ranked against none.
    """
    total = outcomes(figures, size).sum(axis=0) / (len(figures) + misses)
    return dict(zip(RETRIEVAL_FIGURES, total.tolist(), strict=True))


def outcomes(figures: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    """What each query adds to the `summary`, float64 [Q, 5]: the columns of RETRIEVAL_FIGURES. A query without figures finds nothing."""
    rank = np.where(np.isnan(figures[:, :1]), np.inf, figures[:, :1])
    found = rank <= np.array([*RANKS, round(0.01 * size) + 1])
    return np.concatenate([found, np.nan_to_num(figures[:, 1:2])], axis=1, dtype=np.float64)


def retrieval_metrics(
    query: NDArray[np.float32], query_place: Sequence[str], gallery: NDArray[np.float32], gallery_place: Sequence[str], misses: int = 0
) -> dict[str, float]:
    """Return the `summary` of some queries [Q, F] in a gallery [G, F], all in memory; gallery images of place "-1" are junk and take no rank."""
    _, number = np.unique(np.concatenate([np.asarray(query_place), np.asarray(gallery_place)]), return_inverse=True)
    both = np.concatenate([query, gallery])
    offered = len(query) + np.flatnonzero(np.asarray(gallery_place) != JUNK)
    return summary(search(lambda rows: both[rows], number, np.arange(len(query)), offered), len(gallery), misses)


def _figures(scores: NDArray[np.float32], is_true: NDArray[np.bool_], offered: NDArray[np.intp]) -> tuple[float, float, float, float]:
    best = int(scores.argmax())
    true = np.flatnonzero(is_true)
    if not len(true):
        return np.nan, 0.0, np.nan, float(offered[best])
    ranks = np.sort(np.fromiter(_ranks(scores, true), np.int64, len(true)))
    other = np.where(is_true, -np.inf, scores).max()
    margin = float(scores[true].max()) - float(other) if np.isfinite(other) else np.nan
    return float(ranks[0] + 1), _average_precision(ranks), margin, float(offered[best])


def _ranks(scores: NDArray[np.float32], chosen: NDArray[np.intp]) -> Iterator[int]:
    """Ranks of some images, from 0: how many score higher, or the same and come before."""
    for index in chosen:
        yield int(np.count_nonzero(scores > scores[index]) + np.count_nonzero(scores[:index] == scores[index]))


def _average_precision(ranks: NDArray[np.integer]) -> float:
    """Trapezoid: mean over the hits i of (precision just before it + precision at it) / 2; ranks count from 0."""
    number = np.arange(len(ranks))
    at = (number + 1) / (ranks + 1)
    before = np.where(ranks > 0, number / np.maximum(ranks, 1), 1.0)
    return float(((at + before) / 2).mean())
