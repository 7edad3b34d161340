"""FAM's warp taken apart and put together again; the share of moved cells."""

import numpy as np
import pytest

from stages.stats.modules import WARP_FIGURES, decompose_theta, moved_share


def test_a_decomposed_warp_composes_back():
    theta = np.random.default_rng(0).standard_normal((50, 2, 3)) + np.eye(2, 3)
    for original, figures in zip(theta, decompose_theta(theta), strict=True):
        at = dict(zip(WARP_FIGURES, figures, strict=True))
        angle = np.radians(at["rotation_deg"])
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = rotation @ [[at["scale_x"], at["scale_x"] * at["shear"]], [0, at["scale_y"]]]
        np.testing.assert_allclose(linear, original[:, :2], atol=1e-12)
        np.testing.assert_allclose([at["shift_x"], at["shift_y"]], original[:, 2])


@pytest.mark.parametrize(
    ("theta", "figure", "value"),
    [
        ([[1, 0, 0], [0, 1, 0]], "rotation_deg", 0),
        ([[0, -1, 0], [1, 0, 0]], "rotation_deg", 90),
        ([[2, 0, 0], [0, 3, 0]], "scale_y", 3),
        ([[1, 0, 0], [0, -1, 0]], "scale_y", -1),
        ([[1, 0.5, 0], [0, 1, 0]], "shear", 0.5),
        ([[1, 0, 0.25], [0, 1, 0]], "shift_x", 0.25),
    ],
)
def test_plain_warps(theta, figure, value):
    assert decompose_theta(np.array([theta], float))[0, WARP_FIGURES.index(figure)] == pytest.approx(value)


def test_a_warp_that_collapses_x_is_undefined_not_infinite():
    figures = decompose_theta(np.zeros((1, 2, 3)))[0]
    assert np.isnan(figures[WARP_FIGURES.index("scale_y")])
    assert figures[WARP_FIGURES.index("scale_x")] == 0


def test_moved_share():
    still = np.arange(16).reshape(1, 4, 4)
    moved = still.copy()
    moved[0, 0, :2] = 5
    np.testing.assert_allclose(moved_share(np.concatenate([still, moved])), [0, 2 / 16])
