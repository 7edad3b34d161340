"""Gradients and removals through max pooling, against torch's autograd and pooling."""

import numpy as np
import pytest
import torch

from safenet.alignment import resample, source_cells
from safenet.partition import pool_rings_max
from stages.cam.max_pooling import MaxPooled, Warp

SIDE, CHANNELS = 8, 5
THETA = torch.eye(2, 3) + 0.3 * torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(1))
BOUNDARY = torch.tensor([[1, 4], [2, 4], [3, 4]])
MAPS = torch.randn(3, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) - 2  # so that some outer parts have no positive cell
DIRECTION = np.random.default_rng(2).standard_normal((3, 2, CHANNELS)).astype(np.float32)


def pooled(sampling: str | None) -> MaxPooled:
    warp = None if sampling is None else Warp(THETA.numpy(), source_cells(THETA, (SIDE, SIDE)).numpy().astype(np.int16), sampling)
    return MaxPooled(np.moveaxis(MAPS.numpy(), 1, 3), BOUNDARY.numpy().astype(np.int16), warp)


def by_torch(maps: torch.Tensor, sampling: str | None) -> torch.Tensor:
    return pool_rings_max(maps if sampling is None else resample(maps, THETA[: len(maps)], sampling), BOUNDARY[: len(maps)])


@pytest.mark.parametrize("sampling", [None, "nearest", "bilinear"])
def test_a_gradient_goes_to_the_maxima_as_by_autograd(sampling):
    maps = MAPS.clone().requires_grad_()
    part = by_torch(maps, sampling)
    assert (part == 0).any(), "none goes where the floor is"
    (expected,) = torch.autograd.grad(part, maps, torch.from_numpy(DIRECTION).transpose(1, 2))
    found = pooled(sampling).gradient(DIRECTION)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.flatten(2).transpose(1, 2), rtol=0, atol=1e-5)  # float32 coordinates of torch's warp


def test_of_cells_that_tie_the_first_has_the_gradient():
    tied = MaxPooled(np.ones((1, SIDE, SIDE, 1), np.float32), np.array([[2, 4]]), None)
    found = tied.gradient(np.array([[[3.0], [5.0]]], np.float32)).reshape(SIDE, SIDE)
    assert found[2, 2] == 3 and found[0, 0] == 5 and np.count_nonzero(found) == 2


@pytest.mark.parametrize("sampling", [None, "nearest", "bilinear"])
def test_what_a_part_loses_without_each_cell(sampling):
    matrix = np.random.default_rng(3).standard_normal((4, CHANNELS))
    whole = by_torch(MAPS, sampling)
    for part in (0, 1):
        found = pooled(sampling).through(0, part, matrix)
        for cell in range(SIDE * SIDE):
            rest = MAPS[:1].clone()
            rest[0, :, cell // SIDE, cell % SIDE] = 0
            lost = (whole[:1] - by_torch(rest, sampling))[0, :, part].double().numpy()
            np.testing.assert_allclose(found[cell], matrix @ lost, rtol=0, atol=1e-4)  # as above, times the matrix
