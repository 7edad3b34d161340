"""What the figures were measured on, and a table to print them in."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import NamedTuple


def describe_machine() -> str:
    """Processor, cores, device and library versions in a line."""
    import torch  # here: a child's peak memory, as the kernel counts it, begins with its parent's

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    libraries = ", ".join(f"{library} {version(library)}" for library in ("torch", "timm", "zarr", "dask", "numpy"))
    return f"{name}, {os.cpu_count()} cores, {device}; Python {platform.python_version()}, {libraries}"


def scratch() -> Path:
    """Make the folder that git ignores, on the disk that is measured."""
    folder = Path("runs")
    folder.mkdir(exist_ok=True)
    return folder


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = perf_counter()
    work()
    return perf_counter() - start


class Cost(NamedTuple):
    """Of a process: CPU seconds, wall seconds, peak memory in MB, and what it wrote to standard output."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    output: str


def cost(command: Sequence[str]) -> Cost:
    """Run a command to its end; a SystemExit with what it says where it fails."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        wall = perf_counter() - began
        for file in (output, errors):
            file.seek(0)
        if status:
            raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}: {errors.read()}")
        return Cost(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1e3, output.read())


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, ready for docs/benchmarks.md."""
    print(f"\n### {title}\n\n{describe_machine()}\n")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
