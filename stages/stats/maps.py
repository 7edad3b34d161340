"""Figures of one heat map an image: spread, concentration, place, agreement with a mask.

Every function takes a `Heat` of n maps and returns float64 [n] (`ring_share` [n, R]), NaN where undefined. What counts heat
(entropy, top share, centre, ring shares, energy) counts what pictures draw: gradient maps ReLU'd, statistics from their coldest cell.
"""

from __future__ import annotations

import numpy as np

from stages.stats.heat import Float, Heat, positive


def low(heat: Heat) -> Float:
    """Coldest cell of the raw map."""
    return heat.blank(heat.flat.min(axis=1))


def high(heat: Heat) -> Float:
    """Hottest cell of the raw map."""
    return heat.blank(heat.flat.max(axis=1))


def variation(heat: Heat) -> Float:
    """Standard deviation over |mean| of the cells: of the raw map for statistics, of the ReLU'd one for gradient methods."""
    return heat.variation


def low_contrast(heat: Heat) -> Float:
    """Whether the coefficient of variation is below `stats.low_contrast_below`: 1 or 0."""
    return np.where(np.isnan(heat.variation), np.nan, heat.variation < heat.low_contrast_below)


def entropy(heat: Heat) -> Float:
    """Entropy of the heat, as it is drawn, as a distribution over the cells, over log N: 1 is uniform."""
    share = heat.drawn / positive(heat.total)[:, None]
    surprise = np.einsum("ij,ij->i", share, np.log(np.where(share > 0, share, 1)))
    return heat.blank(-surprise / np.log(share.shape[1]), heat.no_heat)


def top(heat: Heat) -> Float:
    """Share of the heat in the hottest cells, as many as `stats.top_share` says."""
    hottest = heat.ranking.hottest(max(1, round(heat.top_share * heat.raw.shape[1])))
    return heat.blank(np.where(hottest, heat.drawn, 0).sum(axis=1) / positive(heat.total), heat.no_heat)


def centre_y(heat: Heat) -> Float:
    """Centre of mass down the map: 0 at its upper edge, 1 at its lower edge."""
    return _centre(heat, 0)


def centre_x(heat: Heat) -> Float:
    """Centre of mass across the map: 0 at its left edge, 1 at its right edge."""
    return _centre(heat, 1)


def _centre(heat: Heat, axis: int) -> Float:
    size = heat.values.shape[1:]
    place = (np.indices(size)[axis].ravel() + 0.5) / size[axis]
    return heat.blank(heat.drawn @ place / positive(heat.total), heat.no_heat)


def ring_share(heat: Heat) -> Float:
    """Share of the heat in each of FPM's rings, the innermost first."""
    is_in = (heat.ring.ravel()[:, None] == np.arange(1, heat.ring.max() + 1)).astype(np.float64)
    return heat.blank(heat.drawn @ is_in / positive(heat.total)[:, None], heat.no_heat)


def zero(heat: Heat) -> Float:
    """Whether a gradient map has no positive heat, or a statistic is 0 everywhere: 1 or 0."""
    return heat.blank(heat.is_zero)


def pointing(heat: Heat) -> Float:
    """Whether the hottest point lies in the mask: 1 or 0; cells that tie share the point.

    Notes
    -----
    Pointing game: Zhang et al. 2016, arXiv:1608.00507. A bilinearly upsampled map peaks at a cell's centre, so the cells' centres
    decide as the pixels would. A map without heat misses.
    """
    assert heat.masks is not None
    return np.where(heat.inside[0], np.einsum("ij,ij->i", heat.hottest, heat.masks.centre == 1), np.nan)


def energy(heat: Heat) -> Float:
    """Share of the heat, as it is drawn, that lies in the mask; a map without heat has none there.

    Notes
    -----
    Energy-based pointing game: Wang et al. 2020, arXiv:1910.01279, section 4.3.
    """
    assert heat.masks is not None
    known = heat.inside[0]
    share = np.where(known[:, None], heat.masks.share, 0)
    return np.where(known, np.einsum("ij,ij->i", heat.shares, share), np.nan)


def mask_area(heat: Heat) -> Float:
    """Share of the photo under the mask."""
    assert heat.masks is not None
    return np.where(heat.inside[0], heat.masks.share.mean(axis=1), np.nan)
