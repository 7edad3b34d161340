"""How many cores this process was given, which may be far fewer than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.work.control_groups import control_groups


def cores() -> int:
    """Return how many cores this process may use: by its affinity, the quotas of its control groups, and what SLURM gave its task."""
    return max(1, min([_by_affinity(), *_by_quotas(), *_by_slurm()]))


def _by_affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none


def _by_quotas() -> Iterator[int]:
    """Of versions 2 and 1; 2.5 cores' worth of time keeps three threads busy."""
    for group in control_groups():
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
            if quota != "max":
                yield math.ceil(int(quota) / int(period))
    for group in control_groups("cpu"):
        if (group / "cpu.cfs_quota_us").is_file() and (quota_us := _number(group / "cpu.cfs_quota_us")) > 0:
            yield math.ceil(quota_us / _number(group / "cpu.cfs_period_us"))


def _number(file: Path) -> int:
    return int(file.read_text())


def _by_slurm() -> Iterator[int]:
    """For sites whose SLURM binds its tasks to no cores."""
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if given.isdecimal():
        yield int(given)
