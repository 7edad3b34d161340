"""The stage table is one way, the executors are interchangeable, and checkpoints have an order."""

import threading
import time

import pytest

from pipeline.run.outcome import Outcome
from pipeline.settings.compute import ComputeSettings
from pipeline.settings.jobs import UNCUT
from pipeline.stages import OPTIONAL_STAGES, STAGES, Stage, check_one_way
from pipeline.store.groups import checkpoint_order
from pipeline.work.executors import EXECUTORS, run_blocks


def stage(name, reads, writes):
    return Stage(name, "", lambda run: Outcome(name, 0, 0, "things"), reads, writes, "cpu")


def test_the_stages_are_those_of_the_design():
    assert [stage.name for stage in STAGES] == ["index", "extract", "cam", "stats", "render", "report"]
    assert [stage.name for stage in STAGES if stage.worker == "gpu"] == ["extract"]
    check_one_way(STAGES)


def test_a_stage_that_reads_what_comes_later_is_refused():
    with pytest.raises(ValueError, match="stage cam reads features, which no earlier stage writes"):
        check_one_way([stage("cam", ("features",), "cams"), stage("extract", ("images",), "features")])


def test_a_stage_that_reads_its_own_product_is_refused():
    with pytest.raises(ValueError, match="stage cam reads cams, which no earlier stage writes"):
        check_one_way([stage("cam", ("cams",), "cams")])


def test_two_writers_of_one_product_are_refused():
    with pytest.raises(ValueError, match="stage copy writes manifest, which an earlier stage writes already"):
        check_one_way([stage("index", ("images",), "manifest"), stage("copy", ("manifest",), "manifest")])


def test_a_stage_that_writes_its_input_is_refused():
    with pytest.raises(ValueError, match="stage train writes checkpoints"):
        check_one_way([stage("train", ("images",), "checkpoints")])


def test_an_outcome_says_when_there_was_nothing_to_do():
    assert str(Outcome("cam", 0, 6, "maps")) == "cam: nothing to compute, 6 up to date"
    assert str(Outcome("cam", 2, 4, "maps", ("left out",))) == "cam: 2 maps computed, 4 up to date\n  left out"


@pytest.mark.parametrize("executor", [name for name, row in EXECUTORS.items() if row.run_here])
def test_results_come_in_the_items_order(executor):
    def work(item):
        time.sleep(0.002 * (item % 3))
        return item * item

    items = list(range(25))  # more than a wave of 2 workers
    assert list(run_blocks(ComputeSettings(executor=executor, workers=2), work, items)) == [item * item for item in items]
    assert list(run_blocks(ComputeSettings(executor=executor, workers=2), work, [])) == []


@pytest.mark.parametrize("executor", [name for name, row in EXECUTORS.items() if row.run_here])
def test_the_fault_of_an_item_reaches_the_caller(executor):
    def work(item):
        if item == 3:
            raise ValueError("block 3 is damaged")
        return item

    with pytest.raises(ValueError, match="block 3 is damaged"):
        list(run_blocks(ComputeSettings(executor=executor, workers=2), work, range(6)))


def test_threads_work_at_the_same_time_and_no_more_than_asked_for():
    lock, running, most = threading.Lock(), [0], [0]

    def work(item):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1

    list(run_blocks(ComputeSettings(workers=2), work, range(12)))
    assert most[0] == 2


def test_results_stream_out_before_all_items_are_done():
    """Memory stays flat: the first result is there before the last item was taken."""
    seen = []
    results = run_blocks(ComputeSettings(workers=1), lambda item: seen.append(item) or item, range(100))
    assert next(results) == 0
    assert len(seen) < 20


def test_checkpoints_are_ordered_by_series_epoch_and_name_and_those_without_come_last():
    epochs = {"net_10": 10, "net_9": 9, "net_init": -1, "last": None, "b-net_9": 9, "best": None, "net_0": 0}
    told = {name: {"series": "a", "epoch": epoch} for name, epoch in epochs.items()}
    told |= {"b_0": {"series": "b", "epoch": 0}, "old_1": {"epoch": 1}}  # an earlier version noted no series
    assert checkpoint_order(told) == ["net_init", "net_0", "b-net_9", "net_9", "net_10", "best", "last", "b_0", "old_1"]


def test_the_job_file_refuses_parts_of_the_stages_that_have_none():
    assert set(UNCUT) == {stage.name for stage in (*STAGES, *OPTIONAL_STAGES) if not stage.has_parts}
