"""Figures of trust: against slow twins, and their properties."""

import numpy as np
import pytest
import references
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from stages.stats.faithfulness import completeness_residual, deletion_area, deletion_shares, rank_agreement, rank_correlation

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


@pytest.mark.parametrize("seed", range(4))
def test_deletion_is_the_score_of_what_is_left(seed):
    rng = np.random.default_rng(seed)
    order, hires = rng.integers(0, 4, (3, 4, 4)).astype(float), rng.standard_normal((3, 4, 4)) + 0.5
    found = deletion_shares(order, hires)
    for sample in range(3):
        expected = references.deletion_shares(order[sample], hires[sample])
        np.testing.assert_allclose(found[sample], expected, atol=1e-12)
    np.testing.assert_allclose(deletion_area(order, hires), [np.trapezoid(row, dx=1 / 16) for row in found], atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 100))
def test_the_order_of_hires_cam_takes_away_the_most(seed, factor):
    """No order does better; and only the order counts, not the map's scale."""
    rng = np.random.default_rng(seed)
    hires = rng.standard_normal((1, 4, 4)) + 1
    other = rng.standard_normal((1, 4, 4))
    best = deletion_area(hires, hires)
    assert np.isnan(best) or best <= deletion_area(other, hires) + 1e-12
    np.testing.assert_array_equal(deletion_shares(other, hires), deletion_shares((factor * other).astype(np.float64) * 2, hires))
    np.testing.assert_allclose(deletion_shares(other, hires), deletion_shares(other, hires * factor), atol=1e-9)


def test_a_score_that_is_not_positive_has_no_curve():
    hires = np.stack([-np.ones((2, 2)), np.ones((2, 2)), np.full((2, 2), np.nan)])
    found = deletion_area(np.ones((3, 2, 2)), hires)
    np.testing.assert_allclose(found, [np.nan, 0.5, np.nan])
    assert np.isnan(deletion_area(np.full((1, 2, 2), np.nan), np.ones((1, 2, 2)))[0])


def test_agreement_is_spearmans():
    maps = RNG.integers(0, 5, (3, 4, 3, 3)).astype(float)  # many ties
    maps[1, 2] = 7.0
    maps[2, 3, 0, 0] = np.nan
    found = rank_agreement(maps)
    for sample in range(4):
        for one in range(3):
            for other in range(3):
                pair = maps[one, sample].ravel(), maps[other, sample].ravel()
                if any(np.isnan(values).any() or np.ptp(values) == 0 for values in pair):
                    assert np.isnan(found[sample, one, other])
                else:
                    assert found[sample, one, other] == pytest.approx(spearmanr(*pair).statistic, abs=1e-12)
    np.testing.assert_allclose(rank_correlation(maps[0], maps[1]), found[:, 0, 1], atol=1e-12)
