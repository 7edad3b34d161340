"""A seal that is compared while its writer writes: no file looks damaged that is not. And one whose files nobody has touched: they are not read."""

import os
import shutil
import time
from pathlib import Path

import pytest

from pipeline.disk.records import read_record
from pipeline.store import seals
from pipeline.store.seals import Seal


@pytest.fixture
def overtaken(tmp_path, monkeypatch):
    """A seal whose record is read just before a file of it is written anew, once."""
    seal = Seal(tmp_path / "ledger" / "layout.json", tmp_path / "store")
    seal.replace("a", b"old")
    seal.replace("b", b"other")
    before = [read_record(seal.path)]
    seal.replace("a", b"new")
    monkeypatch.setattr(seals, "read_record", lambda path: before.pop() if before else read_record(path))
    return seal


def test_one_file_is_compared_again(overtaken):
    assert overtaken.fault("a") is None


def test_a_file_is_read_again(overtaken):
    assert overtaken.content("a") == b"new"


def test_all_files_are_compared_again(overtaken):
    assert overtaken.faults() == []


def test_what_is_damaged_stays_so(overtaken):
    (overtaken.root / "b").write_bytes(b"OTHER")
    (overtaken.root / "a").unlink()
    assert [(fault.where, fault.kind) for fault in overtaken.faults()] == [
        (f"{overtaken.root}/{name}", kind) for name, kind in (("a", "missing"), ("b", "damaged"))
    ]


@pytest.fixture
def sealed(tmp_path):
    """A seal of two files, closed when they have been there for some ticks of the clock."""
    seal = Seal(tmp_path / "ledger" / "layout.json", tmp_path / "store")
    seal.open(stamp="x")
    seal.root.mkdir()
    for name in ("a", "b"):
        (seal.root / name).write_bytes(b"content")
    time.sleep(0.02)
    seal.close(["a", "b"])
    time.sleep(0.02)
    return seal


def test_files_that_nobody_touched_are_not_read(sealed, monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read") if path.parent == sealed.root else read_bytes(path))
    assert not sealed.is_changed()


read_bytes = Path.read_bytes


def damaged(file):
    file.write_bytes(b"CONTENT")


def damaged_and_dated_back(file):
    before = file.stat()
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(file):
    file.with_name("c").write_bytes(b"CONTENT")
    file.with_name("c").replace(file)


@pytest.mark.parametrize("change", [damaged, damaged_and_dated_back, replaced, Path.unlink])
def test_any_other_file_is_noticed(sealed, change):
    change(sealed.root / "b")
    assert sealed.is_changed()


def test_a_file_that_was_cut_before_it_was_sealed_is_noticed(sealed):
    """As in a copy that was broken off: its times say nothing, and its length does."""
    (sealed.root / "b").write_bytes(b"con")
    time.sleep(0.02)
    os.utime(sealed.path)
    assert sealed.is_changed()


@pytest.mark.parametrize("is_damaged", [False, True])
def test_every_file_of_a_copy_is_read(sealed, tmp_path, is_damaged):
    """Its files may be older than its seal, and damaged before: then sizes and times tell nothing."""
    if is_damaged:
        damaged(sealed.root / "b")
    for path in (sealed.root / "a", sealed.root / "b", sealed.path):
        os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**10))
    copy = Seal(tmp_path / "copy" / "ledger" / "layout.json", tmp_path / "copy" / "store")
    for folder in ("store", "ledger"):
        shutil.copytree(tmp_path / folder, tmp_path / "copy" / folder)
        time.sleep(0.02)
    assert copy.is_changed() == is_damaged


def test_without_a_seal_nothing_is_compared(tmp_path):
    assert not Seal(tmp_path / "layout.json", tmp_path).is_changed()
