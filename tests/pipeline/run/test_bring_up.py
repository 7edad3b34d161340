"""The choreography of all stages, driven with a toy stage: what is asked in which order, and all the bookkeeping around it."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.disk.leases import LockedError
from pipeline.disk.places import Place
from pipeline.run.bring_up import PieceStage, bring_up_to_date
from pipeline.run.directory import Run
from pipeline.run.outcome import Outcome
from pipeline.run.rates import rates
from pipeline.settings.all import Settings
from pipeline.work.share import Share
from pipeline.work.stops import Stopped, check_stop, stop_on_signals


# The toy stage: texts/*.txt -> loud/<text>/<line>, each line in capitals. docs/architecture.md shows it.
@dataclass(frozen=True)
class Text:
    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Shout:
    target: Place

    def open(self, tell: Callable[[int], None]) -> Callable[[tuple[str, int, str]], None]:
        def write(piece: tuple[str, int, str]) -> None:
            text, number, line = piece
            (self.target / text / str(number)).write_text(line.upper())
            tell(1)

        return write


class LoudStage(PieceStage[Text]):
    name, product, image_unit = "loud", "loud", "line"
    computed = 0

    def subjects(self) -> list[Text]:
        return [Text(path.stem, tuple(path.read_text().splitlines())) for path in sorted((self.run.directory / "texts").iterdir())]

    def units(self, subject: Text) -> list[tuple[str, int, str]]:
        return [(subject.name, number, line) for number, line in enumerate(subject.lines)]

    def lay_out(self, subject: Text, *, alone: bool) -> list[tuple[str, int, str]]:
        folder = self.run.directory / "loud" / subject.name
        folder.mkdir(parents=True, exist_ok=True)
        return [unit for unit in self.shared[subject.name] if not (folder / str(unit[1])).exists()]

    def work(self) -> Shout:
        return Shout(self.run.directory / "loud")

    def take(self, subject: Text, piece: tuple[str, int, str], result: None) -> None:
        self.computed += 1

    def amount(self) -> int:
        return self.computed

    def outcome(self) -> Outcome:
        return Outcome(self.name, self.computed, sum(map(len, self.shared.values())) - self.computed, "lines")


# The end of the toy stage.


class Told(LoudStage):
    """The toy, which notes what it is asked."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.asked: list[str] = []

    def subjects(self):
        self.asked.append("subjects")
        return super().subjects()

    def inspect(self):
        self.asked.append(f"inspect {[text.name for text in self.mine]}")

    def prepare(self, alone):
        self.asked.append(f"prepare {sorted(alone)}")

    def lay_out(self, subject, *, alone):
        self.asked.append(f"lay out {subject.name}{'' if alone else ', not alone'}")
        return super().lay_out(subject, alone=alone)

    def take(self, subject, piece, result):
        super().take(subject, piece, result)
        self.asked.append(f"take {subject.name} {piece[1]}")

    def finish(self, subject):
        self.asked.append(f"finish {subject.name}")

    def join(self):
        self.asked.append("join")


