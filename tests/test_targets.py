"""Labels, reference groups and mean unit embeddings."""

import numpy as np
import pytest

from stages.references import reference_embeddings, reference_groups
from stages.targets import label_index

ROWS = [  # place, view, split, roles, valid
    ("a", "satellite", "test", "gallery+query", True),
    ("a", "drone", "test", "gallery+query", True),
    ("a", "drone", "test", "query", True),
    ("b", "drone", "test", "gallery", True),
    ("b", "satellite", "test", "gallery", False),
    ("c", "satellite", "train", "train", True),
    ("c", "drone", "train", "train", True),
    ("c", "street", "train", "train", True),
]


def groups():
    return reference_groups(*map(list, zip(*ROWS, strict=True)))


def test_an_image_is_compared_with_the_gallery_of_its_place_in_the_other_view():
    found = groups()
    members = {index: [row for row in range(len(ROWS)) if found.member[row] == number] for index, number in enumerate(found.wanted) if number >= 0}
    assert members == {0: [1], 1: [0], 2: [0], 5: [6], 6: [5]}, "b has no valid satellite image, a street view has no other view"


def test_reference_is_the_mean_unit_embedding():
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((6, 2, 3)).astype(np.float32)
    member = np.array([0, 1, 0, -1, 1, 0])
    blocks = [(embedding[:2], member[:2]), (embedding[2:], member[2:])]
    unit = embedding / np.linalg.norm(embedding, axis=2, keepdims=True)
    expected = np.stack([unit[member == number].mean(axis=0) for number in (0, 1)])
    np.testing.assert_allclose(reference_embeddings(blocks, 2), expected, rtol=1e-6)


def test_labels_are_positions_among_the_classes():
    assert label_index(["b", "x", "a"], ["a", "b"]).tolist() == [1, -1, 0]


def test_no_group_at_all():
    assert reference_embeddings([], 0).shape == (0, 0, 0)


def test_roles_are_read_as_words():
    with pytest.raises(ValueError, match="zip"):
        reference_groups(["a"], ["drone"], ["test"], ["query"], [])
