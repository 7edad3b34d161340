"""Ranks by one integer sort, against scipy's and against sorting by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata, spearmanr

from stages.stats.ranks import correlation, correlations, ranking

FINITE = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0, 3e38, -3e38, 1e-45]), st.floats(width=32, allow_nan=False, allow_infinity=False))


def slow(row):
    """Cells from the coldest to the hottest, of equal ones the last first; and centred mean ranks."""
    order = sorted(range(len(row)), key=lambda cell: (row[cell], -cell))
    place = [order.index(cell) for cell in range(len(row))]
    mean = [np.mean([place[other] for other in range(len(row)) if row[other] == row[cell]]) for cell in range(len(row))]
    return place, np.array(mean) - (len(row) - 1) / 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=60, deadline=None)
@given(values=arrays(np.float32, (3, 7), elements=FINITE))
def test_slow_twin(dtype, values):
    found = ranking(values.astype(dtype))
    for number, row in enumerate(values):
        place, centred = slow(row.tolist())
        assert found.place[number].tolist() == place
        np.testing.assert_array_equal(found.centred[number], centred)
        np.testing.assert_array_equal(centred, rankdata(row) - 4)


@pytest.mark.parametrize("cells", [16, 369, 370, 1024])
def test_correlations_are_spearmans(cells):
    """Also where products of ranks no longer fit float32."""
    rng = np.random.default_rng(cells)
    maps = [rng.standard_normal((2, cells)).astype(np.float32), rng.integers(0, 4, (2, cells)).astype(np.float32), np.ones((2, cells), np.float32)]
    ranked = [ranking(values) for values in maps]
    found = correlations(ranked)
    for sample in range(2):
        expected = spearmanr(maps[0][sample], maps[1][sample]).statistic
        assert found[sample, 0, 1] == pytest.approx(expected, rel=1e-12, abs=1e-14)
        assert correlation(ranked[0], ranked[1])[sample] == pytest.approx(found[sample, 0, 1], rel=1e-15, abs=1e-16)  # another order of sums
    np.testing.assert_allclose(found[:, 0, 0], 1, rtol=1e-15)  # the square of a rounded length
    assert np.isnan(found[:, 2]).all(), "a constant map has no ranks"


def test_the_hottest_cells():
    """Of equal cells the first in row-major order is the hottest."""
    assert ranking(np.array([[1, 3, 3, 2, 3]], np.float32)).hottest(2).tolist() == [[False, True, True, False, False]]
