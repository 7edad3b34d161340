"""Recall and AP against the golden evaluation and a slow twin."""

from pathlib import Path

import numpy as np
import pytest
import torch

from safenet.model import descriptor
from stages.stats.retrieval import descriptors, retrieval_metrics

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
