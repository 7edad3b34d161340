"""Figures of one heat map an image that say how far it can be trusted; each takes a `Heat` of n maps and returns float64 [n]."""

from __future__ import annotations

from stages.cam.facts import STATUS
from stages.stats.faithfulness import completeness_residual, deletion_area
from stages.stats.heat import Float, Heat

STATUS_NAMES = [row.name for row in STATUS.values()]


def status(heat: Heat) -> Float:
    """Code of the map's status, as STATUS in `stages.cam.facts` names it."""
    return heat.fact("status").astype(float)


def clipped(heat: Heat) -> Float:
    """Share of the method's denominators that were not positive; NaN where it has none."""
    return heat.fact("clipped").astype(float)


def residual(heat: Heat) -> Float:
    """How far the cells of an exact map are from adding up to the score less its constant, over the sum of their magnitudes."""
    return completeness_residual(heat.values, heat.fact("score"), heat.fact("constant"))


def deletion(heat: Heat) -> Float:
    """Area under the curve of the score that is left while cells go in the map's order, in token space: see `deletion_area`."""
    assert heat.exact is not None
    return heat.blank(deletion_area(heat.ranking.place, heat.exact))


def insertion(heat: Heat) -> Float:
    """Area under the curve of the score while cells come in the same order: 1 less `deletion`."""
    return 1 - deletion(heat)
