"""Figures of trust: against slow twins, and their properties."""

from itertools import permutations

import numpy as np
import pytest
import references
from figures_in_memory import heat_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from stages.stats.agreement import agreement, pairs_of
from stages.stats.faithfulness import completeness_residual, deletion_area, rank_correlation
from stages.stats.ranks import ranking
from stages.stats.trust import deletion, deletion_random, insertion

RNG = np.random.default_rng(0)


def test_residual_is_what_the_cells_miss_of_the_score():
    hires = RNG.standard_normal((4, 3, 3))
    score, constant = hires.sum(axis=(1, 2)) + 5, np.full(4, 5.0)
    np.testing.assert_allclose(completeness_residual(hires, score, constant), 0, atol=1e-15)
    np.testing.assert_allclose(completeness_residual(hires, score + 0.5, constant), 0.5 / np.abs(hires).sum(axis=(1, 2)))


def test_residual_of_what_is_not_there():
    found = completeness_residual(
        np.stack([np.zeros((2, 2)), np.full((2, 2), np.nan), np.zeros((2, 2))]), np.array([1.0, 2.0, 3.0]), np.array([1.0, 1, 1])
    )
    np.testing.assert_array_equal(found, [0, np.nan, np.inf])


def area_of(order, hires):
    return deletion_area(ranking(order.reshape(len(order), -1)).place, hires)


@pytest.mark.parametrize("seed", range(4))
def test_deletion_is_the_score_of_what_is_left(seed):
    rng = np.random.default_rng(seed)
    order, hires = rng.integers(0, 4, (3, 4, 4)).astype(float), rng.standard_normal((3, 4, 4)) + 0.5
    expected = [np.trapezoid(references.deletion_shares(*pair), dx=1 / 16) for pair in zip(order, hires, strict=True)]
    np.testing.assert_allclose(area_of(order, hires), expected, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 100))
def test_the_order_of_hires_cam_takes_away_the_most(seed, factor):
    """No order does better; and only the order counts, not the map's scale."""
    rng = np.random.default_rng(seed)
    hires = rng.standard_normal((1, 4, 4)) + 1
    other = rng.standard_normal((1, 4, 4))
    best = area_of(hires, hires)
    assert np.isnan(best) or best <= area_of(other, hires) + 1e-12
    np.testing.assert_array_equal(area_of(other, hires), area_of((factor * other).astype(np.float64) * 2, hires))
    np.testing.assert_allclose(area_of(other, hires), area_of(other, hires * factor), atol=1e-9)


def test_a_score_near_zero_has_a_curve_like_any_other():
    """Shares of a score of 0 and of a negative one; none where there is no share at all."""
    cancelling, negative = np.array([[1.0, -1], [1, -1]]), -np.ones((2, 2))
    hires = np.stack([cancelling, negative, np.ones((2, 2)), np.zeros((2, 2)), np.full((2, 2), np.nan)])
    np.testing.assert_allclose(area_of(hires, hires), [-0.25, -0.5, 0.5, np.nan, np.nan])
    heat = heat_of(hires[:3], exact=hires[:3])
    np.testing.assert_allclose(insertion(heat), [0.25, -0.5, 0.5])
    np.testing.assert_allclose(deletion_random(heat), [0, -0.5, 0.5])
    undefined = heat_of(np.full((1, 2, 2), np.nan), exact=np.ones((1, 2, 2)))
    assert np.isnan([deletion(undefined), insertion(undefined), deletion_random(undefined)]).all(), "a map that is undefined has no order"


def test_the_random_order_is_the_mean_of_all_orders():
    """Of four cells there are 24; for insertion it is the same."""
    hires = np.array([[[0.7, -0.2], [0.1, 0.5]]])
    orders = np.array([np.reshape(order, (2, 2)) for order in permutations(range(4))], float)
    heat = heat_of(orders, exact=hires.repeat(24, axis=0))
    for figure in (deletion, insertion):
        assert figure(heat).mean() == pytest.approx(deletion_random(heat)[0])


def test_agreement_is_spearmans():
    maps = RNG.integers(0, 5, (3, 4, 3, 3)).astype(float)  # many ties
    maps[1, 2] = 7.0
    maps[2, 3, 0, 0] = np.nan
    one, other = pairs_of(3)
    found = np.empty((4, 3, 3))
    ranked = [ranking(np.where(np.isnan(heat).any(axis=(1, 2), keepdims=True), 0, heat).reshape(4, -1)) for heat in maps]
    found[:, one, other] = found[:, other, one] = agreement(ranked)
    for sample in range(4):
        for one in range(3):
            for other in range(3):
                pair = maps[one, sample].ravel(), maps[other, sample].ravel()
                if any(np.isnan(values).any() or np.ptp(values) == 0 for values in pair):
                    assert np.isnan(found[sample, one, other])
                else:
                    assert found[sample, one, other] == pytest.approx(spearmanr(*pair).statistic, abs=1e-12)
    np.testing.assert_allclose(rank_correlation(maps[0], maps[1]), found[:, 0, 1], atol=1e-12)
