"""Jobs of the tests' SLURM: their states, their processes, and what they left in a run's directory."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr

ROOT = Path(__file__).parents[2]
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL"}


def tell(text):
    """Say what is going on: these tests take minutes, and are run with -s."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def say(*command):
    """Run a command that must succeed; return what it said."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=120, cwd=ROOT)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def atlas(command, lab, directory, *options, more=()):
    """Run `atlas COMMAND` in a process of its own; return what it said."""
    return say(*atlas_command(command, lab, directory, *options, more=more))


def atlas_command(command, lab, directory, *options, more=()):
    sets = [part for assignment in (*lab.assignments(), *more) for part in ("--set", assignment)]
    return [sys.executable, "-P", "-m", "pipeline", command, "--config", str(lab.config), "--run", str(directory), *sets, *map(str, options)]


def states(job):
    """State of a job's tasks: {"4_1": "RUNNING"}; of a plain job {"4": ...}."""
    found = {}
    for block in say("scontrol", "--oneliner", "show", "job", job).splitlines():
        fields = dict(re.findall(r"(\w+)=(\S+)", block))
        task = fields.get("ArrayTaskId")
        found[f"{fields['ArrayJobId']}_{task}" if task else fields["JobId"]] = fields["JobState"]
    return found


def wait_until(condition, seconds=240, what="it comes to that", pause_s=0.1):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s until {what}"
        time.sleep(pause_s)


def wait_for_end(job, seconds=300):
    wait_until(lambda: set(states(job).values()) <= ENDED, seconds, f"job {job} ends")
    return states(job)


def processes(*words):
    """Numbers of processes whose command line holds all words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if all(word.encode() in line for word in words):
            found.append(int(path.parent.name))
    return found


def submitted(directory):
    return {job["stage"]: job["id"] for job in json.loads((directory / "jobs" / "submitted.json").read_text())["jobs"]}


def logs(directory):
    return "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted((directory / "jobs" / "logs").iterdir()))


def marks(directory, product="features"):
    return list((directory / "ledger" / product).rglob("0*.json"))


def chunks(directory):
    """Bytes of every chunk file, by its path in the run."""
    return {
        path.relative_to(directory): path.read_bytes()
        for store in ("features.zarr", "cams.zarr")
        for path in (directory / store).rglob("c.*")
        if path.is_file()
    }


def assert_same_bits(made, expected):
    found, wanted = chunks(made), chunks(expected)
    assert wanted
    assert set(found) == set(wanted)
    assert [path for path in wanted if found[path] != wanted[path]] == []
    with xr.open_zarr(made / "stats.zarr" / "all_checkpoints") as ours, xr.open_zarr(expected / "stats.zarr" / "all_checkpoints") as theirs:
        assert set(ours) == set(theirs)
        for name in theirs:
            np.testing.assert_array_equal(ours[name].values, theirs[name].values, err_msg=str(name))  # NaN equals NaN; bit for bit otherwise


def kill_in_the_middle(directory, task, stage, part):
    """Kill the command of a task that has done a block of its own."""
    found = _process_in_the_middle(directory, task, stage, part)
    os.kill(found, signal.SIGKILL)


def stop_in_the_middle(directory, task, stage, part):
    """Send USR1 to the script alone of a task that has done a block of its own, as SLURM does ahead of the wall clock."""
    _process_in_the_middle(directory, task, stage, part)
    say("scancel", "--signal=USR1", "--batch", task)


def _process_in_the_middle(directory, task, stage, part):
    """Wait for a task's first block; its stage's tasks must run one at a time."""
    wait_until(lambda: states(task.partition("_")[0]).get(task) == "RUNNING", what=f"{task} runs")
    before = len(marks(directory))
    wait_until(lambda: len(marks(directory)) > before, what=f"{task} does a block", pause_s=0.002)
    [found] = processes(stage, part, str(directory))
    return found


@contextmanager
def started(command, lab, directory, *options, more=()):
    """`atlas COMMAND` while it runs; killed if it is left."""
    process = subprocess.Popen(
        atlas_command(command, lab, directory, *options, more=more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def running_jobs():
    return say("squeue", "--noheader", "--states=RUNNING", "--format=%i").split()
