"""Real processes that are stopped: by a signal, by the loss of a worker, by the loss of their parent."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.extract import photos as images
from pipeline.extract.photos import LostWorkerError, PhotoFiles, PhotoReader
from pipeline.extract.stage import extract
from pipeline.look.verify import verify
from pipeline.work import stops as interrupts
from pipeline.work.stops import EXIT_STOPPED, Stopped, check_stop, loading, stop_on_signals, telling_what_is_left

ONE = "net_000.pth"
ROOT = Path(__file__).parents[3]
GRACE_S = 30  # what a cluster gives


@pytest.fixture
def start(server, lab, fresh):
    """Start `atlas extract` in `fresh`, with a process that decodes, at a pace that leaves time to stop it; what is left at the end is killed."""
    assignments = (*lab.assignments(ONE), "extract.workers=1", "extract.batch_size=1", "extract.block_samples=1")
    sets = [part for assignment in assignments for part in ("--set", assignment)]
    begun = []

    def start_one():
        begun.append(server.start(["extract", "--config", lab.config, "--run", fresh, "--quiet", *sets]))
        return begun[-1]

    yield start_one
    for process in begun:
        process.kill()
        for pid in session_of(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait_for_a_block(directory, process):
    deadline = time.monotonic() + 120
    while not list((directory / "ledger" / "features").rglob("0*.json")):
        assert process.poll() is None, process.said
        assert time.monotonic() < deadline
        time.sleep(0.005)


def session_of(process) -> list[int]:
    """Processes of the session that are not the process itself."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == process.pid and int(path.parent.name) != process.pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def gone(process, seconds=15) -> bool:
    deadline = time.monotonic() + seconds
    while session_of(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not session_of(process)


@pytest.fixture(scope="module")
def reference(lab, indexed, tmp_path_factory):
    directory = Path(shutil.copytree(indexed, tmp_path_factory.mktemp("reference") / "run"))
    finish(lab, directory)
    return blocks(directory)


def finish(lab, directory, expected=None):
    """In this process, and without a process that decodes: resources do not change the numbers."""
    run = lab.run(directory, "extract.batch_size=1", "extract.block_samples=1", checkpoints=ONE)
    extract(run)
    assert verify(run).faults == []
    assert expected is None or blocks(directory) == expected


def blocks(directory):
    """Bytes of every block."""
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in (directory / "features.zarr").rglob("c.*")}


@pytest.mark.parametrize("number", list(interrupts.SIGNALS))
def test_a_signal_to_all_processes_stops_cleanly(lab, fresh, start, reference, number):
    """As a terminal's Ctrl-C and a cluster's SIGTERM do: the decoding process gets it, too, and must leave it to its parent."""
    process = start()
    wait_for_a_block(fresh, process)
    began = time.monotonic()
    os.killpg(process.pid, number)
    said = process.wait(GRACE_S)
    assert time.monotonic() - began < GRACE_S
    if process.returncode != 0:  # it may just have finished
        assert process.returncode == EXIT_STOPPED, said
        (line,) = said.strip().splitlines()
        left = r"left to extract: net_000: \d+ of 15 blocks, about [\d.]+ kB"
        said = rf"atlas: stopped by {number.name}; ({left}|all blocks are written; call again to finish)\. Call the same command again to go on"
        assert re.fullmatch(said, line), line
    assert gone(process)
    finish(lab, fresh, reference)


def test_a_killed_process_takes_its_workers_with_it(lab, fresh, start, reference):
    process = start()
    wait_for_a_block(fresh, process)
    assert session_of(process), "there is a decoding process"
    process.kill()
    process.wait(60)
    assert gone(process), "a decoding process outlived its parent"
    finish(lab, fresh, reference)


