"""Blocks, their ledger, and the stamps: what makes a half-done block impossible to mistake for a done one."""

import json
import math
import os
import shutil
import time
from datetime import datetime

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.disk import records
from pipeline.disk.records import DamagedRecordError
from pipeline.disk.stamps import difference, file_digest, stamp
from pipeline.store.blocks import Block, Ledger, blocks_of, proof_of, runs_of

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


def mark(ledger, block, *names, stamp="s1", **notes):
    ledger.mark(block, {name: proof_of(np.arange(4.0)) for name in names}, dict.fromkeys(names, stamp), **notes)


def test_an_unmarked_block_is_not_done(tmp_path):
    assert Ledger(tmp_path).record(BLOCK) == {}
    assert not Ledger(tmp_path).is_done(BLOCK, {"a": "s1"})


def test_a_marked_block_is_done_under_its_stamps_alone(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    ledger.mark(BLOCK, {"a": proof_of(np.arange(4.0)), "b": proof_of(np.arange(4))}, {"a": "s1", "b": "s2"})
    assert ledger.is_done(BLOCK, {"a": "s1", "b": "s2"})
    assert ledger.is_done(BLOCK, {"a": "s1"})
    assert not ledger.is_done(BLOCK, {"a": "other"})
    assert not ledger.is_done(BLOCK, {"a": "s1", "c": "s3"})
    assert not ledger.is_done(Block(0, 0, 4), {"a": "s1"})


def test_a_block_is_done_of_its_images_alone(tmp_path):
    ledger = Ledger(tmp_path)
    mark(ledger, BLOCK, "a", images=["x", "y"])
    assert ledger.is_done(BLOCK, {"a": "s1"}, images=["x", "y"])
    assert not ledger.is_done(BLOCK, {"a": "s1"}, images=["x", "z"])
    assert ledger.is_done(BLOCK, {"a": "s1"}, images=None)


def test_a_record_of_other_rows_does_not_count(tmp_path):
    """The same block number of another block length is another block; of a smaller dataset, a shorter one."""
    ledger = Ledger(tmp_path)
    mark(ledger, BLOCK, "a")
    assert not ledger.is_done(Block(1, 8, 16), {"a": "s1"})
    assert not ledger.is_done(Block(1, 4, 7), {"a": "s1"})
    assert ledger.shorter_record(Block(1, 4, 10))["rows"] == [4, 8]
    assert ledger.shorter_record(BLOCK) == {}
    assert ledger.shorter_record(Block(1, 5, 10)) == {}


def test_marking_one_array_keeps_the_others(tmp_path):
    ledger = Ledger(tmp_path)
    mark(ledger, BLOCK, "a")
    mark(ledger, BLOCK, "b")
    assert ledger.is_done(BLOCK, {"a": "s1", "b": "s1"})
    mark(ledger, BLOCK, "a", stamp="s3")
    assert ledger.is_done(BLOCK, {"a": "s3", "b": "s1"})
    assert not ledger.is_done(BLOCK, {"a": "s1"})


def test_marking_an_array_made_of_something_else_drops_the_others(tmp_path):
    ledger = Ledger(tmp_path)
    mark(ledger, BLOCK, "a", made_of="these features")
    mark(ledger, BLOCK, "b", made_of="those features")
    assert ledger.is_done(BLOCK, {"b": "s1"}, made_of="those features")
    assert not ledger.is_done(BLOCK, {"a": "s1"})


def test_a_record_proves_what_was_written_and_tells_by_whom(tmp_path):
    values = np.array([1.0, np.nan, np.inf, 2.0], np.float32)
    ledger = Ledger(tmp_path)
    ledger.mark(BLOCK, {"a": proof_of(values)}, {"a": "s1"}, quarantined={"x": "no bytes"})
    record = ledger.record(BLOCK)
    assert record["rows"] == [4, 8]
    assert record["quarantined"] == {"x": "no bytes"}
    proof = {"stamp": "s1", "crc32c": google_crc32c.value(values.tobytes()), "bytes": 16}
    assert record["arrays"]["a"] == {**proof, "non_finite": 2, "odd_rows": [1, 2], "infinite": 1, "infinite_rows": [2]}
    assert record["pid"] == os.getpid()
    assert record["host"]
    assert datetime.fromisoformat(record["finished"]).tzinfo is not None


@pytest.mark.parametrize("values", [[1, np.nan, -np.inf], [65504, 1, 2], [6e-8, 0, -0.0]])
def test_half_precision_values_that_are_not_finite_are_counted(values):
    values = np.array(values, np.float16)
    proof, odd = proof_of(values), np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    assert proof["non_finite"] == np.count_nonzero(~np.isfinite(values))
    assert proof.get("odd_rows", []) == ("all" if len(odd) == len(values) > 0 else odd.tolist())


@pytest.mark.parametrize("is_copy", [False, True])
def test_a_mark_that_comes_after_the_note_of_the_whole_is_noticed(tmp_path, is_copy):
    """The folder tells, or the times of the marks: a copy keeps these, and its names have come to be since."""
    ledger = Ledger(tmp_path / "written")
    mark(ledger, BLOCK, "a")
    time.sleep(0.02)  # several ticks of a file system's clock
    ledger.mark_whole({"features": "x"})
    assert read_again(ledger, is_copy).is_older_than_whole
    time.sleep(0.02)
    mark(ledger, Block(2, 8, 12), "a")
    assert not read_again(ledger, is_copy).is_older_than_whole
    ledger.forget_whole()
    assert not read_again(ledger, is_copy).is_older_than_whole


def test_the_folder_alone_tells_that_no_mark_came_later(tmp_path, monkeypatch):
    """Unless its time is a tick later than that of the note, which happens once in a thousand times."""
    ledger = Ledger(tmp_path / "written")
    mark(ledger, BLOCK, "a")
    monkeypatch.setattr(Ledger, "latest", lambda ledger: None)
    for attempt in range(5):
        ledger.mark_whole({"attempt": attempt})
        if ledger.is_older_than_whole:
            break
    else:
        pytest.fail("the marks were looked at each time")


def read_again(ledger, is_copy) -> Ledger:
    """The ledger, or its copy when it is ten seconds old."""
    if not is_copy:
        return Ledger(ledger.directory)
    copy = ledger.directory.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ledger.directory, copy)
    for path in (*copy.iterdir(), copy):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 10**10))
    return Ledger(copy)


