"""Labels of places."""

from stages.targets.scoring import label_index


def test_labels_are_positions_among_the_classes():
    assert label_index(["b", "x", "a"], ["a", "b"]).tolist() == [1, -1, 0]