def test_a_killed_worker_is_one_line_and_the_next_call_goes_on(lab, fresh, start, reference):
    """The photos are slowed down, so that the worker is still needed when it dies."""
    process = start()
    wait_for_a_block(fresh, process)
    victims = [pid for pid in session_of(process) if b"multiprocessing.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    said = process.wait(60)
    if process.returncode != 0:  # it may just have finished
        assert process.returncode == 1
        (line,) = said.strip().splitlines()
        assert re.match("atlas: a process that decodes photos was killed, often because memory ran out. What is done is kept: call again", line), line
    assert gone(process)
    finish(lab, fresh, reference)


class Deadly(PhotoFiles):
    """Photo 5 kills the process that decodes it."""

    def __getitem__(self, index):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_the_loss_of_a_worker_is_told_by_its_name(tmp_path):
    files = Deadly(tmp_path, [""] * 9, [""] * 9, [""] * 9, ["no such photo"] * 9, 16, 4)
    with pytest.raises(LostWorkerError, match=r"fewer extract\.workers or a smaller extract\.batch_size if it happens again"):
        list(PhotoReader(files, 1).read([[0, 1], [2, 3], [4, 5], [6]]))


# ---- the parts


def test_the_first_signal_raises_and_is_remembered():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM"), stop_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except Stopped:
            pass  # as a finaliser that swallows it
        check_stop()
        raise AssertionError("the stop was forgotten")
    assert signal.getsignal(signal.SIGTERM) is before
    check_stop()  # and outside nothing is remembered


def test_a_stop_waits_until_modules_are_imported():
    """An exception in the middle of an import may be lost, or leave a library half there."""
    reached = []
    with pytest.raises(Stopped, match="SIGTERM"), stop_on_signals():
        with loading():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            reached.append("the end of the import")
        raise AssertionError("the stop was forgotten")
    assert reached


STOPPED_EARLY = """
import os, signal, sys
from pipeline import __main__ as command
from pipeline.commands import group
original = group.import_module
def interrupted(name):
    os.kill(os.getpid(), signal.SIGTERM)
    return original(name)
group.import_module = interrupted
sys.argv = ["atlas", "status", "--run", "nowhere"]
command.main()
"""


def test_a_signal_while_a_command_is_imported_ends_it_at_once():
    ended = subprocess.run([sys.executable, "-c", STOPPED_EARLY], capture_output=True, text=True, timeout=60, check=False)
    said = "atlas: stopped by SIGTERM before anything began. Call the same command again\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (EXIT_STOPPED, "", said)


def test_a_second_signal_ends_at_once(monkeypatch):
    ended = []
    monkeypatch.setattr(interrupts.os, "_exit", ended.append)
    with pytest.raises(Stopped), stop_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        finally:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)
            except Stopped:
                pass
            assert ended == [EXIT_STOPPED]


LOST_LOCK = """
import os, signal, sys, threading
from pipeline.work import stops as interrupts
interrupts.UNWIND_S = 0.2
lock = threading.Lock()
with interrupts.stop_on_signals():
    try:
        lock.acquire()
        os.kill(os.getpid(), signal.SIGUSR1)  # raises here: the lock is taken, and nothing gives it back
        lock.release()
    finally:
        with lock:
            print("never")
"""


def test_a_lock_that_the_signal_left_taken_cannot_hold_up_the_stop():
    ended = subprocess.run([sys.executable, "-c", LOST_LOCK], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (EXIT_STOPPED, ""), ended.stderr


@pytest.mark.parametrize("error", [Stopped("SIGTERM"), ValueError("told in a line"), SystemExit(2)])
def test_a_way_out_that_ended_is_limited_no_more(monkeypatch, error):
    """However it ended: a process that goes on, as this one, must not be ended later."""
    ended = []
    monkeypatch.setattr(interrupts, "UNWIND_S", 0.05)
    monkeypatch.setattr(interrupts.os, "_exit", ended.append)
    for expected in (error, None):
        with contextlib.suppress(type(error)), stop_on_signals():
            if expected is not None:
                raise expected
    time.sleep(0.3)
    assert ended == []


LEFT_OPEN = """
import gc, sys
from pathlib import Path
from pipeline.extract.photos import PhotoFiles, PhotoReader
if __name__ == "__main__":
    files = PhotoFiles(Path(), [""] * 9, [""] * 9, [""] * 9, ["no such photo"] * 9, 16, 4)
    reader = PhotoReader(files, 1)
    reader.itself = reader  # as a traceback does: it is not freed before the process ends
    gc.disable()
    batches = reader.read([[0], [1]])
    next(batches)
    print("read")
"""


def test_a_process_ends_though_its_decoding_processes_were_never_told_to(tmp_path):
    script = tmp_path / "left_open.py"
    script.write_text(LEFT_OPEN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert (ended.returncode, ended.stdout) == (0, "read\n"), ended.stderr


LATE_LOCK = """
import atexit, sys, threading
from pipeline import __main__ as command
from pipeline.commands import group
lock = threading.Lock()
lock.acquire()
atexit.register(lock.acquire)  # as a finaliser that waits for ever
def stopped():
    print("told")
    sys.exit(command.EXIT_STOPPED)
group.main = stopped
command.main()
"""


def test_a_stopped_command_does_not_wait_for_finalisers():
    ended = subprocess.run([sys.executable, "-c", LATE_LOCK], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (EXIT_STOPPED, "told\n"), ended.stderr


@pytest.mark.parametrize(
    ("error", "noted"),
    [(Stopped("SIGTERM"), "3 blocks"), (OSError(28, "full"), "B are free at /, 3 blocks"), (OSError(13, "no"), ""), (ValueError(), "")],
)
def test_what_is_left_is_told_of_a_stop_and_of_a_full_disk(error, noted):
    with pytest.raises(type(error)) as caught, telling_what_is_left(lambda: "3 blocks", Path("/")):
        raise error
    assert "".join(getattr(caught.value, "__notes__", [])).endswith(noted)
    assert bool(noted) == hasattr(caught.value, "__notes__")


def test_workers_ignore_signals():
    handlers = [signal.getsignal(number) for number in interrupts.SIGNALS]
    try:
        images._prepare_worker()
        assert [signal.getsignal(number) for number in interrupts.SIGNALS] == [signal.SIG_IGN] * len(interrupts.SIGNALS)
    finally:
        for number, handler in zip(interrupts.SIGNALS, handlers, strict=True):
            signal.signal(number, handler)
