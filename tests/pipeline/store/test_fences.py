"""Fences: who was given work by a call that is over writes nothing more, and what it marks too late does not count."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from object_server import place_in_memory

from pipeline.disk import records
from pipeline.store import fences
from pipeline.store.fences import Fence, RaisedFenceError, lowest_numbers, raise_fence
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import known_groups
from pipeline.store.layout import array_layout
from pipeline.store.tables import dataset_seal, read_dataset, write_dataset
from stages.schema import Variable

HEAT = np.arange(10 * 3 * 3, dtype=np.float32).reshape(10, 3, 3)
FIGURES = xr.Dataset({"mean": ("group", np.arange(3.0))})
STAMPS = {"heat": "s1"}


@pytest.fixture(params=["disk", "object store"])
def store(request, tmp_path):
    return laid_out(tmp_path if request.param == "disk" else place_in_memory())


def laid_out(place):
    made = GroupStore(place / "cams.zarr", "net_000")
    variable = Variable("heat", ("sample", "y", "x"), "float32", "heat")
    made.lay_out(10, 4, {}, [array_layout(variable, "float32", {"sample": 10, "y": 3, "x": 3}, 4)])
    return made


def write(store, number, fence=None):
    block = store.blocks[number]
    store.write_block(block, {"heat": HEAT[block.rows]}, STAMPS, fence)


def marked(store):
    return [block.index for block in store.blocks if store.ledger.is_done(block, STAMPS)]


def test_a_store_has_no_fence_until_one_is_raised(store):
    assert store.fence == Fence(store.ledger.directory, 0)
    write(store, 0, store.fence)
    assert marked(store) == [0]


def test_a_worker_of_an_earlier_call_is_refused_before_it_writes(store):
    earlier = store.take_over()
    write(store, 0, earlier)
    store.take_over()
    with pytest.raises(RaisedFenceError, match=r"cams/net_000: another call has begun to write this since this work was given out.* call again"):
        write(store, 1, earlier)
    assert store.held_blocks(["heat"]) == {0}
    assert marked(store) == [0]


def test_a_fence_travels_with_the_work(store):
    fence = store.take_over()
    assert pickle.loads(pickle.dumps(fence)) == fence == store.fence


def test_the_number_rises_though_the_clock_stands_still(store, monkeypatch):
    monkeypatch.setattr(fences.time, "time_ns", lambda: 10**15)
    numbers = [store.take_over().number for _ in range(3)]
    assert numbers == [10**12, 10**12 + 1, 10**12 + 2]


def test_a_store_that_is_made_again_has_another_number(store):
    before = store.take_over()
    (store.ledger.directory / "fence.json").unlink()
    with pytest.raises(RaisedFenceError):
        before.check()
    raise_fence(store.ledger.directory)
    with pytest.raises(RaisedFenceError):
        before.check()


def test_a_damaged_fence_lets_nothing_through_and_keeps_what_is_marked(store):
    fence = store.take_over()
    write(store, 0, fence)
    (store.ledger.directory / "fence.json").write_bytes(b"{}\n00000000\n")
    with pytest.raises(RaisedFenceError):
        write(store, 1, fence)
    assert marked(store) == [0]


@pytest.mark.parametrize("late", ["c.0.0.0", "000000.json"])
def test_a_worker_that_was_suspended_right_before_a_rename_finds_its_file_swept(tmp_path, monkeypatch, late):
    """After its last look at the fence, and before the name of a file or of the mark appears."""
    store, replace = laid_out(tmp_path), Path.replace
    earlier = store.take_over()

    def taken_over_meanwhile(self, target):
        if target.name == late:
            raise_and_sweep()
        return replace(self, target)

    def raise_and_sweep():
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            GroupStore(store.path, store.name).take_over()

    monkeypatch.setattr(Path, "replace", taken_over_meanwhile)
    with pytest.raises(FileNotFoundError, match=f"{late}.*partial"):
        write(store, 0, earlier)
    assert marked(store) == []
    assert not list(tmp_path.rglob(late))


def test_a_mark_that_comes_after_the_sweep_does_not_count(store, monkeypatch):
    """A put that was under way when the fence was raised."""
    earlier = store.take_over()
    write(store, 0, earlier)
    store.take_over(store.blocks[1:])
    with monkeypatch.context() as patch:
        patch.setattr(Fence, "check", lambda self: None)
        write(store, 1, earlier)
    assert marked(store) == [0]
    assert store.ledger.records(store.blocks)[1] == store.ledger.record_of(1) == store.ledger.shorter_record(store.blocks[1]) == {}
    write(store, 1, store.fence)
    assert marked(store) == [0, 1]
    with monkeypatch.context() as patch:
        patch.setattr(Fence, "check", lambda self: None)
        write(store, 1, earlier)  # still under way, and put over the one that counts
    assert marked(store) == [0]


def test_what_was_swept_is_kept_in_few_words(store):
    first = raise_fence(store.ledger.directory, range(1500)).number
    second = raise_fence(store.ledger.directory, [3, 700, 701, 702]).number
    floors = lowest_numbers(store.ledger.directory)
    assert {floors[index] for index in (3, 700, 701, 702)} == {second}
    assert {number for index, number in floors.items() if index not in (3, 700, 701, 702)} == {first}
    assert len(floors) == 1500
    assert len((store.ledger.directory / "fence.json").read_bytes()) < 300


def test_marks_of_earlier_versions_count_where_nothing_was_swept(store):
    write(store, 0)
    path = store.ledger.directory / "000000.json"
    records.write_record(path, {key: value for key, value in records.read_record(path).items() if key != "fence"})
    store.take_over(store.blocks[1:])
    assert marked(store) == [0]


def test_a_fence_alone_makes_no_group(tmp_path):
    """A call that was refused after it raised one leaves nothing that a reader would miss."""
    GroupStore(tmp_path / "features.zarr", "net_000").take_over()
    assert known_groups(tmp_path / "features.zarr") == []


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_figures_of_an_earlier_call_are_refused(tmp_path, monkeypatch, moment):
    path, ledger = tmp_path / "stats.zarr", tmp_path / "ledger" / "stats"
    write_dataset(path, "net_000", FIGURES, {"stamp": "s1"})
    earlier = raise_fence(ledger)
    if moment == "before":
        raise_fence(ledger)
    else:
        monkeypatch.setattr("pipeline.store.tables.remove_tree", lambda root: raise_fence(ledger))
    with pytest.raises(RaisedFenceError, match="ledger/stats: another call has begun to write this"):
        write_dataset(path, "net_000", FIGURES + 1, {"stamp": "s2"}, earlier)
    monkeypatch.undo()
    if moment == "before":
        xr.testing.assert_identical(read_dataset(path, "net_000").drop_attrs(), FIGURES)
    else:
        assert dataset_seal(path, "net_000").is_open  # not finished: to be made again
