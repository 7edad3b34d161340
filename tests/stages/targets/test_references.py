"""What an image is compared with: the mean over its place, what ranks first, a named image; all places and the nearest ones beside it."""

import numpy as np
import pytest

from stages.targets.names import parse_target
from stages.targets.references import UNDEFINED, ReferenceBank, reference_embeddings, reference_groups, reference_name

ROWS = [  # place, view, split, roles, valid
    ("a", "satellite", "test", "gallery+query", True),
    ("a", "drone", "test", "gallery+query", True),
    ("a", "drone", "test", "query", True),
    ("b", "drone", "test", "gallery", True),
    ("b", "satellite", "test", "gallery", False),
    ("c", "satellite", "test", "gallery", True),
    ("c", "drone", "test", "gallery", True),
    ("c", "street", "train", "train", True),
    ("d", "satellite", "test", "gallery", True),
]
COUNT, HEADS, LENGTH = len(ROWS), 3, 4
EMBEDDING = np.random.default_rng(3).standard_normal((COUNT, HEADS, LENGTH)).astype(np.float32)
UNIT = EMBEDDING / np.linalg.norm(EMBEDDING, axis=2, keepdims=True)


@pytest.fixture
def bank() -> ReferenceBank:
    return ReferenceBank(reference_groups(*map(list, zip(*ROWS, strict=True))), lambda: iter((EMBEDDING[:4], EMBEDDING[4:])))


def of(bank, text, role, rows=slice(None), named=UNDEFINED):
    return bank.of(parse_target(text), role, rows, named)


def test_match_is_the_mean_of_the_gallery_images_of_the_place_in_the_other_view(bank):
    own = of(bank, "match", "own")
    np.testing.assert_allclose(own[0], UNIT[1], rtol=1e-6)
    np.testing.assert_allclose(own[[1, 2]], UNIT[[0, 0]], rtol=1e-6)
    assert np.isnan(own[[3, 4, 7, 8]]).all(), "b has no valid satellite image, a street view has no other view, d has no drone image"


def test_best_ranks_first_by_the_whole_descriptor(bank):
    """Brute force: the mean cosine over all heads, the global one included, among valid gallery images of the other view."""
    own = of(bank, "best", "own")
    for sample, (_, view, _, _, valid) in enumerate(ROWS):
        other = {"drone": "satellite", "satellite": "drone"}.get(view)
        gallery = [row for row, (_, v, s, roles, ok) in enumerate(ROWS) if v == other and ok and "gallery" in roles and s == "test"]
        if not gallery or not valid:
            assert np.isnan(own[sample]).all()
            continue
        best = max(gallery, key=lambda row: (UNIT[sample] * UNIT[row]).sum())
        np.testing.assert_allclose(own[sample], UNIT[best], rtol=1e-6)
    assert np.isfinite(own[[3, 8]]).all(), "an image without a true match has a best one all the same"


def test_a_named_image_is_the_same_for_all(bank):
    own = of(bank, "pair_some/id.jpg", "own", slice(2, 5), named=5)
    np.testing.assert_allclose(own, np.repeat(UNIT[5:6], 3, axis=0), rtol=1e-6)


def test_named_images_are_read_once_and_not_all_of_them_are_kept(bank, monkeypatch):
    reads = []
    monkeypatch.setattr("stages.targets.references._NAMED", 3)
    counted = ReferenceBank(bank.groups, lambda: reads.append(1) or bank.embeddings())
    for named in (5, 5, 6, 0, 5):
        np.testing.assert_allclose(of(counted, "pair_some/id.jpg", "own", slice(0, 1), named=named)[0], UNIT[named], rtol=1e-6)
    assert len(reads) == 3
    of(counted, "pair_some/id.jpg", "own", slice(0, 1), named=1)
    kept = counted._read._values
    assert sorted(kept) == [0, 1, 5]
    assert all(value.base is None for value in kept.values()), "a view would keep the embeddings of its block"


def test_all_is_the_mean_over_the_places_of_that_view_and_split(bank):
    drones = np.mean([UNIT[1], UNIT[3], UNIT[6]], axis=0)
    satellites = np.mean([UNIT[0], UNIT[5], UNIT[8]], axis=0)
    for text in ("match_contrast", "best_contrast"):
        found = of(bank, text, "all")
        np.testing.assert_allclose(found[0], drones, rtol=1e-5)
        np.testing.assert_allclose(found[1], satellites, rtol=1e-5)
    np.testing.assert_allclose(of(bank, "pair_contrast_x", "all", slice(0, 1), named=5)[0], satellites, rtol=1e-5)


@pytest.mark.parametrize("text", ["match", "best", "pair_x"])
def test_rivals_are_the_places_most_like_what_the_image_is_compared_with_its_own_left_out(bank, text):
    found, own = of(bank, text, "rivals", named=0), of(bank, text, "own", named=0)
    sample = 1  # a drone image of a: its satellite rivals are c and d
    reference = {"match": 0, "pair_x": 0}.get(text)
    if reference is None:
        reference = next(row for row in (0, 5, 8) if np.allclose(UNIT[row], own[sample]))
    others = [row for row in (0, 5, 8) if row != reference]
    np.testing.assert_allclose(found[sample], UNIT[others].mean(axis=0), rtol=1e-5)


