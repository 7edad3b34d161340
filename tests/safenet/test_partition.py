"""FPM: saliency, boundaries and ring pooling against their definitions and the golden table."""

from pathlib import Path

import numpy as np
import pytest
import references
import torch
from hypothesis import given
from hypothesis import strategies as st

from safenet.partition import find_boundaries, pool_rings, ring_saliency
from safenet.rings import boundaries_of_a_constant_map
from safenet.rings import find_boundaries as boundaries_of_a_sample

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_boundaries_match_the_golden_table(parts):
    """1,000 saliency vectors with ties, monotone and constant ones; made by running the published code."""
    table = np.load(GOLDEN / "fpm_boundary_table.npz")
    found = find_boundaries(torch.from_numpy(table["saliency"]), parts)
    np.testing.assert_array_equal(found, table[f"boundaries_block{parts}"])


@pytest.mark.parametrize("rings", [4, 7, 8, 12])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_boundaries_match_the_recursion(rings, parts):
    rng = np.random.default_rng(rings * 10 + parts)
    saliency = rng.choice(np.linspace(0, 1, 6), size=(300, rings)).astype(np.float32)  # few levels: many ties
    expected = [references.recursive_boundaries(row, parts) for row in saliency]
    np.testing.assert_array_equal(find_boundaries(torch.from_numpy(saliency), parts), expected)


def test_boundaries_of_degenerate_saliencies():
    """All NaN and constant vectors take the first index; as measured on the published code."""
    degenerate = torch.stack([torch.full((8,), torch.nan), torch.full((8,), 3.0)])
    assert find_boundaries(degenerate, 4).tolist() == [[1, 2, 3, 8], [1, 2, 3, 8]]


def test_a_constant_map_is_cut_at_1_2_4_8():
    assert find_boundaries(ring_saliency(torch.ones(1, 5, 16, 16)), 4).tolist() == [[1, 2, 4, 8]]


@pytest.mark.parametrize("parts", [3, 5, 16])
def test_impossible_parts_are_refused(parts):
    with pytest.raises(ValueError, match=f"{parts} parts cannot be cut out of 8 rings; expected a power of two, at most 8"):
        find_boundaries(torch.zeros(1, 8), parts)


@pytest.mark.parametrize("side", [8, 15, 16])
def test_saliency_matches_its_definition(side):
    features = torch.randn(3, 6, side, side, generator=torch.Generator().manual_seed(side))
    expected = [references.saliency(sample.double().numpy()) for sample in features]
    np.testing.assert_allclose(ring_saliency(features), expected, atol=1e-6)  # float32 sums of up to 60 cells


def test_constant_map_gives_the_decreasing_prior():
    """S_r = (2r - 1) / r^2 for a map of ones."""
    expected = [(2 * r - 1) / r**2 for r in range(1, 9)]
    np.testing.assert_allclose(ring_saliency(torch.ones(1, 2, 16, 16))[0], expected, rtol=1e-6)


def test_a_value_that_is_not_finite_spoils_its_ring_and_those_outside():
    features = torch.ones(2, 1, 16, 16)
    features[0, 0, 8, 8 + 3] = torch.nan  # ring 4
    features[1, 0, 8, 8 + 3] = torch.inf
    found = ring_saliency(features)
    assert torch.isfinite(found[:, :3]).all()
    assert torch.isnan(found[0, 3:]).all()
    assert torch.isinf(found[1, 3])
    assert torch.isnan(found[1, 4:]).all()


@pytest.mark.parametrize("side", [8, 15, 16])
def test_pooling_matches_its_definition(side):
    features = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(side))
    boundary = find_boundaries(ring_saliency(features), 4)
    expected = [references.pooled_parts(sample.numpy(), cuts.tolist()) for sample, cuts in zip(features, boundary, strict=True)]
    np.testing.assert_allclose(pool_rings(features, boundary), expected, atol=1e-6)


@given(seed=st.integers(0, 10**6), parts=st.sampled_from([1, 2, 4, 8]), rings=st.integers(8, 12))
def test_the_rings_of_one_sample_are_cut_as_those_of_a_batch(seed, parts, rings):
    """With ties, and in the order of a map whose cells are all alike."""
    saliency = np.random.default_rng(seed).integers(0, 5, (3, rings)).astype(np.float32)
    batch = find_boundaries(torch.from_numpy(saliency), parts)
    assert [boundaries_of_a_sample(row, parts).tolist() for row in saliency] == batch.tolist()
    constant = find_boundaries(ring_saliency(torch.full((1, 3, 2 * rings, 2 * rings), 0.7)), parts)
    assert boundaries_of_a_constant_map(rings, parts).tolist() == constant[0].tolist()


def test_the_constant_maps_of_the_published_and_of_the_demos_grid():
    assert boundaries_of_a_constant_map(8, 4).tolist() == [1, 2, 4, 8]
    assert boundaries_of_a_constant_map(6, 4).tolist() == [1, 2, 3, 6]
