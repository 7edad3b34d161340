"""Recall and AP against the golden evaluation and a slow twin."""

from pathlib import Path

import numpy as np
import pytest
import torch

from safenet.model import descriptor
from stages.stats.gallery import Gallery, in_memory
from stages.stats.retrieval import descriptors, retrieval_metrics, search

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "eval_metrics.npz")  # computed with the published evaluation code


def test_golden_evaluation():
    """41 queries, 185 gallery items, five of them junk (label -1)."""
    found = retrieval_metrics(GOLDEN["query_f"], GOLDEN["query_label"].astype(str), GOLDEN["gallery_f"], GOLDEN["gallery_label"].astype(str))
    expected = {
        "recall_1": "recall1",
        "recall_5": "recall5",
        "recall_10": "recall10",
        "recall_top1pct": "recall_top1pct",
        "average_precision": "AP",
    }
    assert {name: 100 * value for name, value in found.items()} == pytest.approx(
        {name: float(GOLDEN[key]) for name, key in expected.items()}, abs=1e-4
    )


def slow(query, query_place, gallery, gallery_place):
    first, precision = [], []
    for vector, place in zip(query, query_place, strict=True):
        order = sorted(range(len(gallery)), key=lambda index: (-float(gallery[index] @ vector), index))
        hits = [rank for rank, index in enumerate(order) if gallery_place[index] == place]
        first.append(hits[0] if hits else np.inf)
        terms = []
        for number, rank in enumerate(hits):
            before = number / rank if rank else 1.0
            terms.append(((number + 1) / (rank + 1) + before) / 2)
        precision.append(np.mean(terms) if terms else 0)
    return {"recall_1": np.mean(np.array(first) < 1), "recall_5": np.mean(np.array(first) < 5), "average_precision": np.mean(precision)}


def test_slow_twin():
    rng = np.random.default_rng(0)
    query, gallery = rng.standard_normal((300, 6)).astype(np.float32), rng.standard_normal((90, 6)).astype(np.float32)
    places = [str(number) for number in rng.integers(0, 30, 90)]
    asked = [str(number) for number in rng.integers(0, 35, 300)]  # some have no match
    found = retrieval_metrics(query, asked, gallery, places)
    for name, value in slow(query, asked, gallery, places).items():
        assert found[name] == pytest.approx(value), name


def slow_search(vectors, places, asked, offered):
    """One query after the other, with sorted lists."""
    rows = []
    for query in asked:
        scored = sorted((-float(vectors[image] @ vectors[query]), position, image) for position, image in enumerate(offered))
        true = [(rank, -score) for rank, (score, _, image) in enumerate(scored) if places[image] == places[query]]
        false = [-score for score, _, image in scored if places[image] != places[query]]
        terms = [((hit + 1) / (rank + 1) + (hit / rank if rank else 1.0)) / 2 for hit, (rank, _) in enumerate(true)]
        rows.append([
            true[0][0] + 1 if true else np.nan,
            np.mean(terms) if true else 0,
            true[0][1] - false[0] if true and false else np.nan,
            scored[0][2],
        ])  # fmt: skip
    return np.array(rows)


@pytest.mark.parametrize("places", [12, 40, 1])
def test_every_figure_of_a_query_against_its_slow_twin(places, monkeypatch):
    """Small whole numbers make many equal scores; of 40 places some have no gallery image, and of one place nothing is false."""
    monkeypatch.setattr("stages.stats.retrieval._AT_ONCE", 7)
    monkeypatch.setattr("stages.stats.retrieval._KEPT_IMAGES", 50)
    rng = np.random.default_rng(places)
    vectors = rng.integers(-1, 2, (150, 5)).astype(np.float32)
    place = rng.integers(0, places, 150)
    asked, offered = np.arange(0, 60), np.arange(60, 150)
    found = search(lambda rows: vectors[rows], place, asked, offered)
    np.testing.assert_allclose(found, slow_search(vectors, place, asked, offered), rtol=1e-12)
    assert np.isnan(found[:, 2]).all() == (places == 1)


def test_figures_of_queries_both_ways_against_the_slow_twin():
    """Views alternate; one image is junk, one not finite, one is not looked at, and some only ask or are only looked for."""
    rng = np.random.default_rng(3)
    embedding = rng.standard_normal((40, 3, 4)).astype(np.float32)
    place = [str(number) for number in rng.integers(0, 6, 40)]
    view = ["drone", "satellite"] * 20
    roles = ["query+gallery"] * 30 + ["query", "query", "gallery", "gallery"] + [""] * 6
    valid = [number != 4 for number in range(40)]
    place[7], embedding[9, 1, 2] = "-1", np.nan
    found = Gallery.of(in_memory(embedding), place, view, roles, valid).figures()
    vectors = embedding.reshape(40, 12) / np.repeat(np.linalg.norm(embedding, axis=2), 4, axis=1)
    usable = [number for number in range(40) if valid[number] and number != 9]
    expected = np.full((40, 4), np.nan)
    for asking, looked_for in (("drone", "satellite"), ("satellite", "drone")):
        asked = [n for n in usable if view[n] == asking and "query" in roles[n]]
        offered = [n for n in usable if view[n] == looked_for and "gallery" in roles[n] and place[n] != "-1"]
        expected[asked] = slow_search(vectors / 3**0.5, place, asked, offered)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_equal_scores_keep_the_gallerys_order():
    same = np.ones((3, 2), np.float32)
    assert retrieval_metrics(same[:1], ["b"], same, ["a", "b", "c"])["recall_1"] == 0
    assert retrieval_metrics(same[:1], ["a"], same, ["a", "b", "c"])["recall_1"] == 1


def test_descriptors_are_the_models():
    embedding = np.random.default_rng(0).standard_normal((4, 5, 7)).astype(np.float32)
    expected = descriptor(torch.from_numpy(embedding).transpose(1, 2))
    found = descriptors(embedding)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
