"""Checks of `atlas doctor` on the machine: the place of the run, and what the system grants a process."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import resource
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from pipeline.doctor.findings import Asked, Finding, fail, ok, one_line, readable_size, warn
from pipeline.work.control_groups import control_groups

FEW_FREE_BYTES = 1_000_000_000
FEW_MEMORY_BYTES = 2_000_000_000
FEW_SHARED_BYTES = 64_000_000
FEW_OPEN_FILES = 1024
SLOW_MB_PER_S = 50
CLOCK_TOLERANCE_S = 3.0  # some file systems count whole seconds, FAT even ones
OLDEST_CLOCK = datetime(2024, 1, 1, tzinfo=UTC).timestamp()

SHARED_MEMORY = Path("/dev/shm")
MEMORY_FILE = Path("/proc/meminfo")

_SPEED_FILES, _SPEED_BYTES, _SPEED_LIMIT_S = 4, 8 * 2**20, 5.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_CGROUP_VERSIONS = (  # controller, files of limit and use, key of the file cache in memory.stat
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


# ---- the run's directory


def check_directory(asked: Asked) -> Finding:
    """Make a directory and a file where the run will be."""
    if asked.local.is_symlink() and not asked.local.exists():
        return fail(f"{asked.directory}: a link that leads nowhere", "Create the target of the link, or name another --run directory")
    if not asked.place.is_dir():
        return fail(f"{asked.place}: a file; expected a directory", "Name another --run directory")
    try:
        with asked.scratch() as scratch:
            (Path(scratch) / "file").write_bytes(b"written")
    except OSError as error:
        return fail(f"{asked.place}: cannot be written: {one_line(error)}", "Change its owner or mode, or name another --run directory")
    return ok(f"{asked.directory} can be {'written' if asked.directory.exists() else f'made in {asked.place}'}")


def check_space(asked: Asked) -> Finding:
    """Compare the free space with the predicted size of `extract`, where there is a prediction."""
    free, needed = shutil.disk_usage(asked.place).free, asked.needed_bytes
    text = f"{readable_size(free)} free in {asked.place}"
    remedy = "Free some, name another --run directory, or store less: fewer checkpoints, or less in extract.store"
    if needed is not None and free < needed:
        return fail(f"{text}; extract will write {readable_size(needed)}", remedy)
    if free < FEW_FREE_BYTES:
        return warn(f"{text}; expected {readable_size(FEW_FREE_BYTES)} or more", remedy)
    return ok(text if needed is None else f"{text}; extract will write {readable_size(needed)}")


def check_write_speed(asked: Asked) -> Finding:
    """Write files as the stores do (write, fsync, rename) and take the time; a very slow disk is given up on early."""
    content = os.urandom(_SPEED_BYTES)  # a file system that compresses gains nothing by it
    written, started = 0, time.perf_counter()
    with asked.scratch() as scratch:
        for number in range(_SPEED_FILES):
            with (Path(scratch) / "partial").open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            (Path(scratch) / "partial").replace(Path(scratch) / str(number))
            written, elapsed_s = written + len(content), time.perf_counter() - started
            if elapsed_s > _SPEED_LIMIT_S:
                break
    speed = written / 1e6 / elapsed_s
    text = f"{speed:,.0f} MB/s in {asked.place}"
    if speed < SLOW_MB_PER_S:
        return warn(f"{text}; expected {SLOW_MB_PER_S} or more", "Name a --run directory on a local disk: extract would wait for this one")
    return ok(text)


def check_locks(asked: Asked) -> Finding:
    """Lock a file, and see that a second holder is refused."""
    remedy = "Name a --run directory on a file system with locks, or never let two processes work on this run"
    with asked.scratch() as scratch, (Path(scratch) / "lock").open("wb") as first, (Path(scratch) / "lock").open("wb") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return warn(f"{asked.place}: the file system refuses file locks: {one_line(error)}", remedy)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ok(f"file locks work in {asked.place}")
    return warn(f"{asked.place}: the file system gives one lock to two holders", remedy)


def check_clock(asked: Asked) -> Finding:
    """Compare a new file's time with the system's."""
    with asked.scratch() as scratch:
        before = time.time()
        (Path(scratch) / "file").write_bytes(b"written")
        written, after = (Path(scratch) / "file").stat().st_mtime, time.time()
    today = f"{datetime.fromtimestamp(after, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if after < OLDEST_CLOCK:
        return fail(f"the system's clock says {today}", "Set it (timedatectl set-ntp true): products carry their time")
    apart_s = max(before - written, written - after, 0.0)
    if apart_s > CLOCK_TOLERANCE_S:
        text = f"files in {asked.place} are dated {apart_s:,.0f} s {'behind' if written < before else 'ahead of'} the system's clock"
        return warn(text, "Set both clocks by NTP: this machine's and the file server's")
    return ok(f"{today}; files agree within {CLOCK_TOLERANCE_S:.0f} s")


# ---- the machine


def check_open_files(asked: Asked) -> Finding:
    """Look at the limit of open files."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return ok("no limit")
    if limit < FEW_OPEN_FILES:
        able = most == resource.RLIM_INFINITY or most >= FEW_OPEN_FILES
        remedy = f"Run `ulimit -n {FEW_OPEN_FILES}` first" + ("" if able else f"; the hard limit is {most}: have it raised (nofile in limits.conf)")
        return warn(f"{limit:,} open files are allowed; expected {FEW_OPEN_FILES:,} or more", remedy)
    return ok(f"{limit:,} open files are allowed")


