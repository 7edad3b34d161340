"""Figures of single heat maps: spread, concentration, place, agreement with a mask, drift between two checkpoints.

Maps come raw and signed, NaN where undefined. What counts positive evidence (entropy, top share, centre, ring shares,
energy) takes the ReLU'd map, as it is drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.finite import finite_rows
from stages.stats.ranks import ranks

Float = NDArray[np.float64]


def map_figures(maps: NDArray[np.floating], kind: str, ring: NDArray[np.integer], top_share: float) -> dict[str, Float]:
    """Figures of each map.

    Parameters
    ----------
    maps : [n, H, W]
    kind : {"statistic", "gradient"}
        The coefficient of variation is that of the raw map for statistics, of the ReLU'd one for gradient methods.
    ring : int [H, W]
        Ring of each cell, 0 outside of all rings.
    top_share : float
        Share of the cells that `top` looks at.

    Returns
    -------
    dict
        float64 [n] each, NaN where undefined: `low`, `high` (raw range), `variation` (standard deviation over |mean|
        of the cells), `entropy` (of the heat as a distribution over the cells, over log N: 1 is uniform), `top` (share
        of the heat in the hottest cells), `centre_y`, `centre_x` (centre of mass, 0 ... 1 over the map), `zero` (1
        where a gradient map has no positive heat, or a statistic is 0 everywhere); and `ring_share` float64 [n, R].
    """
    count, height, width = maps.shape
    defined = finite_rows(maps)
    raw = np.where(defined[:, None], maps.reshape(count, -1), 0.0).astype(np.float64)
    heat = np.clip(raw, 0, None)
    share = heat / _positive(heat.sum(axis=1, keepdims=True))
    spread = raw if kind == "statistic" else heat
    y, x = ((np.indices((height, width)).reshape(2, -1) + 0.5) / [[height], [width]])[:]
    cells = max(1, round(top_share * raw.shape[1]))
    figures = {
        "low": raw.min(axis=1),
        "high": raw.max(axis=1),
        "variation": spread.std(axis=1) / _positive(np.abs(spread.mean(axis=1))),
        "entropy": -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1) / np.log(raw.shape[1]),
        "top": np.sort(share, axis=1)[:, -cells:].sum(axis=1),
        "centre_y": share @ y,
        "centre_x": share @ x,
        "ring_share": np.stack([share[:, ring.ravel() == r].sum(axis=1) for r in range(1, ring.max() + 1)], axis=1),
    }
    no_heat = ~(heat > 0).any(axis=1)
    zero = no_heat if kind == "gradient" else ~raw.any(axis=1)
    figures["variation"][zero] = np.nan
    for name in ("entropy", "top", "centre_y", "centre_x", "ring_share"):
        figures[name][no_heat] = np.nan  # a map without positive heat has no shares
    figures["zero"] = zero.astype(np.float64)
    return {name: np.where(defined if value.ndim == 1 else defined[:, None], value, np.nan) for name, value in figures.items()}


def mask_figures(maps: NDArray[np.floating], mask_share: NDArray[np.floating], mask_centre: NDArray[np.integer]) -> dict[str, Float]:
    """Agreement of each map with the target's mask.

    Parameters
    ----------
    maps : [n, H, W]
        In the photo's frame, NaN where the network read nothing.
    mask_share : [n, H, W]
        Share of each cell under the mask, NaN without a mask.
    mask_centre : int [n, H, W]
        1 where a cell's centre lies in the mask, 0 where not, -1 without a mask.

    Returns
    -------
    dict
        float64 [n] each, NaN where undefined: `pointing` (1 where the hottest point lies in the mask; cells that tie
        share the point), `energy` (share of the heat in the mask), `mask_area` (share of the photo under the mask:
        what a map that knows nothing scores in both).

    Notes
    -----
    Pointing game: Zhang et al. 2016, arXiv:1608.00507. A bilinearly upsampled map peaks at a cell's centre, so the
    cells' centres decide as the pixels would. Energy: Wang et al. 2020, arXiv:1910.01279, section 4.3. A map without
    positive heat misses and has no energy in the mask.
    """
    raw = maps.reshape(len(maps), -1).astype(np.float64)
    share, centre = mask_share.reshape(raw.shape).astype(np.float64), mask_centre.reshape(raw.shape)
    defined = np.asarray(~np.isnan(raw).all(axis=1) & ~np.isinf(raw).any(axis=1) & np.isfinite(share).all(axis=1))
    heat = np.where(defined[:, None] & np.isfinite(raw), np.clip(raw, 0, None), 0)  # cells that the network read nothing from have no heat
    hottest = (heat == heat.max(axis=1, keepdims=True)) & (heat > 0)
    figures = {
        "pointing": (hottest & (centre == 1)).sum(axis=1) / _positive(hottest.sum(axis=1)),
        "energy": (heat * share).sum(axis=1) / _positive(heat.sum(axis=1)),
        "mask_area": share.mean(axis=1),
    }
    return {name: np.where(defined, value, np.nan) for name, value in figures.items()}


def drift_figures(before: NDArray[np.floating], after: NDArray[np.floating], overlap_share: float) -> dict[str, Float]:
    """How far each map has moved between two checkpoints.

    Parameters
    ----------
    before, after : [n, H, W]
        Raw maps of the same samples.
    overlap_share : float
        Share of the cells that `overlap` looks at.

    Returns
    -------
    dict
        float64 [n] each, NaN where either map is undefined: `cosine`, `spearman` (rank correlation, mean ranks for
        ties; NaN for a constant map) and `overlap` (share of the hottest cells of one that are the hottest of the
        other).
    """
    pair = [values.reshape(len(values), -1).astype(np.float64) for values in (before, after)]
    defined = np.asarray(np.isfinite(pair[0]).all(axis=1) & np.isfinite(pair[1]).all(axis=1))
    filled = [np.where(defined[:, None], values, 0.0) for values in pair]
    cells = max(1, round(overlap_share * filled[0].shape[1]))
    hottest = [np.argsort(-values, axis=1, kind="stable")[:, :cells] for values in filled]
    common = np.array([len(np.intersect1d(one, other)) for one, other in zip(*hottest, strict=True)])
    figures = {
        "cosine": _cosine(*filled),
        "spearman": _cosine(*(rank - rank.mean(axis=1, keepdims=True) for rank in map(ranks, filled))),
        "overlap": common / cells,
    }
    return {name: np.where(defined, value, np.nan) for name, value in figures.items()}


def _cosine(one: Float, other: Float) -> Float:
    length = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.where(length > 0, (one * other).sum(axis=1) / _positive(length), np.nan)


def _positive(value: Float) -> Float:
    """Divide by this: 1 in place of 0, where the dividend is 0 as well."""
    return np.where(value > 0, value, 1.0)
