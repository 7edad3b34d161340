"""Trials that break a command at a chosen step and finish it with a second call; what every promise of the stores is tested with."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from disk_content import content

from pipeline.look.verify import verify

SERVER = Path(__file__).with_name("fault_server.py")
ROOT = Path(__file__).parents[2]


class FaultServer:
    """A process that runs commands with faults, over and over."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SERVER.parent}", "OMP_NUM_THREADS": "1"}
        self.log = folder / "log"
        self._lock, self._numbers = threading.Lock(), count()
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )

    def run(self, arguments, **fault) -> int:
        """Return the exit code, negative where a signal ended the process."""
        return self.ask(arguments=arguments, log=str(self.log), **fault)["code"]

    def start(self, arguments) -> "Command":
        """Start a command, as `python -m pipeline` in a session of its own."""
        log = self.log.with_name(f"log{next(self._numbers)}")
        return Command(self, log, self.ask(arguments=[str(word) for word in arguments], log=str(log), start=True)["pid"])

    def ask(self, **request) -> dict:
        """Send a request; several threads may."""
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    @property
    def said(self) -> str:
        """What the last command printed."""
        return self.log.read_text()

    @property
    def steps(self) -> int:
        """How many steps the last command took; it must have come to its end."""
        return int(Path(f"{self.log}.steps").read_text())

    def close(self) -> None:
        with self._process:
            self._process.stdin.close()


@dataclass
class Command:
    """A command that was started, with as much of `subprocess.Popen` as tests need."""

    server: FaultServer
    log: Path
    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.server.ask(poll=self.pid)["code"]
        return self.returncode

    def wait(self, timeout: float) -> str:
        """Wait for the end, and return what was printed."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            assert time.monotonic() < deadline, f"still at work after {timeout} s: {self.said}"
            time.sleep(0.01)
        return self.said

    @property
    def said(self) -> str:
        """What it has printed."""
        return self.log.read_text()

    def kill(self) -> None:
        """Kill it, if it is there."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


@dataclass
class Counts:
    """What the trials came to."""

    trials: int = 0
    survived: int = 0
    lost_blocks: int = 0
    bad_pixels: int = 0
    codes: Counter = field(default_factory=Counter)

    def __str__(self) -> str:
        codes = ", ".join(f"{count} x exit {code}" for code, count in sorted(self.codes.items()))
        return (
            f"{self.trials} faults, {self.survived} survived; blocks lost beyond the open ones: {self.lost_blocks}; "
            f"bad pixels served: {self.bad_pixels} ({codes})"
        )


@dataclass
class Scenario:
    """A directory to begin with, the command to break, and what a finished run holds.

    Attributes
    ----------
    start : Path
        Copied for every trial.
    arguments : callable
        Directory -> the command.
    expected : mapping
        Content of an undisturbed run.
    steps : int
        That an undisturbed run takes.
    """

    start: Path
    arguments: object
    expected: dict
    steps: int

    @classmethod
    def of(cls, server: FaultServer, start: Path, folder: Path, arguments) -> "Scenario":
        directory = Path(shutil.copytree(start, folder / "run"))
        assert server.run(arguments(directory)) == 0, server.said
        return cls(start, arguments, content(directory), server.steps)


def run_trials(server: FaultServer, scenario: Scenario, folder: Path, lab, faults) -> Counts:
    """Break, look, finish, compare; each fault is a dict as the server takes it."""
    counts = Counts()
    for number, fault in enumerate(faults):
        directory = Path(shutil.copytree(scenario.start, folder / f"trial{number}" / "run"))  # a picture tells its run's name
        code = server.run(scenario.arguments(directory), **fault)
        said = server.said
        counts.codes[code] += 1
        counts.trials += 1
        check_what_it_said(fault, code, said)
        begun = (directory / "manifest.parquet").is_file() or (directory / "features.zarr").is_dir()
        faulty = verify(lab.run(directory)).faults if begun else []  # whatever a mark vouches for is what was written
        assert not faulty, f"{fault}: {faulty[0]}"
        before = marks(directory)
        assert server.run(scenario.arguments(directory)) == 0, f"{fault}: {said} -> {server.said}"
        after = marks(directory)
        counts.lost_blocks += sum(after.get(name) != moment for name, moment in before.items() if is_kept(name, scenario))
        found = content(directory)
        assert sorted(found) == sorted(scenario.expected), f"{fault}: other files: {set(found) ^ set(scenario.expected)}"
        different = [name for name in found if found[name] != scenario.expected[name]]
        assert not different, f"{fault}: {different}"
        counts.survived += 1
        shutil.rmtree(directory)
    return counts


def check_what_it_said(fault, code, said) -> None:
    """Every end is a documented one, and told in one line."""
    kind, lines = fault["fault"], [line for line in said.splitlines() if line.startswith("atlas: ")]
    if kind == "kill":
        assert code in (-9, 0), said
    elif kind in ("term", "int"):
        assert code in (75, 0), said
        if code == 75:
            (line,) = lines
            assert f"stopped by SIG{kind.upper()}" in line
            assert "Call the same command again to go on" in line
    elif kind == "full":
        assert code == 1, said
        (line,) = lines
        assert "No space left on device" in line
        assert "make room and call the same command again" in line


def marks(directory: Path) -> dict[str, int]:
    """When each block of the features was marked."""
    found = (directory / "ledger" / "features").rglob("[0-9]*.json")
    return {path.relative_to(directory).as_posix(): path.stat().st_mtime_ns for path in found}


def is_kept(name: str, scenario: Scenario) -> bool:
    """A mark that was there in the beginning may have been replaced on purpose; one that the broken call made may not be lost."""
    return not (scenario.start / name).exists() and "/." not in name


def spread_steps(steps: int, count: int, seed: int) -> list[int]:
    """Steps to fail at: evenly over the whole run, jittered."""
    draw = random.Random(seed)
    return [1 + min(steps - 1, int((number + draw.random()) * steps / count)) for number in range(count)]
