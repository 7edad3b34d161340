"""The log of a farm's process: every line once, in order, also in an object store; and whatever happens to it, the work goes on."""

import errno
from uuid import uuid4

import pytest

from pipeline.disk.objects import ObjectPath
from pipeline.disk.places import place_of
from pipeline.work import log as log_module
from pipeline.work.log import close_work_log, log, open_work_log


@pytest.fixture(autouse=True)
def closed():
    yield
    close_work_log()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [0.0]
    monkeypatch.setattr(log_module, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def puts(monkeypatch):
    """Sizes of what is put, and an error that puts raise while there is one."""
    sizes, error, original = [], [], ObjectPath.write_bytes

    def put(path, content):
        if error:
            raise error[0]
        sizes.append(len(content))
        original(path, content)

    monkeypatch.setattr(ObjectPath, "write_bytes", put)
    return sizes, error


def bucket():
    return place_of(f"memory://logs/{uuid4().hex}")


def lines_in(directory):
    return [line.split(" ", 4)[4] for path in sorted((directory / "logs").glob("*.log")) for line in path.read_text().splitlines()]


def test_lines_are_appended_and_a_process_that_opens_it_again_goes_on(tmp_path):
    for text in ("one", "two\n  lines", "of caf\udce9"):
        open_work_log(tmp_path)
        log(text)
    assert lines_in(tmp_path) == ["one", "two lines", "of caf\\udce9"]
    assert len(list((tmp_path / "logs").iterdir())) == 1


def test_nothing_is_made_before_there_is_a_line(tmp_path):
    open_work_log(tmp_path)
    close_work_log()
    assert not (tmp_path / "logs").exists()


def test_every_line_is_put_once_in_an_object_store(clock, puts):
    """Written anew every few seconds, an hour's log would be put 700 times over."""
    where, (sizes, _) = bucket(), puts
    open_work_log(where)
    for number in range(3600):
        clock[0] += 1
        log(f"block {number}")
    open_work_log(where)  # the next stage of the same worker
    log("block 3600")
    close_work_log()
    assert lines_in(where) == [f"block {number}" for number in range(3601)]
    assert sum(sizes) == sum(len(path.read_bytes()) for path in (where / "logs").glob("*"))
    assert 60 <= len(sizes) <= 70
    assert puts[0][0] < 1000  # the first few seconds are there soon


def test_a_store_that_takes_no_log_stops_no_work_and_gets_the_lines_when_it_does(clock, puts, capsys):
    where, (_, error) = bucket(), puts
    open_work_log(where)
    error.append(OSError("the object store says: 503"))
    for number in range(20):
        clock[0] += 60
        log(f"block {number}")
    assert lines_in(where) == []
    error.clear()
    clock[0] += 61
    log("block 20")
    assert lines_in(where) == [f"block {number}" for number in range(21)]
    error.append(OSError("the object store says: 503"))
    log("block 21")
    close_work_log()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"atlas: {where}/logs/")
    assert said.endswith(".log: the log cannot be written: the object store says: 503. The work goes on without it\n")


def test_a_full_disk_stops_no_work(tmp_path, capsys):
    open_work_log(tmp_path)
    (tmp_path / "logs").mkdir(exist_ok=True)
    file = next(handler.baseFilename for handler in log_module._LOG.handlers)
    (tmp_path / "logs" / file).symlink_to("/dev/full")
    log("one")
    log("two")
    close_work_log()
    said = f"atlas: {file}: the log cannot be written: [Errno {errno.ENOSPC}] No space left on device. The work goes on without it\n"
    assert capsys.readouterr().err == said


def test_a_folder_that_cannot_be_made_stops_no_work(tmp_path, capsys):
    (tmp_path / "logs").write_text("a file")
    open_work_log(tmp_path)
    log("one")
    log("two")
    close_work_log()
    said = capsys.readouterr().err
    assert said.count("the log cannot be written: ") == said.count("\n") == 1
