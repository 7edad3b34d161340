"""A seal that is compared while its writer writes: no file looks damaged that is not."""

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
