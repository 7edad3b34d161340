"""Two writers: one writes a product, the other is told who does; a dead one blocks nobody; and no shard is ever lost."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from disk_content import content

from pipeline.disk.leases import LockedError
from pipeline.disk.locks import locked
from pipeline.extract.stage import extract
from pipeline.look.verify import verify

ONE = "net_000.pth"
ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from pathlib import Path
from pipeline.disk.locks import locked
with locked(Path(sys.argv[1]), "x"):
    print("held", flush=True)
    time.sleep(60)
"""


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a lock."""
    path = tmp_path / "locks" / "features" / "net_000.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout.readline() == "held\n"
        yield process, path
        process.kill()


def test_the_second_is_told_who_holds_it(holder):
    process, path = holder
    said = rf"net_000: another process writes it: host \S+, pid {process.pid}, since 20[\d-]+T[\d:]+\+00:00\. Wait for it, or stop it, and call again"
    with pytest.raises(LockedError, match=said), locked(path, "net_000"):
        pass


def test_a_lock_left_by_a_dead_process_does_not_block(holder):
    process, path = holder
    process.kill()  # -9
    process.wait()
    assert json.loads(path.read_text())["pid"] == process.pid  # its name is still there
    with locked(path, "net_000"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_stage_is_refused_before_it_touches_anything(lab, extracted_copy, holder):
    _, path = holder
    run = lab.run(extracted_copy, "extract.map_dtype=float32", checkpoints=ONE)
    (extracted_copy / "locks").rename(extracted_copy / "old-locks")
    (extracted_copy / "locks").symlink_to(path.parent.parent)
    before = content(extracted_copy / "features.zarr")
    with pytest.raises(LockedError, match="features/net_000: another process writes it: host"):
        extract(run, replace=True)
    assert content(extracted_copy / "features.zarr") == before


def test_one_that_waits_gets_it(tmp_path):
    order = []

    def second():
        with locked(tmp_path / "a.lock", "a", wait=True):
            order.append("second")

    with locked(tmp_path / "a.lock", "a"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    import errno
    import fcntl

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = r"a\.lock: this file system has no file locks \(No locks available\); keep the run on one that has"
    with pytest.raises(LockedError, match=said), locked(tmp_path / "a.lock", "a"):
        pass


def race(server, lab, directory, count, checkpoints):
    """Start `count` extractions at the same time; return their exit codes and what they said."""
    sets = [part for assignment in lab.assignments(checkpoints) for part in ("--set", assignment)]
    command = ["extract", "--config", lab.config, "--run", directory, "--quiet", *sets]
    begun = [server.start(command) for _ in range(count)]
    said = [one.wait(240) for one in begun]
    return [(one.returncode, text) for one, text in zip(begun, said, strict=True)]


def race_rounds(server, lab, indexed, extracted, tmp_path, rounds) -> Counter:
    counts = Counter()
    for number in range(rounds):
        directory = Path(shutil.copytree(indexed, tmp_path / f"round{number}"))
        for code, said in race(server, lab, directory, 3, ONE):
            counts[code] += 1
            assert code in (0, 1), said
            if code == 1:
                assert re.search(r"atlas: .*features/net_000: another process writes it: (host|it has just begun)", said), said
        assert content(directory / "features.zarr") == content(extracted / "features.zarr")
        assert verify(lab.run(directory)).faults == []
    return counts


def test_a_race_loses_no_shard(server, lab, indexed, extracted, tmp_path):
    """Three processes on one run and checkpoint: at least one does it all, the others are told or find it done."""
    counts = race_rounds(server, lab, indexed, extracted, tmp_path, 1)
    assert counts[0] >= 1
    assert sum(counts.values()) == 3


@pytest.mark.faults
def test_many_races(server, lab, indexed, extracted, tmp_path, capsys):
    counts = race_rounds(server, lab, indexed, extracted, tmp_path, 10)
    with capsys.disabled():
        print(f"\n10 races of 3 writers: {counts[0]} wrote or found it done, {counts[1]} were refused, 0 lost shards")  # noqa: T201
    assert counts[0] >= 10


def test_two_processes_share_a_run_by_checkpoints(server, lab, finished, fresh):
    """As an array of cluster jobs does: each writes its own checkpoints, and none waits for another."""
    ends = {}

    def work(name):
        ends[name] = race(server, lab, fresh, 1, name)[0]

    threads = [threading.Thread(target=work, args=(f"net_00{number}.pth",)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [code for code, _ in ends.values()] == [0, 0], ends
    assert verify(lab.run(fresh)).faults == []
    for name in ("net_000", "net_001"):
        for path in (fresh / "features.zarr" / name).rglob("c.*"):
            assert path.read_bytes() == (finished.features_path / path.relative_to(fresh / "features.zarr")).read_bytes()
