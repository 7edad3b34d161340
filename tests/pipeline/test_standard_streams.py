"""A reader that leaves, and descriptors that are closed or full: work goes on, and exit codes stay what they are."""

import os
import pty
import shlex
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from pipeline.look.verify import verify

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
NO_ROOM = "atlas: standard output: No space left on device. What is done is kept: make room and call the same command again\n"


def atlas(arguments, redirections="", **options):
    """Call the command as a shell does; return code and standard error."""
    command = f"{shlex.join([sys.executable, '-m', 'pipeline', *map(str, arguments)])} {redirections}"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=300, **options)
    return done.returncode, done.stderr


def without_a_reader(arguments, *names):
    """Call the command with pipes that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    pipes = dict.fromkeys(names, writer)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *map(str, arguments)], check=False, cwd=ROOT, env=ENVIRONMENT, timeout=300,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes},
        )  # fmt: skip
    finally:
        os.close(writer)
    return done.returncode, (done.stderr or b"").decode()


def python(text, redirections="", **options):
    command = f"{shlex.join([sys.executable, '-c', text])} {redirections}"
    return subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, cwd=ROOT, env={**ENVIRONMENT, **options}, timeout=60)


def work_on(lab, directory):
    """The options that make one checkpoint of the lab's photos."""
    sets = [part for assignment in lab.assignments("net_000.pth") for part in ("--set", assignment)]
    return ["--config", lab.config, "--run", directory, *sets]


@pytest.mark.parametrize("command", [["status"], ["verify"], ["methods"], ["--help"]])
def test_reading_commands_end_quietly_when_their_reader_has_left(finished, command):
    run = ["--run", finished.directory] if command[0] in ("verify", "status") else []
    assert without_a_reader([*command, *run], "stdout") == (0, "")


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", "2>/dev/full"])
def test_a_descriptor_that_is_closed_stops_no_reading(finished, redirections):
    assert atlas(["status", "--run", finished.directory], redirections) == (0, "")


def test_work_goes_on_when_the_reader_leaves(lab, tmp_path):
    """As `atlas run | head -1`; of the stages, only the first had come to its end."""
    assert without_a_reader(["run", *work_on(lab, tmp_path / "run")], "stdout", "stderr") == (0, "")
    assert (tmp_path / "run" / "report" / "index.html").is_file()


def test_no_file_of_a_store_gets_the_number_of_a_closed_descriptor(lab, tmp_path):
    assert atlas(["run", *work_on(lab, tmp_path / "run")], "<&- >&- 2>&-") == (0, "")
    assert verify(lab.run(tmp_path / "run")).faults == []


def test_a_terminal_that_goes_away_under_a_progress_bar_stops_nothing(lab, fresh):
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 100))
    command = [sys.executable, "-m", "pipeline", "extract", *map(str, work_on(lab, fresh))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=end, cwd=ROOT, env=ENVIRONMENT) as process:
        os.close(end)
        said = b""
        while b"%|" not in said:
            said += os.read(terminal, 1000)
        os.close(terminal)
        assert process.wait(timeout=120) == 0


def test_exit_codes_stay_when_nobody_reads_the_error():
    assert without_a_reader(["status", "--run", "nowhere"], "stdout", "stderr")[0] == 1
    assert atlas(["status", "--run", "nowhere"], "2>/dev/full") == (1, "")
    assert atlas(["extrct"], "2>&-") == (2, "")


@pytest.mark.parametrize("command", [["status"], ["--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_standard_output_is_one_line(finished, command, unbuffered, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "PYTHONUNBUFFERED", unbuffered)
    run = ["--run", finished.directory] if command[0] == "status" else []
    assert atlas([*command, *run], ">/dev/full") == (1, NO_ROOM)


def test_what_is_logged_or_warned_or_printed_by_others_goes_on_too():
    text = (
        "from pipeline.standard_streams import keep_standard_streams as keep; keep()\n"
        "import logging, os, subprocess, sys, warnings\n"
        "for _ in range(3): print('x' * 100_000, flush=True); logging.error('x' * 100_000); warnings.warn('x' * 100_000)\n"
        "os.write(1, b'x'); os.write(2, b'x'); subprocess.run(['echo', 'x'], check=True)\n"
        "open('/proc/self/fd/0').close()\n"
        "sys.exit(7)\n"
    )
    for redirections in (">&- 2>&- <&-", "2>&1 | true; exit ${PIPESTATUS[0]}", ">/dev/null 2> >(true); exit $?"):
        assert python(text, redirections).returncode == 7


def test_the_stream_is_as_python_made_it():
    text = "from pipeline.standard_streams import keep_standard_streams as keep; keep()\nimport sys; print(sys.stdout.encoding, chr(233))\n"
    assert python(text, PYTHONIOENCODING="ascii:backslashreplace").stdout == "ascii \\xe9\n"
    unbuffered = "from pipeline.standard_streams import keep_standard_streams as keep; keep()\nimport os; print('x', end=''); os._exit(0)\n"
    assert python(unbuffered, PYTHONUNBUFFERED="1").stdout == "x"


def test_a_signal_before_anything_is_begun_needs_no_reader_either():
    text = "import os, signal\nfrom pipeline.work.stops import stopping_at_once\nwith stopping_at_once(): os.kill(os.getpid(), signal.SIGTERM)\n"
    assert python(text, "2> >(true); exit $?").returncode == 75
    assert python(text, "2>/dev/full").returncode == 75
