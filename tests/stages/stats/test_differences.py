"""Differences between checkpoints: p-values, Holm's correction, and how often a planted nothing is called something."""

import numpy as np
import pytest

from stages.stats.bootstrap import PlaceBootstrap
from stages.stats.differences import holm, not_told_from, p_values


def test_a_p_value_is_twice_the_smaller_side():
    draws = np.array([-1.0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert p_values(draws) == pytest.approx(2 * (1 + 1) / 10)
    assert p_values(-draws) == pytest.approx(0.4)
    assert p_values(np.zeros(9)) == 1
    assert p_values(np.ones((3, 999)))[0] == pytest.approx(0.002), "never 0"
    assert np.isnan(p_values(np.array([1.0, np.nan])))


def test_holm_steps_down():
    """The example of Holm's paper in other numbers: 0.01 x 4, 0.02 x 3, 0.03 x 2 (at least the one before), 0.5 x 1."""
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.5, 0.02])), [0.06, 0.04, 0.5, 0.06])
    np.testing.assert_allclose(holm(np.array([0.04, np.nan, 0.01])), [0.04, np.nan, 0.02])
    assert holm(np.array([0.9, 0.8])).max() == 1 and len(holm(np.empty(0))) == 0


def test_what_cannot_be_told_from_the_best():
    rng = np.random.default_rng(0)
    common = rng.standard_normal(2000)
    draws = np.stack([common, common + 0.01 * rng.standard_normal(2000) - 0.5, common + rng.standard_normal(2000) - 0.1, np.full(2000, np.nan)])
    assert not_told_from(draws, 0, 0.05) == [2]
    assert not_told_from(draws[:1], 0, 0.05) == []


def told_apart(effect: float, places=40, photos=5, checkpoints=4, simulations=200) -> float:
    """How often any of some checkpoints is told from the first, whose hit rate is higher by `effect`."""
    rng, found = np.random.default_rng(1), 0
    bootstrap, images = (
        PlaceBootstrap.of([f"{n:02d}" for n in range(places) for _ in range(photos)], ["test"] * places * photos),
        np.arange(places * photos),
    )
    for _ in range(simulations):
        hard = rng.standard_normal(places).repeat(photos)  # what all checkpoints share
        scores = hard[:, None] + rng.standard_normal((places * photos, checkpoints))
        scores[:, 0] += effect
        draws = bootstrap.means(bootstrap.sums((scores > 0).astype(float), images)).T
        found += len(not_told_from(draws, 0, 0.05)) < checkpoints - 1
    return found / simulations


def test_a_planted_nothing_is_seldom_called_something_and_a_planted_effect_is_found():
    """The family's error is 5 % at most, but for the chance of 200 simulations (two standard errors: 3 %)."""
    assert told_apart(0.0) <= 0.08
    assert told_apart(0.8) >= 0.95
