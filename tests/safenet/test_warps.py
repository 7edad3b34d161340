"""Bilinear sampling as a sparse matrix: its definition, and torch's twin."""

import numpy as np
import pytest
import references
import torch

from safenet.alignment import resample, resample_adjoint
from safenet.warps import sampling_matrix

IDENTITY = torch.eye(2, 3)
THETA = torch.cat([IDENTITY + 0.3 * torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(3)), 9 * IDENTITY[None], -1e38 * IDENTITY[None]])
SIDES = [(8, 8), (12, 12), (5, 7)]


@pytest.mark.parametrize("size", SIDES)
def test_a_row_is_what_a_cell_reads(size):
    """Warps that lead out of the map among them: the border is repeated."""
    values = np.random.default_rng(0).standard_normal((len(THETA), *size))
    found = (sampling_matrix(THETA.numpy(), size) @ values.ravel()).reshape(values.shape)
    expected = [references.carried(one, theta, "bilinear") for one, theta in zip(values, THETA.double().numpy(), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)  # float64


@pytest.mark.parametrize("size", SIDES)
def test_it_is_what_the_network_reads_and_its_transpose_how_a_gradient_comes_back(size):
    theta = THETA[:-1]  # the last one enlarges the rounding of torch's coordinates without limit
    values = torch.randn(len(theta), 1, *size, generator=torch.Generator().manual_seed(0))
    matrix = sampling_matrix(theta.numpy(), size)
    for ours, theirs in ((matrix, resample), (matrix.T, resample_adjoint)):
        found = (ours @ values.numpy().ravel()).reshape(values.shape)
        np.testing.assert_allclose(found, theirs(values, theta, "bilinear"), rtol=0, atol=2e-5)  # torch's coordinates are float32


def test_the_shares_of_a_cell_add_up_to_one():
    matrix = sampling_matrix(THETA.numpy(), (8, 8))
    assert matrix.shape == (64 * len(THETA), 64 * len(THETA))
    assert matrix.data.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-15)


def test_a_warp_that_is_not_finite_reads_nothing_and_spoils_no_other():
    theta = THETA[:3].numpy().copy()
    theta[1, 0, 2] = np.nan
    matrix, ones = sampling_matrix(theta, (8, 8)), np.ones(3 * 64)
    for found in (matrix @ ones, matrix.T @ ones):
        assert np.isnan(found.reshape(3, 64)).all(axis=1).tolist() == [False, True, False]
        assert np.isfinite(found.reshape(3, 64)[[0, 2]]).all()
