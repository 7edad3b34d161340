"""Figures of single maps against definitions written out cell by cell."""

import math

import numpy as np
import pytest
from figures_in_memory import drift_figures, map_figures, mask_figures
from scipy.stats import spearmanr

from safenet.rings import ring_numbers

RING = ring_numbers((4, 4))
MAPS = np.random.default_rng(0).standard_normal((6, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("kind", ["gradient", "statistic"])
def test_figures_of_a_map(kind):
    """Of what is drawn: gradient maps ReLU'd, statistics from their coldest cell."""
    found = map_figures(MAPS, kind, RING, 0.25)
    for index, heat in enumerate(MAPS.astype(np.float64)):
        drawn = np.maximum(heat, 0) if kind == "gradient" else heat - heat.min()
        share = drawn / drawn.sum()
        expected = {
            "low": heat.min(),
            "high": heat.max(),
            "variation": drawn.std() / drawn.mean() if kind == "gradient" else heat.std() / abs(heat.mean()),
            "entropy": -sum(p * math.log(p) for p in share.ravel() if p) / math.log(16),
            "top": sum(sorted(share.ravel())[-4:]),
            "centre_y": sum(share[y, x] * (y + 0.5) / 4 for y in range(4) for x in range(4)),
            "centre_x": sum(share[y, x] * (x + 0.5) / 4 for y in range(4) for x in range(4)),
            "zero": 0,
        }
        for name, value in expected.items():
            assert found[name][index] == pytest.approx(value), name
        assert found["ring_share"][index] == pytest.approx([share[1:3, 1:3].sum(), 1 - share[1:3, 1:3].sum()])


def test_variation_of_a_statistic_is_that_of_the_raw_map():
    found = map_figures(MAPS, "statistic", RING, 0.1)["variation"]
    np.testing.assert_allclose(found, MAPS.std(axis=(1, 2)) / np.abs(MAPS.mean(axis=(1, 2))), rtol=1e-5)


def test_a_uniform_map_has_entropy_one_and_no_variation():
    found = map_figures(np.full((1, 4, 4), 27.7), "gradient", RING, 0.25)
    assert found["entropy"] == pytest.approx(1)
    assert found["top"] == pytest.approx(0.25)
    assert found["variation"] == pytest.approx(0, abs=1e-12)
    assert (found["centre_y"], found["centre_x"]) == (pytest.approx(0.5), pytest.approx(0.5))


def test_a_constant_statistic_is_not_zero_and_has_nothing_to_draw():
    found = map_figures(np.full((1, 4, 4), 27.7), "statistic", RING, 0.25)
    assert found["zero"] == 0 and found["variation"] == pytest.approx(0, abs=1e-12)
    for name in ("entropy", "top", "centre_y", "ring_share"):
        assert np.isnan(found[name]).all(), name


def test_energy_of_a_statistic_is_of_what_is_drawn():
    """Of a norm that varies by a thousandth, the raw map's energy is the mask's area, whatever it points at."""
    share, centre = masks()
    maps = (9.4 + 0.01 * np.random.default_rng(3).random((len(share), 4, 4))).astype(np.float32)
    found = mask_figures(maps, share, centre, "statistic")
    for index, heat in enumerate(maps.astype(np.float64)):
        drawn = heat - heat.min()
        assert found["energy"][index] == pytest.approx((drawn * share[index]).sum() / drawn.sum())
        assert found["pointing"][index] == centre[index][np.unravel_index(heat.argmax(), heat.shape)]
    maps[0, 0] = np.nan
    read = maps[0, 1:].astype(np.float64)
    drawn = read - read.min()
    assert mask_figures(maps[:1], share[:1], centre[:1], "statistic")["energy"] == pytest.approx((drawn * share[0, 1:]).sum() / drawn.sum())


def test_a_map_without_heat_is_zero_and_has_no_shares():
    found = map_figures(-np.ones((1, 4, 4)), "gradient", RING, 0.1)
    assert found["zero"] == 1
    assert found["low"] == -1
    for name in ("variation", "entropy", "top", "centre_y", "ring_share"):
        assert np.isnan(found[name]).all(), name


def test_undefined_maps_have_no_figures():
    maps = MAPS.copy()
    maps[2] = np.nan
    found = map_figures(maps, "gradient", RING, 0.1)
    assert all(np.isnan(value[2]).all() and np.isfinite(value[[0, 1, 3, 4, 5]]).all() for value in found.values())


def masks():
    centre = np.zeros((3, 4, 4), np.int8)
    centre[:, 1, 2] = 1
    share = np.zeros((3, 4, 4), np.float32)
    share[:, 1, 1:3] = (0.25, 1)
    return share, centre


def test_pointing_and_energy():
    share, centre = masks()
    maps = np.full((3, 4, 4), -1.0)
    maps[0, 1, 2], maps[0, 0, 0] = 3, 1  # the hottest point lies in the mask
    maps[1, 1, 1], maps[1, 3, 3] = 2, 4  # beside it
    maps[2] = -2  # no heat at all
    found = mask_figures(maps, share, centre)
    np.testing.assert_allclose(found["pointing"], [1, 0, 0])
    np.testing.assert_allclose(found["energy"], [3 / 4, 2 * 0.25 / 6, 0])
    np.testing.assert_allclose(found["mask_area"], 1.25 / 16)


def test_cells_that_tie_share_the_point():
    share, centre = masks()
    maps = np.zeros((1, 4, 4))
    maps[0, 1:3, 1:3] = 5
    assert mask_figures(maps, share[:1], centre[:1])["pointing"] == pytest.approx(0.25)


def test_a_map_that_knows_nothing_scores_the_mask_area():
    rng = np.random.default_rng(1)
    share = rng.random((1, 4, 4))
    assert mask_figures(np.ones((1, 4, 4)), share, (share > 0.5).astype(np.int8))["energy"] == pytest.approx(share.mean())


def test_without_a_mask_or_a_map_there_is_no_figure():
    share, centre = masks()
    share[0], centre[0] = np.nan, -1
    maps = MAPS[:3].copy()
    maps[1] = np.nan
    found = mask_figures(maps, share, centre)
    assert [np.isnan(value).tolist() for value in found.values()] == [[True, True, False]] * 3


def test_cells_that_were_not_read_have_no_heat():
    share, centre = masks()
    maps = np.ones((1, 4, 4))
    maps[0, 0] = np.nan
    assert mask_figures(maps, share[:1], centre[:1])["energy"] == pytest.approx(1.25 / 12)


def test_drift():
    other = MAPS[::-1].copy()
    other[0] = MAPS[0] * 3  # the same map, scaled
    found = drift_figures(MAPS, other, 0.25)
    for index in range(6):
        one, two = MAPS[index].ravel().astype(np.float64), other[index].ravel().astype(np.float64)
        assert found["cosine"][index] == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two))
        assert found["pearson"][index] == pytest.approx(np.corrcoef(one, two)[0, 1])
        assert found["spearman"][index] == pytest.approx(spearmanr(one, two).statistic)
        hottest = [set(np.argsort(-values)[:4]) for values in (one, two)]
        assert found["overlap"][index] == len(hottest[0] & hottest[1]) / 4
    assert [found[name][0] for name in ("cosine", "pearson", "spearman", "overlap")] == pytest.approx([1, 1, 1, 1])


