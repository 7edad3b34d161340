"""What checkpoints are called: never two alike, and no longer than it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.labels import CheckpointName, distinct_labels, is_a_course, series_of

TEXT = st.text("ab 1(),", max_size=4)
CHECKPOINTS = st.lists(
    st.builds(CheckpointName, TEXT, st.sampled_from([None, -1, 0, 1, 119]), TEXT, TEXT), max_size=8, unique_by=lambda one: (one.name, one.digest)
)


@given(CHECKPOINTS)
def test_labels_are_always_distinct(checkpoints):
    labels = distinct_labels(checkpoints)
    assert len(labels) == len(checkpoints) and len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("checkpoints", "labels"),
    [
        ([("net_init", -1, "a"), ("net_004", 4, "a")], ["untrained", "epoch 4"]),
        ([("net_119", 119, "seed1"), ("b-net_119", 119, "seed2")], ["epoch 119 (seed1)", "epoch 119 (seed2)"]),
        ([("net_3", 3, "seed1"), ("net_7", 7, "seed1"), ("b-net_7", 7, "seed2")], ["epoch 3 (seed1)", "epoch 7 (seed1)", "epoch 7 (seed2)"]),
        ([("net_3", 3, "seed1"), ("net_7", 7, "seed2")], ["epoch 3", "epoch 7"]),
        ([("net_119_seed1", 119, "runs"), ("net_119_seed2", 119, "runs")], ["epoch 119 (net_119_seed1)", "epoch 119 (net_119_seed2)"]),
        ([("univ1652", None, "runs"), ("net_1", 1, "runs")], ["univ1652", "epoch 1"]),
        ([("net_1", 1, "", "aaaaaaaaaa"), ("net_1", 1, "", "bbbbbbbbbb")], ["epoch 1 (net_1, aaaaaaaa)", "epoch 1 (net_1, bbbbbbbb)"]),
    ],
)
def test_the_fewest_words_that_tell_them_apart(checkpoints, labels):
    assert distinct_labels([CheckpointName(*one) for one in checkpoints]) == labels


def test_one_checkpoint_twice_is_refused():
    with pytest.raises(ValueError, match=r"two checkpoints are the same in name, epoch, series and digest \(epoch 1"):
        distinct_labels([CheckpointName("net_1", 1, "a", "d")] * 2)


def test_series_keep_their_order_and_a_course_has_no_epoch_twice():
    checkpoints = [CheckpointName("x", 1, "b"), CheckpointName("y", 1, "a"), CheckpointName("z", 2, "b")]
    assert series_of(checkpoints) == {"b": [0, 2], "a": [1]}
    assert is_a_course(checkpoints[::2]) and not is_a_course(checkpoints)
    assert is_a_course([CheckpointName("x"), CheckpointName("y")]), "without epochs they stand in the order of their names"
