"""Checkpoint files are read once, and again as soon as anything tells that they may be others."""

import os

import pytest

from pipeline.checkpoints import notes as checkpoint_notes
from pipeline.checkpoints.notes import CheckpointNotes
from pipeline.disk.stamps import bytes_digest
from pipeline.extract.stage import extract
from pipeline.work.share import Part


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


def test_sizes_are_of_the_network_that_was_asked_for(tmp_path, file):
    notes, read = CheckpointNotes(tmp_path / "notes.json"), []
    for key in (None, "ema", None):
        assert notes.sizes(file, key, lambda key=key: read.append(key) or f"sizes {key}") == f"sizes {key}"
    notes.keep()
    CheckpointNotes(tmp_path / "notes.json").sizes(file, "ema", lambda: pytest.fail("read again"))
    assert read == [None, "ema"]


def test_a_part_reads_no_file_of_another_part_s_twice(lab, fresh, digested):
    """The first part digests all files, by which they are named; the others find that noted."""
    for number in (1, 2, 3):
        run = lab.run(fresh)
        object.__setattr__(run, "part", Part(number, 3))
        extract(run)
    assert sorted(path.name for path in digested) == ["net_000.pth", "net_001.pth", "net_002.pth"]
