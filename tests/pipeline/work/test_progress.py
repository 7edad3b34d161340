"""One display of progress: counted by whoever is done, of how much there is, in images or in bytes."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.training import _shown
from pipeline.work.progress import Progress
from safenet.training.loop import Step


def test_several_threads_may_count():
    with Progress("cam", 40_000, "image", shown=False) as progress, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: [progress.add(1, f"worker {number}", 0.5) for _ in range(1000)], range(40)))
    assert (progress.done, progress.left) == (40_000, 0)
    assert progress.rates() == "40 workers, 2 to 2 image/s each"


def test_what_is_done_already_is_not_expected(capsys):
    with Progress("cam", 12, "image", shown=True) as progress:
        progress.leave_out(4)
        progress.add(2)
        assert (progress.total, progress.left) == (8, 6)
    assert "2/8" in capsys.readouterr().err


def test_how_much_there_is_may_be_known_later(capsys):
    with Progress("index", None, "file", shown=True) as progress:
        assert progress.left == 0
        progress.expect(3)
        progress.add(1)
        assert progress.left == 2
    assert "1/3" in capsys.readouterr().err


def test_bytes_are_shown_in_units(capsys):
    with Progress("features/net_000", 5_000_000, "B", shown=True) as progress:
        progress.add(2_500_000)
    assert "2.50M/5.00M" in capsys.readouterr().err


@pytest.mark.parametrize(("shown", "total"), [(False, 3), (True, 0)])
def test_no_bar_where_none_is_wanted_or_nothing_is_to_do(capsys, shown, total):
    with Progress("cam", total, "image", shown=shown) as progress:
        progress.add(0)
    assert capsys.readouterr().err == ""


def test_training_shows_a_bar_an_epoch_which_goes_with_it(capsys):
    with _shown(True) as watch:
        for epoch in (3, 4):
            for batch in (1, 2):
                watch(Step(epoch, batch, 2, 0.25))
    said = capsys.readouterr().err
    assert all(text in said for text in ("epoch 3", "epoch 4", "2/2", "loss=0.250"))
    assert said.endswith("\r") and not said.rpartition("epoch 4")[2].rpartition("\r")[0].endswith("\n")
