"""What was made of a file is kept while the file is the same, and no longer."""

import os
import time

import pytest

from pipeline.disk import unchanged
from pipeline.disk.objects import ObjectPath
from pipeline.disk.unchanged import Unchanged

A_TICK_S = 0.02  # of the clock of a file system: 4 or 10 ms on Linux


@pytest.fixture
def old_files(monkeypatch):
    """Files that were written just now count as settled."""
    monkeypatch.setattr(unchanged, "UNSETTLED_NS", -3_600_000_000_000)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "record.json"
    path.write_text("one")
    return path


def test_a_file_that_is_the_same_is_read_once(old_files, file):
    kept, read = Unchanged(8), []
    assert [kept.get(lambda: read.append(1) or file.read_text(), file) for _ in range(3)] == ["one"] * 3
    assert len(read) == 1


def replaced(file):
    """As every writer of ours does it."""
    before = file.stat()
    other = file.with_name("other")
    other.write_text("two")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


def flipped(file):
    """Bytes of the same number, in place, and the time put back."""
    before = file.stat()
    time.sleep(A_TICK_S)
    with file.open("r+") as opened:
        opened.write("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [replaced, flipped])
def test_a_file_that_has_changed_is_read_again(old_files, file, change):
    kept = Unchanged(8)
    assert kept.get(file.read_text, file) == "one"
    change(file)
    assert kept.get(file.read_text, file) == "two"


def test_of_several_files_each_counts(old_files, file, tmp_path):
    kept, seal = Unchanged(8), tmp_path / "seal.json"
    seal.write_text("a")
    assert kept.get(lambda: file.read_text() + seal.read_text(), file, seal) == "onea"
    seal.unlink()
    assert kept.get(file.read_text, file, seal) == "one"


def test_of_a_file_that_was_just_written_nothing_is_kept(file):
    kept = Unchanged(8)
    assert kept.get(file.read_text, file) == "one"
    status = file.stat()
    file.write_text("two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert kept.get(file.read_text, file) == "two"


def test_of_objects_nothing_is_kept(old_files):
    kept, made = Unchanged(8), []
    for _ in range(2):
        kept.get(lambda: made.append(1), ObjectPath("memory://unchanged", "record.json"))
    assert len(made) == 2


def test_a_few_are_kept(old_files, tmp_path):
    kept, read = Unchanged(2), []
    for name in "abc":
        (tmp_path / name).touch()
    for name in "abcca":
        kept.get(lambda name=name: read.append(name), tmp_path / name)
    assert read == ["a", "b", "c", "a"]