@pytest.fixture
def run(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("one\ntwo\nthree")
    (tmp_path / "texts" / "b.txt").write_text("four")
    return Run(tmp_path, Settings(compute={"executor": "serial"}), progress=False)


def loud(run: Run) -> dict[str, str]:
    return {str(path.relative_to(run.directory / "loud")): path.read_text() for path in sorted((run.directory / "loud").glob("*/*"))}


ALL = {"a/0": "ONE", "a/1": "TWO", "a/2": "THREE", "b/0": "FOUR"}


def test_the_methods_are_asked_in_the_order_in_which_they_stand(run):
    stage = Told(run)
    assert str(bring_up_to_date(stage)) == "loud: 4 lines computed, 0 up to date"
    assert loud(run) == ALL
    assert stage.asked == [
        "subjects", "inspect ['a', 'b']", "prepare ['a', 'b']",
        "lay out a", "take a 0", "take a 1", "take a 2", "finish a", "lay out b", "take b 0", "finish b", "join",
    ]  # fmt: skip


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_what_is_done_is_not_done_again(run, executor):
    run = replace(run, settings=Settings(compute={"executor": executor, "workers": 3}))
    bring_up_to_date(LoudStage(run))
    (run.directory / "loud" / "a" / "1").unlink()
    stage = Told(run)
    assert str(bring_up_to_date(stage)) == "loud: 1 lines computed, 3 up to date"
    assert stage.asked[3:] == ["lay out a", "take a 1", "finish a", "lay out b", "finish b", "join"]
    assert str(bring_up_to_date(LoudStage(run))) == "loud: nothing to compute, 4 up to date"
    assert loud(run) == ALL


def test_parts_share_the_units_and_each_finishes_what_it_saw(run):
    first, second = (Told(replace(run, share=Share(number, 2))) for number in (1, 2))
    assert str(bring_up_to_date(first)) == "loud: 2 lines computed, 0 up to date"
    assert str(bring_up_to_date(second)) == "loud: 2 lines computed, 0 up to date"
    assert loud(run) == ALL
    assert first.asked == ["subjects", "inspect ['a']", "prepare ['a']", "lay out a", "take a 0", "take a 1", "finish a", "join"]
    assert second.asked[3:] == ["lay out a", "lay out b", "take a 2", "finish a", "take b 0", "finish b", "join"]


def test_a_part_with_nothing_left_to_do_ends(run):
    """Finishing takes the lock that laying out holds: a part that lacks nothing must have let go of it."""
    bring_up_to_date(LoudStage(run))
    found: list[Outcome] = []
    worker = threading.Thread(target=lambda: found.append(bring_up_to_date(LoudStage(replace(run, share=Share(1, 2))))), daemon=True)
    worker.start()
    worker.join(30)
    assert [str(outcome) for outcome in found] == ["loud: nothing to compute, 2 up to date"]


def test_a_part_beside_another_that_writes_is_not_alone(run):
    first, second = (replace(run, share=Share(number, 2)) for number in (1, 2))
    seen = []

    class Beside(Told):
        def finish(self, subject):
            if not seen:
                seen.append(second_stage := Told(second))
                bring_up_to_date(second_stage)

    class Outside(Beside):  # finishing holds the lock for which the other part would wait
        def take(self, subject, piece, result):
            super().take(subject, piece, result)
            Beside.finish(self, subject)

        def finish(self, subject):
            pass

    bring_up_to_date(Outside(first))
    assert seen[0].asked[2:4] == ["prepare ['b']", "lay out a, not alone"]


@pytest.mark.parametrize("step", ["subjects", "inspect", "prepare"])
def test_a_refusal_comes_before_anything_is_written(run, step):
    stage = LoudStage(run)
    setattr(stage, step, lambda *given: (_ for _ in ()).throw(ValueError("no such text; name another")))
    with pytest.raises(ValueError, match="no such text; name another"):
        bring_up_to_date(stage)
    assert not (run.directory / "loud").exists()
    assert rates(run.directory) == {}


def test_a_stop_says_what_is_left_and_keeps_what_is_done(run):
    class Signalled(LoudStage):
        def take(self, subject, piece, result):
            super().take(subject, piece, result)
            if self.computed == 2:
                signal.raise_signal(signal.SIGTERM)

        def left(self):
            return f"left: {4 - self.computed} lines"

    with pytest.raises(Stopped) as stopped, stop_on_signals():
        bring_up_to_date(Signalled(run))
    assert stopped.value.__notes__ == ["left: 2 lines"]
    check_stop()
    assert str(bring_up_to_date(LoudStage(run))) == "loud: 2 lines computed, 2 up to date"


HOLDER = "import sys, fcntl; file = open(sys.argv[1], 'a+b'); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"


@pytest.mark.parametrize(("one_lock", "lock"), [(False, "loud/b"), (True, "loud")])
def test_another_writer_is_told_who_writes(run, one_lock, lock):
    class Locked(LoudStage):
        pass

    Locked.one_lock = one_lock
    path = Path(run.directory / "locks" / f"{lock}.lock")
    path.parent.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(LockedError, match=f"{lock}: another process writes it"):
            bring_up_to_date(Locked(run))
        holder.stdin.close()
    assert not (run.directory / "loud").exists()


def test_the_rate_is_of_what_was_computed(run, monkeypatch):
    monkeypatch.setattr("pipeline.run.rates._LONG_ENOUGH_S", 0.0)
    bring_up_to_date(LoudStage(run))
    first = rates(run.directory)["loud"]
    assert first > 0
    bring_up_to_date(LoudStage(run))
    assert rates(run.directory)["loud"] == first  # nothing was computed, and so nothing measured


def test_progress_counts_what_is_left_and_no_more(run, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, stage, total, unit, *, shown):
            self.total, self.done = total, 0
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *given):
            pass

        def leave_out(self, count):
            self.total -= count

        def add(self, count, worker="", seconds=0.0):
            self.done += count

    monkeypatch.setattr("pipeline.run.bring_up.Progress", Bar)
    bring_up_to_date(LoudStage(run))
    (run.directory / "loud" / "a" / "1").unlink()
    bring_up_to_date(LoudStage(run))
    assert [(bar.done, bar.total) for bar in bars] == [(4, 4), (1, 1)]
