"""Runs `atlas` commands in processes of their own, which may fail at a chosen step; started once, so that no command costs imports.

A step is a call that changes what is on the disk: fsync, rename, unlink, mkdir, rmdir, write. Reads one JSON request a
line: {"arguments", "log", "fault", "at", "delay_s", "learn"}; answers {"code"}, the code negative where a signal ended it.
What a command imports that was to "learn", the server imports as well: later ones find it there.
{"arguments", "log", "start": true} answers {"pid"} at once, of a process that is as a shell would have started it, in a session
of its own; {"poll": pid} answers its {"code"}, null while it runs.
"""

import atexit
import errno
import importlib
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress

from pipeline import __main__ as entry
from pipeline.commands.group import main
from stages.report import page

page.draw_plots = lambda stats: []  # they take longer than all the rest, and no step of theirs changes the disk

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
STEPS = ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir", "write")


class Fault:
    """Counts the steps of this process; at step `at` the fault happens, before the step is done (in the middle of it, for a write)."""

    def __init__(self, kind, at):
        self.kind, self.at, self.steps = kind, at, 0
        self.lock = threading.Lock()

    def watch(self, name):
        original = getattr(os, name)

        def step(*arguments, **options):
            with self.lock:
                self.steps += 1
                now = self.steps
            if self.at and (now == self.at or (self.kind == "full" and now > self.at and name in ("write", "mkdir"))):
                if name == "write" and len(arguments[1]) > 1 and self.kind in ("kill", "full"):
                    original(arguments[0], arguments[1][: len(arguments[1]) // 2])
                self.happen(name)
            return original(*arguments, **options)

        setattr(os, name, step)

    def happen(self, name):
        if self.kind in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.kind])
            time.sleep(0.01 if self.kind != "kill" else 10)  # a signal to Python is handled by its main thread, soon
        elif self.kind == "full" and name in ("write", "mkdir", "replace"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "here")
        elif self.kind == "error":
            raise RuntimeError("an error that nobody expected")


def run(request):
    """In the child: run the command with its output in a file; never returns."""
    redirect(request["log"])
    fault = Fault(request.get("fault"), request.get("at", 0))
    for name in STEPS:
        fault.watch(name)
    code = 3
    try:
        main(request["arguments"])
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:  # noqa: BLE001  (a trace in the log, as an interpreter would leave)
        sys.stderr.write(f"Traceback: {error!r}\n")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    with open(f"{request['log']}.steps", "w") as file:  # noqa: PTH123
        file.write(str(fault.steps))
    if request.get("learn"):
        with open(f"{request['log']}.modules", "w") as file:  # noqa: PTH123
            file.write("\n".join(sys.modules))
    os._exit(code)


def learn(path):
    """Our own modules first: they know in which order others can be imported."""
    with open(path) as file:  # noqa: PTH123
        for name in sorted(file.read().splitlines(), key=lambda name: not name.startswith(("safenet.", "stages.", "pipeline."))):
            with suppress(ImportError):
                importlib.import_module(name)


def begin(request):
    """In the child: become what `python -m pipeline` is; never returns."""
    os.setsid()
    redirect(request["log"])
    sys.argv, sys.modules["__main__"] = ["atlas", *request["arguments"]], entry  # whose processes import it by this name
    code = 0
    try:
        entry.main()
    except SystemExit as end:
        code = end.code or 0
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # to take all modules down would take longer than most commands


def redirect(path):
    nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)


def poll(pid):
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def answer(**found):
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def serve():
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            answer(code=poll(request["poll"]))
            continue
        child = os.fork()
        if child == 0:
            begin(request) if "start" in request else run(request)
        if "start" in request:
            answer(pid=child)
            continue
        if "delay_s" in request:
            time.sleep(request["delay_s"])
            os.kill(child, SIGNALS[request["fault"]])
        _, status = os.waitpid(child, 0)
        if request.get("learn"):
            learn(f"{request['log']}.modules")
        answer(code=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    serve()
