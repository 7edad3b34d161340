"""Checkpoint files are read once, and again as soon as anything tells that they may be others."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.checkpoints import notes as checkpoint_notes
from pipeline.checkpoints.notes import CheckpointNotes
from pipeline.disk.stamps import bytes_digest
from pipeline.extract.stage import extract
from pipeline.look.plan import plan, predicted_bytes
from pipeline.look.verify import verify
from pipeline.stages import STAGES
from pipeline.work.share import Share


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net_000.pth"
    path.write_bytes(b"weights")
    os.utime(path, (1, 1))
    return path


@pytest.fixture
def digested(monkeypatch):
    """Paths that were digested."""
    asked, original = [], checkpoint_notes.file_digest
    monkeypatch.setattr(checkpoint_notes, "file_digest", lambda path: asked.append(path) or original(path))
    return asked


def test_a_file_is_digested_once(tmp_path, file, digested):
    for _ in range(3):
        notes = CheckpointNotes(tmp_path / "notes.json")
        assert notes.digest(file) == bytes_digest(b"weights") == notes.digest(file)
        notes.keep()
    assert digested == [file]


@pytest.mark.parametrize("change", ["time", "length", "inode", "just written", "damaged notes"])
def test_a_file_that_may_be_another_is_digested_again(tmp_path, file, digested, change):
    notes = CheckpointNotes(tmp_path / "notes.json")
    if change == "just written":
        os.utime(file)
    notes.digest(file)
    notes.keep()
    if change == "time":
        os.utime(file, (2, 2))
    if change == "length":
        file.write_bytes(b"other weights")
        os.utime(file, (1, 1))
    if change == "inode":
        other = tmp_path / "other"
        other.write_bytes(b"changed")
        os.utime(other, (1, 1))
        other.replace(file)
    if change == "damaged notes":
        (tmp_path / "notes.json").write_text("{")
    assert CheckpointNotes(tmp_path / "notes.json").digest(file) == bytes_digest(file.read_bytes())
    assert len(digested) == 2


def test_what_a_file_tells_is_read_once_and_known_again_by_its_bytes(tmp_path, file):
    notes, read = CheckpointNotes(tmp_path / "notes.json"), []
    for key in (None, "ema", None):
        assert notes.told(file, f"{key}", lambda key=key: read.append(key) or {"key": key}, is_enough=lambda noted: True) == {"key": key}
    notes.keep()
    moved = file.rename(tmp_path / "moved.pth")
    again = CheckpointNotes(tmp_path / "notes.json")
    assert again.told(moved, "ema", lambda: pytest.fail("read again"), is_enough=lambda noted: True) == {"key": "ema"}
    assert again.told(moved, "ema", lambda: {"key": "more"}, is_enough=lambda noted: noted["key"] == "more") == {"key": "more"}
    assert read == [None, "ema"]


def test_what_a_file_tells_that_changes_meanwhile_is_not_noted(tmp_path, file):
    """Its digest would be another's."""
    notes = CheckpointNotes(tmp_path / "notes.json")
    assert notes.told(file, "", lambda: file.write_bytes(b"other weights") and {"of": "either"}, is_enough=lambda noted: True) == {"of": "either"}
    os.utime(file, (1, 1))
    notes.keep()
    assert CheckpointNotes(tmp_path / "notes.json").told(file, "", lambda: {"of": "others"}, is_enough=lambda noted: True) == {"of": "others"}


def test_a_file_that_was_read_is_not_opened_again(lab, fresh, monkeypatch):
    """Neither by a stage that has nothing to do, nor by the plan."""
    first = extract(lab.run(fresh, checkpoints="net_000.pth"))
    monkeypatch.setattr("safenet.checkpoint.read_checkpoint", lambda *arguments, **options: pytest.fail("read again"))
    assert extract(lab.run(fresh, checkpoints="net_000.pth")).fresh == first.computed
    assert [row.state for row in plan(lab.run(fresh, checkpoints="net_000.pth")) if row.stage == "extract"] == ["fresh"]


def test_a_file_that_was_just_written_is_noted_when_its_features_are_there(lab, fresh, monkeypatch):
    """As in the demo, which extracts right after training."""
    second = 10**9
    written = (lab.checkpoints / "net_000.pth").stat().st_mtime_ns
    moments = iter([written + second, written + 10 * second])
    monkeypatch.setattr(checkpoint_notes, "time", SimpleNamespace(time_ns=lambda: next(moments)))
    extract(lab.run(fresh, checkpoints="net_000.pth"))
    monkeypatch.setattr("safenet.checkpoint.read_checkpoint", lambda *arguments, **options: pytest.fail("read again"))
    assert [row.state for row in plan(lab.run(fresh, checkpoints="net_000.pth")) if row.stage == "extract"] == ["fresh"]


def test_a_part_reads_no_file_of_another_part_s_twice(lab, fresh, digested):
    """The first part digests all files, by which they are named; the others find that noted."""
    for number in (1, 2, 3):
        run = lab.run(fresh)
        object.__setattr__(run, "part", Share(number, 3))
        extract(run)
    assert sorted(path.name for path in digested) == ["net_000.pth", "net_001.pth", "net_002.pth"]


_opened: list[str] = []
_watched: list[Path] = []


def _watch(event, arguments):
    """An audit hook, which stays for good."""
    if _watched and event == "open" and str(arguments[0]).startswith(str(_watched[0])):
        _opened.append(str(arguments[0]))


def test_no_command_opens_a_checkpoint_file_that_it_knows(lab, finished_copy):
    """At full size that is 100 GB, which every command and every part would read."""
    sys.addaudithook(_watch)
    _watched.append(lab.checkpoints)
    try:
        run = lab.run(finished_copy)
        assert [stage.bring_up_to_date(run).computed for stage in STAGES] == [0] * len(STAGES)
        assert {row.state for row in plan(run)} == {"fresh"}
        assert predicted_bytes(finished_copy, lab.config, lab.assignments()) == 0
        assert lab.atlas("status", finished_copy).exit_code == 0
        assert verify(run).faults == []
        assert _opened == []
        lab.checkpoints.joinpath("net_000.pth").read_bytes()
        assert len(_opened) == 1  # it would have been seen
    finally:
        _watched.clear()
