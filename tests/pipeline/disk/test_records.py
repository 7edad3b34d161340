"""Small files are written completely or not at all, and only while their writer may."""

import pytest

from pipeline.disk.records import replace_file, write_atomically


@pytest.mark.parametrize(
    "write", [lambda path, check: write_atomically(path, b"new", check=check), lambda path, check: replace_file(path, [b"new"], check)]
)
def test_a_writer_that_may_not_any_more_changes_nothing(tmp_path, write):
    """The last look comes when all bytes are written, right before they appear."""
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def refuse():
        (partial,) = tmp_path.glob("*.partial")
        assert partial.read_bytes() == b"new"
        raise OSError("another call has begun")

    with pytest.raises(OSError, match="another call has begun"):
        write(path, refuse)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.json", b"old")]