def test_drift_of_ties_and_constants():
    tied = np.array([[[1, 1], [2, 3]], [[1, 1], [1, 1]]], np.float64)
    found = drift_figures(tied, np.array([[[2, 1], [2, 5]], [[1, 2], [3, 4]]], np.float64), 0.5)
    assert found["spearman"][0] == pytest.approx(spearmanr([1, 1, 2, 3], [2, 1, 2, 5]).statistic)
    assert np.isnan(found["spearman"][1]), "a constant map has no ranks"
    assert np.isnan(found["pearson"][1]), "and nothing that varies"


def test_drift_of_maps_that_lie_far_from_zero():
    """Of norms after a LayerNorm the cosine is 1, whatever they show; the correlation is not."""
    rng = np.random.default_rng(0)
    one, two = (9.4 + 0.01 * rng.standard_normal((1, 12, 12)).astype(np.float32) for _ in range(2))
    found = drift_figures(one, two, 0.2)
    assert found["cosine"][0] > 0.99999
    assert found["pearson"][0] == pytest.approx(np.corrcoef(one.ravel().astype(float), two.ravel().astype(float))[0, 1], abs=1e-9)
    constant = drift_figures(np.full((1, 3, 3), 0.1, np.float32), one[:, :3, :3], 0.2)
    assert np.isnan(constant["pearson"][0]), "no rounding of a mean makes a constant map vary"


def test_drift_is_undefined_where_either_map_is():
    other = MAPS.copy()
    other[3, 0, 0] = np.nan
    found = drift_figures(MAPS, other, 0.2)
    assert all(np.isnan(value).tolist() == [False, False, False, True, False, False] for value in found.values())


def test_a_negative_statistic_is_flat_or_not_but_not_zero():
    found = map_figures(np.full((1, 4, 4), -3.0), "statistic", RING, 0.1)
    assert found["zero"] == 0
    assert found["variation"] == 0
