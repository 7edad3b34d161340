"""How far heat maps can be trusted: completeness, deletion in token space, agreement between methods, dependence on the head.

Deletion and insertion here are of tokens, with ring boundaries held fixed. For a score that is affine in the map they need no network: what is left
after some cells are set to zero is the score less the sum of their HiResCAM cells, whatever map gave the order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.finite import whole_or_nothing
from stages.stats.deletion import area_under
from stages.stats.ranks import ranks

Float = NDArray[np.float64]


def completeness_residual(hires: NDArray[np.floating], score: NDArray[np.floating], constant: NDArray[np.floating]) -> Float:
    """How far the cells of HiResCAM are from adding up to the score.

    Parameters
    ----------
    hires : [n, h, w]
        Raw and signed.
    score, constant : [n]
        The score as the network gave it, and at a map of zeros.

    Returns
    -------
    float64 [n]
        |sum of the cells - (score - constant)| over the sum of their magnitudes: a score near its constant has cells that cancel, and does not
        make the figure explode. NaN where undefined; 0 for a map of zeros that explains nothing.
    """
    cells = whole_or_nothing(hires).reshape(len(hires), -1).astype(np.float64)
    size = np.abs(cells).sum(axis=1)
    off = np.abs(cells.sum(axis=1) - (score.astype(np.float64) - constant))
    return np.where(size > 0, off / np.where(size > 0, size, 1), np.where(off == 0, 0.0, np.where(np.isnan(off), np.nan, np.inf)))


def deletion_shares(order: NDArray[np.floating], hires: NDArray[np.floating]) -> Float:
    """Share of the score that is left after the j hottest cells of `order` are set to zero.

    Parameters
    ----------
    order : [n, h, w]
        Maps whose hottest cells go first; of equal cells the first in row-major order.
    hires : [n, h, w]
        HiResCAM of an affine score at the same position: its cells are their exact shares of the score.

    Returns
    -------
    float64 [n, N + 1]
        From 1 (all cells there) to 0 (only the constant left). NaN where a map is undefined, or the cells add up to nothing positive: there is no
        score that deletion could take away. Insertion in the same order is 1 less this, exactly.

    Notes
    -----
    Petsiuk et al. 2018 (RISE), arXiv:1806.07421, section 4.2, delete pixels and look at a probability that the network gives anew; here tokens
    are deleted, behind the backbone, and the score is the logit or the cosine at a fixed norm.
    """
    cells = whole_or_nothing(hires).reshape(len(hires), -1).astype(np.float64)
    heat = order.reshape(len(order), -1)
    total = cells.sum(axis=1)
    usable = np.isfinite(heat).all(axis=1) & np.isfinite(cells).all(axis=1) & (total > 0)
    first = np.argsort(-np.where(np.isfinite(heat), heat, 0), axis=1, kind="stable")
    gone = np.take_along_axis(np.where(usable[:, None], cells, np.nan), first, axis=1).cumsum(axis=1)
    left = 1 - gone / np.where(usable, total, 1)[:, None]
    return np.concatenate([np.where(usable, 1.0, np.nan)[:, None], left], axis=1)


def deletion_area(order: NDArray[np.floating], hires: NDArray[np.floating]) -> Float:
    """Area under `deletion_shares` over the share of the cells, by the trapezoid rule, [n]: the smaller the better. Insertion's is 1 less this."""
    return area_under(deletion_shares(order, hires))


def rank_agreement(maps: NDArray[np.floating]) -> Float:
    """Spearman's rank correlation between all pairs of maps of a sample.

    Parameters
    ----------
    maps : [q, n, h, w]
        Of q methods; tied cells take their mean rank.

    Returns
    -------
    float64 [n, q, q]
        NaN where a map is undefined or the same everywhere.
    """
    count, samples = maps.shape[:2]
    cells = maps.reshape(count * samples, -1).astype(np.float64)
    unit = _unit_ranks(cells).reshape(count, samples, -1).swapaxes(0, 1)
    return np.asarray(unit @ unit.swapaxes(1, 2))


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> Float:
    """Spearman's rank correlation of maps [n, h, w] with maps of the same shape, [n]; NaN as in `rank_agreement`."""
    pair = [_unit_ranks(maps.reshape(len(maps), -1).astype(np.float64)) for maps in (one, other)]
    return np.asarray((pair[0] * pair[1]).sum(axis=1))


def _unit_ranks(cells: Float) -> Float:
    """Ranks of each row less their mean, of length 1; NaN for rows that have none."""
    defined = np.isfinite(cells).all(axis=1, keepdims=True)
    centred = ranks(np.where(defined, cells, 0.0))
    centred -= centred.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    usable = defined & (length > 0)
    return np.where(usable, centred / np.where(length > 0, length, 1), np.nan)
