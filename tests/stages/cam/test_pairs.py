"""Cells of a pair: against a double loop; the exact maps of both sides; which cells are marked."""

import numpy as np
import pytest

import pipeline
from stages.cam.pairs import OUTSIDE, cell_similarity, part_of_cells, query_cells

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("normalise", [True, False])
def test_similarity_is_that_of_the_embeddings_through_the_head_of_the_cells_ring(normalise):
    cells, others, part = RNG.standard_normal((6, 5)), RNG.standard_normal((4, 5)), np.array([0, 1, 1, OUTSIDE, 2, 0])
    matrices = [RNG.standard_normal((3, 5)) for _ in range(3)]
    found = cell_similarity(cells, part, others, matrices, normalise=normalise)
    for n in range(6):
        for m in range(4):
            if part[n] == OUTSIDE:
                assert np.isnan(found[n, m])
                continue
            one, other = matrices[part[n]] @ cells[n], matrices[part[n]] @ others[m]
            expected = one @ other / (np.sqrt(one @ one) * np.sqrt(other @ other) if normalise else 1)
            assert found[n, m] == pytest.approx(expected, abs=1e-12)


def test_rings_of_cells():
    weights = np.array([[0.25, 0, 0, 0], [0, 0.1, 0.1, 0]])
    assert part_of_cells(weights).tolist() == [0, 1, 1, OUTSIDE]


def test_marked_cells_are_the_hottest_that_are_not_neighbours():
    heat = np.zeros((6, 6))
    heat[1, 1], heat[1, 2], heat[4, 4], heat[0, 5] = 9, 8, 7, np.nan
    assert query_cells(heat, 3, 3) == [(1, 1), (4, 4), (0, 4)]
    assert query_cells(heat, 100, 6) == [(1, 1)]
    assert query_cells(np.full((2, 2), np.nan), 3, 1) == []


@pytest.mark.parametrize("checkpoint", ["net_000", "net_002"])  # nearest and bilinear sampling
def test_a_pair_from_both_sides(finished, checkpoint):
    run = pipeline.open_run(finished.directory)
    table = run.manifest
    place = table[table["split"] == "test"]["place"].iloc[0]
    first, second = (table[(table["place"] == place) & (table["view"] == view)]["id"].iloc[0] for view in ("drone", "satellite"))
    found = run.explain.pair(checkpoint, first, second)
    swapped = run.explain.pair(checkpoint, second, first)
    np.testing.assert_array_equal(found["first_map"], swapped["second_map"])
    np.testing.assert_array_equal(found["second_like_first"], swapped["first_like_second"])
    embedding = run.features["embedding"].sel(checkpoint=checkpoint).load().values[:, :-1].astype(np.float64)
    pair = [embedding[table.index[table["id"] == name][0]] for name in (first, second)]
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in pair]
    facts = run.explain.maps(checkpoint, [f"aligned/pair_share_{second}/hires_cam"], [first])
    score, constant = (float(facts[next(key for key in facts if str(key).startswith("facts/"))].values[0, column]) for column in (4, 5))
    assert score == pytest.approx((unit[0] * unit[1]).sum(axis=1).mean(), rel=1e-5)
    assert float(np.nansum(found["first_map"])) == pytest.approx(score - constant, rel=2e-2, abs=2e-3)  # float16 maps
    assert found["second_like_first"].dims == ("cell_y", "cell_x", "y", "x")
    values = found["second_like_first"].values
    assert np.nanmax(np.abs(values)) <= 1 + 1e-6
    itself = run.explain.pair(checkpoint, first, first)["second_like_first"].values.reshape(64, 64)
    if checkpoint == "net_000":  # under bilinear sampling a photo's cell is a mean over several
        read = np.isfinite(np.diagonal(itself))
        np.testing.assert_allclose(np.diagonal(itself)[read], 1, atol=1e-6)
