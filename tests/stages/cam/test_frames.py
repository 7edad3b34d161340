"""Carrying maps between the aligned grid and the photo's."""

import numpy as np
import pytest
import torch
from feature_blocks import feature_block, random_net

from safenet.alignment import resample, source_cells
from stages.cam.frames import carry_back, copy_cells, to_photo_frame

THETA = torch.tensor([[[0.6, 0.2, 0.1], [-0.1, 0.7, -0.2]], [[1.0, 0, 0], [0, 1, 0]]])
SOURCE = source_cells(THETA, (8, 8)).numpy().astype(np.int16)
HEAT = np.random.default_rng(0).standard_normal((2, 8, 8)).astype(np.float32)


def test_nearest_maps_go_back_cell_by_cell():
    total, count = np.zeros((2, 64)), np.zeros((2, 64))
    for sample in range(2):
        for cell, source in enumerate(SOURCE[sample].ravel()):
            total[sample, source] += HEAT[sample].ravel()[cell]
            count[sample, source] += 1
    for additive, expected in ((True, total), (False, total / np.maximum(count, 1))):
        found = to_photo_frame(HEAT, THETA.numpy(), SOURCE, "nearest", additive).reshape(2, 64)
        np.testing.assert_allclose(found[count > 0], expected[count > 0], rtol=1e-6, atol=1e-6)
        assert np.isnan(found[count == 0]).all(), "cells that the network read nothing from have no value"
        assert (count[0] == 0).any()


def test_an_identity_warp_changes_nothing():
    for sampling in ("nearest", "bilinear"):
        found = to_photo_frame(HEAT, THETA.numpy(), SOURCE, sampling, additive=False)
        np.testing.assert_allclose(found[1], HEAT[1], atol=1e-5)  # float32 corner weights


@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("additive", [True, False])
def test_several_maps_of_a_sample_go_back_as_each_alone(sampling, additive):
    several = np.stack([HEAT, HEAT**2, np.where(HEAT > 0, HEAT, np.nan)], axis=1)
    found = to_photo_frame(several, THETA.numpy(), SOURCE, sampling, additive)
    for number in range(3):
        alone = to_photo_frame(several[:, number], THETA.numpy(), SOURCE, sampling, additive)
        np.testing.assert_array_equal(found[:, number], alone)
    none = slice(0, 0)
    assert to_photo_frame(several[none], THETA.numpy()[none], SOURCE[none], sampling, additive).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
def test_cells_of_one_value_keep_one_value(sampling):
    """Cells that tie share the point of the pointing game: rounding must not choose among them."""
    theta = np.array([[[0.37, 0.11, 0.05], [-0.13, 0.41, 0.02]]], np.float32)
    source = source_cells(torch.from_numpy(theta), (12, 12)).numpy().astype(np.int16)
    for value in np.random.default_rng(0).random(50).astype(np.float32):
        found = to_photo_frame(np.full((1, 12, 12), value), theta, source, sampling, additive=False)
        assert np.unique(found[np.isfinite(found)]).tolist() == [value]


def test_a_part_map_is_not_additive():
    """A ring's value stands on all its cells: carried back it keeps its values, where a sum would brighten cells that are read twice."""
    from stages.cam.map_keys import MapKey

    assert MapKey("aligned", "match", "hires_cam").additive
    assert not MapKey("part", "match", "hires_cam").additive
    constant = np.full((2, 8, 8), 0.5, np.float32)
    found = to_photo_frame(constant, THETA.numpy(), SOURCE, "nearest", MapKey("part", "match", "hires_cam").additive)
    np.testing.assert_allclose(found[np.isfinite(found)], 0.5, rtol=1e-6)


def test_additive_maps_keep_their_sum():
    for sampling in ("nearest", "bilinear"):
        found = to_photo_frame(HEAT, THETA.numpy(), SOURCE, sampling, additive=True)
        np.testing.assert_allclose(np.nansum(found, axis=(1, 2)), HEAT.sum(axis=(1, 2)), rtol=1e-4)


def test_bilinear_goes_back_as_the_network_read():
    """A constant photo map stays constant there and back; a peak lands near where it was read."""
    ones = np.ones((2, 8, 8), np.float32)
    found = to_photo_frame(ones, THETA.numpy(), SOURCE, "bilinear", additive=False)
    np.testing.assert_allclose(found[np.isfinite(found)], 1, rtol=1e-5)
    photo = torch.zeros(2, 1, 8, 8)
    photo[:, 0, 3, 4] = 1
    seen = resample(photo, THETA, "bilinear")[:, 0].numpy()
    back = np.nan_to_num(to_photo_frame(seen, THETA.numpy(), SOURCE, "bilinear", additive=False))
    assert [divmod(int(heat.argmax()), 8) for heat in back] == [(3, 4), (3, 4)]


def test_both_samplings_agree_on_the_nearest_cells():
    """carry_back through source_cell equals the transpose of nearest resampling by theta."""
    from safenet.alignment import resample_adjoint

    weights = np.stack([HEAT, HEAT**2], axis=1)
    expected = resample_adjoint(torch.from_numpy(weights), THETA, "nearest")
    np.testing.assert_allclose(carry_back(weights, THETA.numpy(), SOURCE, "nearest"), expected, atol=1e-5)


def test_a_derived_aligned_map_is_the_stored_one_bit_for_bit():
    features = feature_block(random_net("nearest"))
    patch, aligned = (features[name].values.astype(np.float16) for name in ("patch_map", "aligned_map"))
    np.testing.assert_array_equal(copy_cells(patch, features["source_cell"].values), aligned)


def test_a_cell_without_a_value_does_not_spoil_its_neighbours():
    """On odd grids the last row and column lie in no ring; a mean is of the cells that have a value."""
    theta = np.array([[[0.9, 0.1, 0.02], [-0.1, 0.9, 0.05]]], np.float32)
    source = source_cells(torch.from_numpy(theta), (5, 5)).numpy()
    maps = np.random.default_rng(0).random((1, 5, 5)).astype(np.float32)
    holed = maps.copy()
    holed[0, -1] = np.nan
    whole, found = (to_photo_frame(values, theta, source, "bilinear", False) for values in (maps, holed))
    assert np.isfinite(found).sum() > 15
    far = np.zeros((5, 5), bool)
    far[:2] = True  # nothing of the last row was blended in here
    np.testing.assert_array_equal(found[0][far], whole[0][far])
    assert np.nanmin(found) >= maps.min() - 1e-6 and np.nanmax(found) <= maps.max() + 1e-6
