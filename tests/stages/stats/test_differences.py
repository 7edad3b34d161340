"""Differences between checkpoints: what is told from the best, and how often a planted nothing is called something."""

import numpy as np
import pytest

from stages.stats.bootstrap import DRAWS, PlaceBootstrap
from stages.stats.differences import difference_bounds, not_told_from


def test_what_cannot_be_told_from_the_best():
    """Differences of 0.5, 0.1 and 0, whose draws spread by 0.01, 1 and nothing."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal(DRAWS)
    told = np.array([3.0, 2.5, 2.9, 3.0])
    draws = told[:, None] + np.stack([common, common + 0.01 * rng.standard_normal(DRAWS), common + rng.standard_normal(DRAWS), common])
    assert not_told_from(told, draws, 0, 100) == [2, 3]
    assert not_told_from(told[:1], draws[:1], 0, 100) == []


def test_many_checkpoints_are_told_from_one_that_is_far_better():
    """However many there are: no correction makes a difference of ninety points vanish."""
    bootstrap, images, rng = PlaceBootstrap.of([f"{n:03d}" for n in range(200)], ["test"] * 200), np.arange(200), np.random.default_rng(0)
    sums = bootstrap.sums((rng.random((200, 60)) < [0.95, *[0.05] * 59]).astype(float), images)
    assert not_told_from(sums.mean, bootstrap.means(sums).T, 0, 200) == []


def test_the_interval_of_a_difference_is_that_of_its_draws():
    one, other = np.random.default_rng(1).standard_normal((2, DRAWS))
    low, high = difference_bounds(one, other, 10**6)
    np.testing.assert_allclose([low, high], np.quantile(one - other, [0.025, 0.975]), atol=1e-3)
    assert np.ptp(difference_bounds(one, other, 13)) > high - low
    assert np.isnan(difference_bounds(one, other, 1)).all()


def told_apart(effect: float, places=40, photos=5, checkpoints=10, simulations=200) -> float:
    """How often the best of some checkpoints is told from any, where the first has a hit rate that is higher by `effect`."""
    rng, found = np.random.default_rng(1), 0
    bootstrap = PlaceBootstrap.of([f"{n:02d}" for n in range(places) for _ in range(photos)], ["test"] * places * photos)
    images = np.arange(places * photos)
    for _ in range(simulations):
        hard = rng.standard_normal(places).repeat(photos)  # what all checkpoints share
        scores = hard[:, None] + rng.standard_normal((places * photos, checkpoints))
        scores[:, 0] += effect
        sums = bootstrap.sums((scores > 0).astype(float), images)
        found += len(not_told_from(sums.mean, bootstrap.means(sums).T, int(sums.mean.argmax()), places)) < checkpoints - 1
    return found / simulations


@pytest.mark.parametrize(("places", "checkpoints"), [(40, 4), (40, 20), (8, 4)])
def test_a_planted_nothing_is_seldom_called_something(places, checkpoints):
    """Though the best is chosen by the data: at most 5 % of the times, but for the chance of 200 simulations (two standard errors: 3 %)."""
    assert told_apart(0.0, places, checkpoints=checkpoints) <= 0.08


def test_a_planted_effect_is_found():
    assert told_apart(0.8) >= 0.95
