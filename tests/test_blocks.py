"""Blocks, their ledger, and the stamps: what makes a half-done block impossible to mistake for a done one."""

import json
import math

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import blocks as blocks_module
from pipeline.blocks import Block, Ledger, blocks_of
from pipeline.stamps import file_digest, stamp

BLOCK = Block(1, 4, 8)


@given(st.integers(0, 200), st.integers(1, 50))
def test_blocks_cover_every_sample_once(samples, block_samples):
    blocks = blocks_of(samples, block_samples)
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(samples))
    assert [block.index for block in blocks] == list(range(math.ceil(samples / block_samples)))
    assert all(block.stop - block.start == block_samples for block in blocks[:-1])
    assert all(block.start < block.stop for block in blocks)


def test_a_block_is_an_index():
    np.testing.assert_array_equal(np.arange(10)[BLOCK.rows], [4, 5, 6, 7])


def test_an_unmarked_block_is_not_done(tmp_path):
    assert Ledger(tmp_path).record(BLOCK) == {}
    assert not Ledger(tmp_path).is_done(BLOCK, {"a": "s1"})


def test_a_marked_block_is_done_under_its_stamps_alone(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    ledger.mark(BLOCK, {"a": np.arange(4.0), "b": np.arange(4)}, {"a": "s1", "b": "s2"})
    assert ledger.is_done(BLOCK, {"a": "s1", "b": "s2"})
    assert ledger.is_done(BLOCK, {"a": "s1"})
    assert not ledger.is_done(BLOCK, {"a": "other"})
    assert not ledger.is_done(BLOCK, {"a": "s1", "c": "s3"})
    assert not ledger.is_done(Block(0, 0, 4), {"a": "s1"})


def test_a_record_of_other_rows_does_not_count(tmp_path):
    """The same block number of another block length is another block."""
    ledger = Ledger(tmp_path)
    ledger.mark(BLOCK, {"a": np.arange(4.0)}, {"a": "s1"})
    assert not ledger.is_done(Block(1, 8, 16), {"a": "s1"})
    assert not ledger.is_done(Block(1, 4, 7), {"a": "s1"})


def test_marking_one_array_keeps_the_others(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.mark(BLOCK, {"a": np.arange(4.0)}, {"a": "s1"})
    ledger.mark(BLOCK, {"b": np.arange(4.0)}, {"b": "s2"})
    assert ledger.is_done(BLOCK, {"a": "s1", "b": "s2"})
    ledger.mark(BLOCK, {"a": np.arange(4.0)}, {"a": "s3"})
    assert ledger.is_done(BLOCK, {"a": "s3", "b": "s2"})
    assert not ledger.is_done(BLOCK, {"a": "s1"})


def test_a_record_proves_what_was_written(tmp_path):
    values = np.array([1.0, np.nan, np.inf, 2.0], np.float32)
    ledger = Ledger(tmp_path)
    ledger.mark(BLOCK, {"a": values}, {"a": "s1"}, quarantined={"x": "no bytes"}, host="here")
    record = ledger.record(BLOCK)
    assert record["rows"] == [4, 8]
    assert record["quarantined"] == {"x": "no bytes"}
    assert record["arrays"]["a"] == {"stamp": "s1", "crc32c": google_crc32c.value(values.tobytes()), "bytes": 16, "non_finite": 2}


@pytest.mark.parametrize("length", [0, 1, 30, -2])
def test_a_half_written_record_is_no_record(tmp_path, length):
    ledger = Ledger(tmp_path)
    ledger.mark(BLOCK, {"a": np.arange(4.0)}, {"a": "s1"})
    (path,) = tmp_path.glob("*.json")
    path.write_text(path.read_text()[:length])
    assert not ledger.is_done(BLOCK, {"a": "s1"})


def test_a_kill_before_the_record_is_in_place_leaves_none(tmp_path, monkeypatch):
    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(blocks_module.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        Ledger(tmp_path).mark(BLOCK, {"a": np.arange(4.0)}, {"a": "s1"})
    assert Ledger(tmp_path).record(BLOCK) == {}


def test_a_kill_while_marking_again_leaves_the_old_record(tmp_path, monkeypatch):
    def killed(descriptor):
        raise KeyboardInterrupt

    ledger = Ledger(tmp_path)
    ledger.mark(BLOCK, {"a": np.arange(4.0)}, {"a": "s1"})
    monkeypatch.setattr(blocks_module.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        ledger.mark(BLOCK, {"b": np.arange(4.0)}, {"b": "s1"})
    assert ledger.is_done(BLOCK, {"a": "s1"})
    assert not ledger.is_done(BLOCK, {"b": "s1"})


def test_clearing_forgets_every_block(tmp_path):
    ledger = Ledger(tmp_path)
    for block in blocks_of(10, 4):
        ledger.mark(block, {"a": np.arange(4.0)}, {"a": "s1"})
    ledger.clear()
    assert not any(ledger.is_done(block, {"a": "s1"}) for block in blocks_of(10, 4))


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.lists(st.text(max_size=3), max_size=3), min_size=2))
def test_a_stamp_does_not_depend_on_the_order_of_keys(ingredients):
    turned = dict(reversed(ingredients.items()))
    assert stamp({"a": ingredients, "b": 1}) == stamp({"b": 1, "a": turned})


def test_a_stamp_depends_on_every_value():
    variants = [{"a": 1}, {"a": 2}, {"a": "1"}, {"a": [1]}, {"a": None}, {"a": {}}, {"b": 1}, {"a": 1, "b": None}, {"a": [1, 2]}, {"a": [2, 1]}]
    assert len({stamp(variant) for variant in variants}) == len(variants)


def test_a_stamp_survives_the_way_through_a_store():
    """Settings come back from JSON with lists for tuples; that must not make a store stale."""
    ingredients = {"blocks": (0, 1), "share": 0.1, "text": "ä"}
    assert stamp(ingredients) == stamp(json.loads(json.dumps(ingredients)))
    assert len(stamp(ingredients)) == 32  # 128 bits


def test_a_file_digest_is_that_of_the_bytes(tmp_path):
    for name, content in (("a", b"same"), ("b", b"same"), ("c", b"Same")):
        (tmp_path / name).write_bytes(content)
    digests = [file_digest(tmp_path / name) for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