def check_shared_memory(asked: Asked) -> Finding:
    """Look at the room in /dev/shm, through which the loader workers of `atlas train` hand over their batches."""
    if not SHARED_MEMORY.exists():
        if platform.system() != "Linux":
            return ok(f"no {SHARED_MEMORY} on {platform.system()}, and none needed")
        return warn(f"no {SHARED_MEMORY}; the loader workers of `atlas train` need it", "Mount a tmpfs there, or leave train.workers at 0")
    usage = shutil.disk_usage(SHARED_MEMORY)
    text = f"{readable_size(usage.free)} of {readable_size(usage.total)} free in {SHARED_MEMORY}"
    if usage.free < FEW_SHARED_BYTES:
        remedy = "Make it larger (docker run --shm-size=1g), or leave train.workers at 0"
        return warn(f"{text}; the loader workers of `atlas train` need {readable_size(FEW_SHARED_BYTES)}", remedy)
    return ok(text)


def check_memory(asked: Asked) -> Finding:
    """Look at the memory that this process can still get: the machine's, and what its control group leaves."""
    if not MEMORY_FILE.exists():
        return ok(f"not told by {platform.system()}: no {MEMORY_FILE}")
    amounts = dict(line.split(":", 1) for line in MEMORY_FILE.read_text().splitlines())
    available = int(amounts["MemAvailable"].split()[0]) * 1024
    left = _left_by_control_groups()
    text = f"{readable_size(available)} available"
    if left is not None and left < available:
        available, text = left, f"{readable_size(left)} left under the control group's limit (the machine has {text})"
    if available < FEW_MEMORY_BYTES:
        remedy = "End other programs or raise the limit (docker run --memory); or lower compute.workers, extract.workers and extract.batch_size"
        return warn(f"{text}; expected {readable_size(FEW_MEMORY_BYTES)} or more", remedy)
    return ok(text)


def _left_by_control_groups() -> int | None:
    """Return the least room, in bytes, that a control group of this process or a group above it leaves; None where none has a limit."""
    rooms = [
        _room(group, limit, used, cache)
        for controller, limit, used, cache in _CGROUP_VERSIONS
        for group in control_groups(controller)
        if (group / limit).is_file()
    ]
    return min((room for room in rooms if room is not None), default=None)


def _room(group: Path, limit: str, used: str, cache: str) -> int | None:
    """Return limit - use + what the kernel can drop of the file cache, in bytes; None without a limit."""
    most = (group / limit).read_text().strip()
    if most == "max":
        return None
    figures = (group / "memory.stat").read_text() if (group / "memory.stat").is_file() else ""
    droppable = dict(line.split() for line in figures.splitlines()).get(cache, 0)
    return max(0, int(most) - int((group / used).read_text()) + int(droppable))
