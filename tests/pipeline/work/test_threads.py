"""Threads of one process: results in order, no pause between items, a bounded window; a failure or a stop ends them all."""

import os
import signal
import threading
import time

import pytest
from threadpoolctl import threadpool_info

from pipeline.settings.compute import ComputeSettings
from pipeline.stats.stage import StatsStage, stats
from pipeline.work import threads as threads_module
from pipeline.work.executors import run_batches, run_blocks
from pipeline.work.pieces import Batch
from pipeline.work.stops import Stopped, check_stop, stop_on_signals

TWO = ComputeSettings(executor="threads", workers=2)
SOON_S = 10  # far more than anything here takes


class Function:
    """A function as a stage's work."""

    def __init__(self, function):
        self._function = function

    def open(self, tell):
        return self._function


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    assert [thread for thread in threading.enumerate() if thread not in before and not thread.daemon] == []


def of_groups(function, groups, tmp_path):
    return run_batches(TWO, Function(function), groups, directory=tmp_path, say=print)


def test_a_slow_item_holds_up_none_of_those_behind_it():
    """The eighth of a window of eight waits for the tenth, which has to begin while the eighth goes on."""
    begun = threading.Event()

    def work(item):
        if item == 9:
            begun.set()
        return item if item != 7 else begun.wait(SOON_S) and item

    assert list(run_blocks(TWO, work, range(12))) == list(range(12))


def test_a_group_does_not_wait_for_the_end_of_the_one_before(tmp_path):
    begun = threading.Event()

    def work(item):
        if item == "first of b":
            begun.set()
        return item != "last of a" or begun.wait(SOON_S)

    groups = [Batch("a", ["first of a", "last of a"]), Batch("empty", []), Batch("b", ["first of b", "last of b"])]
    done = list(of_groups(work, groups, tmp_path))
    assert [(one.batch, one.item) for one in done] == [(group.name, item) for group in groups for item in group.items]
    assert all(one.result for one in done)


def test_a_group_of_one_piece_has_the_calling_thread_to_itself(tmp_path):
    groups = [Batch("a", [1, 2]), Batch("b", [3]), Batch("c", [4, 5])]
    done = {one.item: one.result for one in of_groups(lambda item: threading.current_thread(), groups, tmp_path)}
    assert [item for item, thread in done.items() if thread is threading.main_thread()] == [3]


def test_no_more_is_taken_than_the_window_holds():
    taken, most, results = [], 0, 0

    def items():
        for item in range(50):
            taken.append(item)
            yield item

    for _ in run_blocks(TWO, lambda item: item, items()):
        results += 1
        most = max(most, len(taken) - results)
    assert results == 50
    assert most == threads_module.WINDOW * 2


def test_a_failure_is_raised_behind_the_results_before_it_and_nothing_is_begun_after_it():
    begun, failed = [], threading.Event()

    def work(item):
        begun.append(item)
        if item == 1:
            failed.set()
            raise ValueError("block 1 is damaged")
        assert failed.wait(SOON_S)
        time.sleep(0.1)
        return item

    found = run_blocks(TWO, work, range(40))
    assert next(found) == 0
    with pytest.raises(ValueError, match=r"^block 1 is damaged$"):
        next(found)
    assert begun == [0, 1]


def test_what_makes_the_items_may_fail():
    def items():
        yield from range(10)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(run_blocks(TWO, lambda item: item, items()))


def test_a_signal_ends_what_is_at_work_and_begins_nothing_more():
    begun = []

    def work(item):
        begun.append(item)
        if item == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        while item >= 2:
            check_stop()
            time.sleep(0.01)
        return item

    with stop_on_signals(), pytest.raises(Stopped, match="SIGTERM"):
        list(run_blocks(TWO, work, range(100)))
    assert begun == [0, 1, 2, 3]


def test_closed_early_it_waits_for_what_is_at_work():
    ended = []

    def work(item):
        time.sleep(0.05 * item)
        ended.append(item)

    found = run_blocks(TWO, work, range(100))
    next(found)
    found.close()
    assert ended in ([0, 1], [0, 1, 2])


def test_libraries_are_limited_to_one_thread_once_a_stage(tmp_path, monkeypatch):
    limited, original = [], threads_module.threadpool_limits
    monkeypatch.setattr(threads_module, "threadpool_limits", lambda *limits: limited.append(limits) or original(*limits))
    before = [pool["num_threads"] for pool in threadpool_info()]
    groups = [Batch(f"{number}", list(range(10))) for number in range(5)]
    found = [one.result for one in of_groups(lambda item: [pool["num_threads"] for pool in threadpool_info()], groups, tmp_path)]
    assert found == [[1] * len(before)] * 50
    assert limited.count((1,)) == 1
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_matrix_products_start_no_threads_while_a_cpu_stage_is_brought_up(lab, finished_copy, monkeypatch):
    def products():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    before, within, original = products(), [], StatsStage.join
    monkeypatch.setattr(StatsStage, "join", lambda self: within.append(products()) or original(self))
    stats(lab.run(finished_copy))
    assert within == [{1}]
    assert products() == before