@pytest.mark.parametrize("length", [0, 1, 30, -2])
def test_a_half_written_record_is_no_record(tmp_path, length):
    ledger = Ledger(tmp_path)
    mark(ledger, BLOCK, "a")
    (path,) = tmp_path.glob("*.json")
    path.write_text(path.read_text()[:length])
    assert not ledger.is_done(BLOCK, {"a": "s1"})


def test_no_bit_of_a_record_can_flip_unnoticed(tmp_path):
    """A flipped bit makes a mark no mark: never one of another block, stamp or checksum."""
    ledger = Ledger(tmp_path)
    mark(ledger, BLOCK, "a", images=["x", "y"])
    (path,) = tmp_path.glob("*.json")
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            assert ledger.record_of(BLOCK.index) == {}
    path.write_bytes(content)
    assert ledger.is_done(BLOCK, {"a": "s1"})
    path.write_bytes(content[:-3])
    (damage,) = ledger.records_or_errors([BLOCK.index])
    assert isinstance(damage, DamagedRecordError)
    assert "000001.json: damaged record: it does not match its checksum" in str(damage)


def test_a_kill_before_the_record_is_in_place_leaves_none(tmp_path, monkeypatch):
    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(records.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        mark(Ledger(tmp_path), BLOCK, "a")
    assert Ledger(tmp_path).record(BLOCK) == {}


def test_a_kill_while_marking_again_leaves_the_old_record(tmp_path, monkeypatch):
    def killed(descriptor):
        raise KeyboardInterrupt

    ledger = Ledger(tmp_path)
    mark(ledger, BLOCK, "a")
    monkeypatch.setattr(records.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        mark(ledger, BLOCK, "b")
    assert ledger.is_done(BLOCK, {"a": "s1"})
    assert not ledger.is_done(BLOCK, {"b": "s1"})


def test_clearing_forgets_every_block_and_sweeps_what_was_left(tmp_path):
    ledger = Ledger(tmp_path)
    for block in blocks_of(10, 4):
        mark(ledger, block, "a")
    ledger.mark_whole({"stamp": "s1"})
    (tmp_path / "000000.json.123.partial").write_text("half")
    ledger.clear()
    assert not any(ledger.is_done(block, {"a": "s1"}) for block in blocks_of(10, 4))
    assert list(tmp_path.iterdir()) == []


def test_forgetting_a_block_forgets_the_whole(tmp_path):
    ledger = Ledger(tmp_path)
    mark(ledger, BLOCK, "a", "b")
    ledger.mark_whole({"stamp": "s1"})
    assert ledger.whole() == {"stamp": "s1"}
    ledger.forget(BLOCK, ["a"])
    assert ledger.whole() == {}
    assert ledger.is_done(BLOCK, {"b": "s1"})
    assert not ledger.is_done(BLOCK, {"a": "s1"})
    ledger.forget(BLOCK)
    assert ledger.indices() == []


@pytest.mark.parametrize(
    ("numbers", "runs"), [([], []), ([3], [(3, 3)]), ([1, 2, 3, 7], [(1, 3), (7, 7)]), ([0, 2, 3, 5, 6], [(0, 0), (2, 3), (5, 6)])]
)
def test_numbers_join_into_runs(numbers, runs):
    assert list(runs_of(numbers)) == runs


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


@pytest.mark.parametrize(
    ("made", "wanted", "said"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": 1}, {"a": 2}, "a was 1, is 2"),
        ({}, {"a": 2}, "a was None, is 2"),
        ({"s": {"x": [1]}}, {"s": {"x": (1,)}}, ""),
        ({"s": {"x": 1, "y": 2}}, {"s": {"x": 1, "y": 3}}, "s.y was 2, is 3"),
        ({"d": "0" * 32}, {"d": "1" * 32}, "d changed"),
    ],
)
def test_the_ingredient_that_differs_is_named(made, wanted, said):
    assert difference(made, wanted) == said
