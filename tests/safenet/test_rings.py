"""The rings of FPM in NumPy: their definition, and torch's twin."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safenet import partition, rings
from safenet.rings import ring_numbers, ring_weights


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("side", [8, 15, 16])
def test_pooling_is_torchs(side, pooling):
    """In float64, so that only the order of the sums differs; maxima are the same values."""
    features = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
    boundary = partition.find_boundaries(partition.ring_saliency(features), 4)
    cells = features.flatten(2).transpose(1, 2).numpy()
    found = rings.POOLINGS[pooling](cells, boundary.numpy().astype(np.int16), (side, side))
    expected = partition.POOLINGS[pooling](features, boundary).transpose(1, 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15 if pooling == "mean" else 0)


def test_ring_weights_are_those_that_the_network_pools_with_to_the_bit():
    boundary = torch.tensor([[1, 3, 4, 8], [2, 5, 6, 8]])
    ones = torch.eye(256).view(1, 256, 16, 16).expand(2, -1, -1, -1)  # each channel lights one cell up
    expected = partition.pool_rings(ones, boundary).transpose(1, 2).numpy()
    np.testing.assert_array_equal(ring_weights(boundary.numpy().astype(np.int16), (16, 16)).reshape(2, 4, 256), expected)


def test_rings_cover_the_grid_once():
    counts = np.bincount(ring_numbers((16, 16)).ravel())
    assert counts.tolist() == [0, *(8 * r - 4 for r in range(1, 9))]
    assert (ring_numbers((15, 15))[-1] == 0).all(), "the last row of an odd grid lies in no ring"
    with pytest.raises(ValueError, match="the map is 4 x 6 cells; FPM is defined on square grids"):
        ring_numbers((4, 6))


def test_ring_weights_add_up_to_the_ring_share():
    """r_p = 1 - (b_(p-1) / b_p)^2."""
    weight = ring_weights(np.array([[1, 3, 4, 8]]), (16, 16)).sum(axis=(2, 3))[0]
    np.testing.assert_allclose(weight, [1, 1 - 1 / 9, 1 - 9 / 16, 1 - 16 / 64], rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(cuts=st.sets(st.integers(1, 7), min_size=3, max_size=3), side=st.sampled_from([16, 17]))
def test_rings_share_out_the_grid(cuts, side):
    """Every cell within the largest square lies in just one part, and each part's weights add up to r_p = 1 - (inner / outer)^2."""
    boundary = np.array([[*sorted(cuts), 8]])
    weights = ring_weights(boundary, (side, side))[0]
    seen = (weights > 0).sum(axis=0)
    assert (seen[:16, :16] == 1).all()
    assert not seen[16:].any() and not seen[:, 16:].any()
    inner = [0, *boundary[0, :-1].tolist()]
    for part, (small, large) in enumerate(zip(inner, boundary[0].tolist(), strict=True)):
        assert float(weights[part].sum()) == pytest.approx(1 - (small / large) ** 2, rel=1e-5)
