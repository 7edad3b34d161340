"""Figures of one heat map an image that say how far it can be trusted; each takes a `Heat` of n maps and returns float64 [n]."""

from __future__ import annotations

from stages.cam.facts import STATUS
from stages.stats.faithfulness import completeness_residual, deletion_area, score_in_magnitudes
from stages.stats.heat import Float, Heat

STATUS_NAMES = [row.name for row in STATUS.values()]


def status(heat: Heat) -> Float:
    """Code of the map's status, as STATUS in `stages.cam.facts` names it."""
    return heat.fact("status").astype(float)


def clipped(heat: Heat) -> Float:
    """Share of the method's denominators that turn the map over or blow it up; NaN where it has none."""
    return heat.fact("clipped").astype(float)


def residual(heat: Heat) -> Float:
    """How far the cells of an exact map are from adding up to the score less its constant, over the sum of their magnitudes."""
    return completeness_residual(heat.values, heat.fact("score"), heat.fact("constant"))


def deletion(heat: Heat) -> Float:
    """Area under the curve of the score that is left while cells go in the map's order, over the sum of the magnitudes of their shares of it."""
    assert heat.exact is not None
    return heat.blank(deletion_area(heat.ranking.place, heat.exact))


def insertion(heat: Heat) -> Float:
    """Area under the curve of the score while cells come in the same order, over the same sum."""
    assert heat.exact is not None
    return score_in_magnitudes(heat.exact) - deletion(heat)


def deletion_random(heat: Heat) -> Float:
    """What a random order has in `deletion`, and in `insertion`, on average."""
    assert heat.exact is not None
    return heat.blank(score_in_magnitudes(heat.exact) / 2)
