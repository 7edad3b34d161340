"""No space, no quota, no permission: a line that says what is needed and what is free; and everything goes on when there is room."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from disk_content import content

import pipeline
from pipeline.commands.group import main
from pipeline.disk import space
from pipeline.disk.space import check_space, human_bytes
from pipeline.extract.stage import extract
from pipeline.look.plan import plan
from pipeline.look.status import run_status
from pipeline.look.verify import verify
from pipeline.stages import STAGES
from pipeline.work.stops import OUT_OF_SPACE

ONE = "net_000.pth"


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of a given size; what needs a mount is skipped where one may not be made."""
    point = tmp_path / "disk"
    point.mkdir()

    def mount(kilobytes):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(point)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"may not mount: {done.stderr.decode().strip()}")
        return point

    def resize(kilobytes):
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(point)], check=True)

    yield mount, resize
    subprocess.run(["umount", str(point)], check=False, capture_output=True)


@pytest.fixture(scope="module")
def reference(lab, indexed, tmp_path_factory):
    """Content of an undisturbed run."""
    directory = Path(shutil.copytree(indexed, tmp_path_factory.mktemp("reference") / "run"))
    assert lab.atlas("run", directory, checkpoints=ONE).exit_code == 0
    return content(directory)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize("free", [40, 260, 700])
def test_a_full_disk_in_any_stage(lab, indexed, small_disk, reference, monkeypatch, free):
    """The store is intact, the next call goes on when space is made, and the end is that of an undisturbed run."""
    mount, resize = small_disk
    disk = mount(8192)
    directory = Path(shutil.copytree(indexed, disk / "run"))
    used = 8192 - space.free_bytes(disk) // 1024
    resize(used + free)
    monkeypatch.setattr("pipeline.extract.stage.check_space", lambda *arguments: None)  # which would refuse before
    failed = lab.atlas("run", directory, checkpoints=ONE)
    assert failed.exit_code == 1, failed.output
    (line,) = failed.stderr.strip().splitlines()
    assert line.startswith("atlas: ")
    assert "No space left on device" in line
    assert re.search(rf" are free at {directory}, left( to extract)?: ", line), line
    assert "What is done is kept: make room and call the same command again" in line
    assert verify(lab.run(directory)).faults == []
    resize(8192)
    assert lab.atlas("run", directory, checkpoints=ONE).exit_code == 0
    found, expected = content(directory), reference
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_extract_asks_for_room_before_it_begins(lab, indexed, small_disk):
    mount, resize = small_disk
    directory = Path(shutil.copytree(indexed, mount(4096) / "run"))
    resize(4096 - space.free_bytes(directory) // 1024 + 100)
    failed = lab.atlas("extract", directory, checkpoints=ONE)
    assert failed.exit_code == 1
    (line,) = failed.stderr.strip().splitlines()
    assert re.match(rf"atlas: {directory}: extract needs about 122\.2 kB, and [\d.]+ kB are free\. Free some, name another --run directory", line), (
        line
    )
    assert not (directory / "features.zarr").exists()


def test_a_quota_is_told_like_a_full_disk(lab, fresh, monkeypatch):
    def full(*arguments):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(fresh / "features.zarr"))

    monkeypatch.setattr("pipeline.store.group_store.replace_file", full)
    failed = lab.atlas("extract", fresh, checkpoints=ONE)
    assert failed.exit_code == 1
    assert "Disk quota exceeded: " in failed.stderr
    assert "left to extract: net_000: 4 of 4 blocks" in failed.stderr
    assert errno.EDQUOT in OUT_OF_SPACE


def test_what_is_there_already_needs_no_room(lab, extracted_copy, monkeypatch):
    monkeypatch.setattr(space, "free_bytes", lambda path: 0)
    assert extract(lab.run(extracted_copy, checkpoints=ONE)).computed == 0


def test_room_is_asked_for_where_the_run_will_be(tmp_path):
    with pytest.raises(OSError, match=r"run: extract needs about 1\.0 TB, and .* are free\. Free some") as caught:
        check_space(tmp_path / "not" / "yet" / "run", 10**12, "extract", "Free some")
    assert caught.value.errno == errno.ENOSPC
    assert [human_bytes(count) for count in (0, 999, 1234, 5e6, 7.25e9, 3e12)] == ["0 B", "999 B", "1.2 kB", "5.0 MB", "7.2 GB", "3.0 TB"]


# ---- no permission


@pytest.fixture
def read_only(finished, tmp_path):
    """A finished run on a file system that refuses writes, even to root."""
    directory = Path(shutil.copytree(finished.directory, tmp_path / "run"))
    bound = [["mount", "--bind", str(directory), str(directory)], ["mount", "-o", "remount,ro,bind", str(directory)]]
    for command in bound:
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            subprocess.run(["umount", str(directory)], check=False, capture_output=True)
            pytest.skip(f"may not mount: {done.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", str(directory)], check=False, capture_output=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system")
def test_a_read_only_run_serves_every_reading_command(lab, read_only):
    with pytest.raises(OSError, match="Read-only file system"):
        (read_only / "x").write_text("")
    run = lab.run(read_only)
    assert verify(run).faults == []
    assert {row.state for row in plan(run)} == {"fresh"}
    assert len(run_status(run)) == 3
    assert float(pipeline.open_run(read_only).features["embedding"].sum()) != 0
    for command in ("status", "plan", "verify"):
        assert lab.atlas(command, read_only).exit_code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system")
def test_a_writing_command_on_a_read_only_run_is_one_line(lab, read_only):
    for stage in STAGES:
        failed = lab.atlas(stage.name, read_only)
        assert failed.exit_code == 1
        (line,) = failed.stderr.strip().splitlines()
        assert "Read-only file system" in line
        assert str(read_only) in line


def test_doctor_is_told_what_is_needed(lab, indexed, monkeypatch):
    """The predicted size of what extract and cam will write."""
    from click.testing import CliRunner

    asked = []
    monkeypatch.setattr("pipeline.commands.doctor.doctor", lambda what, *arguments, **options: asked.append(what) or True)
    sets = [part for assignment in lab.assignments(ONE) for part in ("--set", assignment)]
    assert CliRunner().invoke(main, ["doctor", "--config", str(lab.config), "--run", str(indexed), *sets]).exit_code == 0
    assert 100_000 < asked[0].needed_bytes < 200_000