def test_the_nearest_three_are_taken():
    rows = [("q", "drone", "test", "query", True), *((f"p{number}", "satellite", "test", "gallery", True) for number in range(6))]
    angle = np.array([0, 0.1, 0.9, 0.3, 0.5, 0.2, 1.2])
    embedding = np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None].astype(np.float32)
    bank = ReferenceBank(reference_groups(*map(list, zip(*rows, strict=True))), lambda: iter((embedding,)))
    np.testing.assert_allclose(of(bank, "best", "own", slice(0, 1))[0], embedding[1], rtol=1e-6)
    np.testing.assert_allclose(of(bank, "best", "rivals", slice(0, 1))[0], embedding[[5, 3, 4]].mean(axis=0), rtol=1e-5)


def test_rows_are_those_asked_for(bank):
    for text in ("match", "best_contrast"):
        for role in ("own", "all", "rivals"):
            np.testing.assert_array_equal(of(bank, text, role, slice(2, 6)), of(bank, text, role)[2:6])


def test_names_tell_references_apart():
    texts = ("match", "match.flip", "best", "pair_a", "pair_b")
    names = {reference_name(parse_target(text), role) for text in texts for role in ("own", "all", "rivals")}
    assert len(names) == 15
    assert reference_name(parse_target("match_share.part_1"), "own") == reference_name(parse_target("match"), "own"), "one reading is enough"


def test_nothing_to_be_compared_with():
    rows = [("a", "drone", "test", "query", True)]
    bank = ReferenceBank(reference_groups(*map(list, zip(*rows, strict=True))), lambda: iter((EMBEDDING[:1],)))
    assert np.isnan(of(bank, "match", "own")).all()
    assert np.isnan(of(bank, "best", "own")).all()


def test_reference_is_the_mean_unit_embedding():
    first, second = np.array([0, 1, 0, -1, 1, 0]), np.array([-1, 0, -1, -1, -1, -1])  # the second serves two groups
    member = np.stack([first, second], axis=1)
    blocks = [(EMBEDDING[:2], member[:2]), (EMBEDDING[2:6], member[2:])]
    expected = np.stack([UNIT[:6][(first == number) | (second == number)].mean(axis=0) for number in (0, 1)])
    np.testing.assert_allclose(reference_embeddings(blocks, 2), expected, rtol=1e-6)
    bad = EMBEDDING[:6].copy()
    bad[4, 1, 0] = np.inf
    found = reference_embeddings([(bad, member)], 2)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], UNIT[1], rtol=1e-6, err_msg="what is not finite is left out")
    bad[1] = np.nan
    assert np.isnan(reference_embeddings([(bad, member)], 2)[1]).all(), "and a group of which none is left is not there"
    assert reference_embeddings([], 0).shape == (0, 0, 0)


def test_a_training_place_in_the_test_gallery_serves_both():
    """SUES-200's distractors, and a tile that GTA-UAV lists for training and for testing: a test photo of that place has its match."""
    rows = [
        ("t", "satellite", "train", "train+gallery", True),
        ("t", "drone", "train", "train", True),
        ("t", "drone", "test", "query", True),
        ("u", "satellite", "test", "gallery", True),
        ("u", "drone", "test", "query", True),
    ]
    embedding = EMBEDDING[:5]
    bank = ReferenceBank(reference_groups(*map(list, zip(*rows, strict=True))), lambda: iter((embedding,)))
    own = of(bank, "match", "own")
    np.testing.assert_allclose(own[[1, 2]], UNIT[[0, 0]], rtol=1e-6)
    np.testing.assert_allclose(of(bank, "match_contrast", "all")[2], UNIT[[0, 3]].mean(axis=0), rtol=1e-6)
    scores = (UNIT[2] * UNIT[[0, 3]]).sum(axis=(1, 2)) / HEADS
    best = [0, 3][int(scores.argmax())]
    np.testing.assert_allclose(of(bank, "best", "own")[2], UNIT[best], rtol=1e-6)
    found = bank.ranked(2)
    assert (found.first, found.true, found.rank) == (best, 0, 1 + int(scores[1] > scores[0]))
    assert found.first_score == pytest.approx(scores.max()) and found.true_score == pytest.approx(scores[0])
    np.testing.assert_allclose(of(bank, "best_contrast", "all")[2], UNIT[[0, 3]].mean(axis=0), rtol=1e-6, err_msg="the family that was ranked")


def test_what_is_not_finite_ranks_nowhere(bank):
    bad = EMBEDDING.copy()
    bad[[0, 1]] = np.nan
    poisoned = ReferenceBank(bank.groups, lambda: iter((bad,)))
    assert poisoned.best[1] == UNDEFINED and poisoned.ranked(1) is None
    assert 0 not in poisoned.best.tolist() and poisoned.ranked(6).first != 0
