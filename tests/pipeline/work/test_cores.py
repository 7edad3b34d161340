"""The cores that a process was given, which a job on a large machine must not exceed."""

import os
import threading
import time
from pathlib import Path

import pytest

import pipeline
from pipeline.settings.compute import ComputeSettings
from pipeline.work import control_groups
from pipeline.work.cores import cores
from pipeline.work.executors import run_blocks


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine of 128 cores that grants all of them; call with the process's control groups and their files."""

    def write(listing, **files):
        (tmp_path / "cgroup").write_text(listing)
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(128)))
    monkeypatch.setattr(control_groups, "LISTING", tmp_path / "cgroup")
    monkeypatch.setattr(control_groups, "MOUNT", tmp_path / "groups")
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    return write


def test_a_process_without_limits_has_the_machine():
    assert cores() == 128


def test_the_affinity_counts(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 5, 6})
    assert cores() == 4


def test_a_system_without_affinity_tells_its_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == 128


@pytest.mark.parametrize(("quota", "expected"), [("400000 100000", 4), ("250000 100000", 3), ("1000 100000", 1), ("max 100000", 128)])
def test_the_quota_of_a_group_above_counts_in_version_2(machine, quota, expected):
    machine("0::/job/step\n", **{"job/cpu.max": f"{quota}\n", "job/step/cpu.max": "max 100000\n"})
    assert cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [(400_000, 4), (-1, 128)])
def test_the_quota_counts_in_version_1_where_the_listing_names_the_hosts_path(machine, quota, expected):
    machine("4:cpu,cpuacct:/docker/1f\n0::/\n", **{"cpu/cpu.cfs_quota_us": f"{quota}\n", "cpu/cpu.cfs_period_us": "100000\n"})
    assert cores() == expected


@pytest.mark.parametrize(("told", "expected"), [("6", 6), ("256", 128), ("", 128), ("many", 128)])
def test_a_task_of_slurm_counts_where_it_is_less(monkeypatch, told, expected):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", told)
    assert cores() == expected


def test_blocks_run_on_the_cores_that_were_given(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    seen = set()
    list(run_blocks(ComputeSettings(), lambda item: seen.add(threading.current_thread()) or time.sleep(0.01), range(30)))
    assert len(seen) == 3


def test_no_other_module_counts_cores():
    files = [path for name in ("pipeline", "stages", "safenet") for path in (Path(pipeline.__file__).parent.parent / name).rglob("*.py")]
    assert [path.name for path in files if "cpu_count" in path.read_text()] == ["cores.py"]
