"""The first principal component against a singular value decomposition in float64, whichever way it was found."""

import numpy as np
import pytest

import stages.cam.principal as principal
from stages.cam.principal import first_component

RNG = np.random.default_rng(5)
TOLERANCE = 1e-5  # of the map's maximum: 64 units of float32's rounding, and the rounding of the map itself


def cells_of(singular, count=144, channels=96, mean=0.0):
    """Cells whose centred matrix has these singular values."""
    left = np.linalg.qr(np.column_stack([np.ones(count), RNG.standard_normal((count, len(singular)))]))[0][:, 1:]
    right = np.linalg.qr(RNG.standard_normal((channels, len(singular))))[0]
    return (left * singular @ right.T + mean * RNG.standard_normal(channels)).astype(np.float32)


def by_svd(cells):
    """Scores of [N, K], in float64; the cell farthest from zero is positive."""
    matrix = cells.astype(np.float64)
    left, size, _ = np.linalg.svd(matrix - matrix.mean(axis=0), full_matrices=False)
    scores = left[:, 0] * size[0]
    return scores * np.sign(scores[np.abs(scores).argmax()])


CASES = {
    "random": RNG.standard_normal((256, 200)).astype(np.float32),
    "more channels than cells": RNG.standard_normal((64, 500)).astype(np.float32),
    "more cells than channels": RNG.standard_normal((256, 8)).astype(np.float32),
    "few cells": RNG.standard_normal((4, 50)).astype(np.float32),
    "slowly falling": cells_of(np.linspace(1, 0.5, 90)),
    "rank one": cells_of([3.0]),
    "rank three": cells_of([3.0, 2.0, 1.0]),
    "rank three, but for rounding": cells_of([3.0, 2.0, 1.0, *np.full(60, 1e-6)]),
    "all the weight in a cell": np.eye(1, 7000, 140, dtype=np.float32).reshape(100, 70) * 5,
    "a large mean": cells_of([3.0, 2.0, 1.0, *np.full(60, 0.3)], mean=20),
    "squares below float32": cells_of([3.0, 2.0, 1.0, 0.5]) * np.float32(1e-25),
    "squares beyond float32": cells_of([3.0, 2.0, 1.0, 0.5]) * np.float32(1e25),
    **{f"second value {1 - gap:g}": cells_of([1, 1 - gap, *np.linspace(0.9, 0.1, 40)]) for gap in (0.1, 0.01, 0.006, 0.004, 1e-3, 1e-4, 1e-5)},
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_first_left_singular_vector(name):
    expected = by_svd(CASES[name])
    (found,) = first_component(CASES[name][None])
    assert found.dtype == np.float32
    found = found * np.sign(found @ expected)  # of cells that tie, the first is made positive
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_the_largest_cell_may_have_nothing_to_do_with_it():
    """A start that is orthogonal to the component would end in another eigenvector."""
    cells = np.zeros((100, 60), np.float32)
    cells[:2, 0], cells[2:51, 1], cells[51:, 1] = (9, -9), 2, -2
    (found,) = first_component(cells[None])
    np.testing.assert_allclose(np.abs(found), np.abs(by_svd(cells)), rtol=0, atol=TOLERANCE * np.abs(found).max())


def test_equal_eigenvalues_give_a_vector_of_their_plane():
    cells = cells_of([2.0, 2.0, 1.0])
    (found,) = first_component(cells[None])
    centred = cells.astype(np.float64) - cells.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(centred @ (centred.T @ found), 4 * found, atol=4 * TOLERANCE * np.abs(found).max())
    assert found @ found == pytest.approx(4, rel=TOLERANCE)


def test_only_small_gaps_and_small_maps_take_the_exact_solver(monkeypatch):
    """It takes ten times as long."""
    solved, exactly = [], principal._exactly
    monkeypatch.setattr(principal, "_exactly", lambda cells: solved.append(len(cells)) or exactly(cells))
    for name, cells in CASES.items():
        before = len(solved)
        first_component(cells[None])
        squared_gap = 2 * (1 - float(name.split()[-1])) if name.startswith("second value") else 1
        assert len(solved) - before == int(name == "few cells" or squared_gap < 0.0099), name


def test_double_precision_is_kept():
    cells = RNG.standard_normal((100, 64))
    (found,) = first_component(cells[None])
    np.testing.assert_allclose(found, by_svd(cells), rtol=0, atol=1e-12)


def test_cells_of_one_value_have_no_component():
    assert not first_component(np.zeros((2, 100, 30), np.float32)).any()
    assert not first_component(np.full((1, 64, 30), 0.5, np.float32)).any(), "the mean of powers of two is exact"


@pytest.mark.parametrize("count", [4, 100])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_nan_alone(count, value):
    cells = RNG.standard_normal((3, count, 40)).astype(np.float32)
    alone = [first_component(one[None])[0] for one in cells]
    cells[1, 2, 3] = value
    found = first_component(cells)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], [alone[0], alone[2]], "the same bits, whichever others are made with them")
