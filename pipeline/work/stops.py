"""SIGINT, SIGTERM and SIGUSR1 end a command cleanly: blocks that are whole are written, open ones are dropped, and it says what is left."""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from pipeline.disk.places import Place
from pipeline.disk.space import free_bytes, human_bytes

EXIT_STOPPED = 75  # EX_TEMPFAIL: call again; what batch systems take for "requeue"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last is what `sbatch --signal=USR1@120` sends ahead of the wall clock
UNWIND_S = 60  # no stop takes longer: see `stop_on_signals`
FINALISERS_S = 5
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Stopped(BaseException):  # like KeyboardInterrupt: no `except Exception` may catch it
    """A signal asked to stop; the notes tell what is left."""


_stop: Stopped | None = None
_is_loading = False


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise Stopped in the main thread at the first signal; a second one ends the process at once.

    An exception that a handler raises may hit between the taking of a lock and the `try` that gives it back, in any library,
    and the way out may then wait for that lock for ever. So the way out has a limit: beyond it the process ends where it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked, over = threading.Event(), threading.Event()
    threading.Thread(target=_limit_the_way_out, args=(asked, over), daemon=True).start()

    def stop(number: int, frame: FrameType | None) -> None:
        asked.set()
        _on_signal(number, frame)

    with _handling(stop):
        try:
            yield
        finally:
            over.set()  # however it ends: what comes after is limited by `leave_stopped`
            asked.set()
            _clear()


def stop_after(seconds: float) -> None:
    """Send this process SIGUSR1 after a while."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.daemon = True
    timer.start()


def leave_stopped() -> NoReturn:
    """End the process with the code of a stop; its finalisers get a few seconds, as one may wait for a lock for ever."""
    finalisers = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    finalisers.start()
    finalisers.join(FINALISERS_S)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(EXIT_STOPPED)


@contextmanager
def loading() -> Iterator[None]:
    """Hold a stop back while modules are imported: within an import, an exception from a handler may be lost or change its kind."""
    global _is_loading  # noqa: PLW0603  (signals are the process's own)
    if _is_loading or threading.current_thread() is not threading.main_thread():
        yield
        return
    _is_loading = True
    try:
        yield
    finally:
        _is_loading = False
    check_stop()


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """End the process at the first signal: nothing has been begun."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):  # nobody may be reading
            os.write(2, f"atlas: stopped by {signal.Signals(number).name} before anything began. Call the same command again\n".encode())
        os._exit(EXIT_STOPPED)

    with _handling(end):
        yield


def check_stop() -> None:
    """Raise Stopped if a signal came whose exception was lost, as in a finaliser; stages call this between blocks."""
    if _stop is not None:
        raise _stop


@contextmanager
def telling_what_is_left(describe: Callable[[], str], where: Place) -> Iterator[None]:
    """Note what is left to do on the way of a stop to the user; on that of a full disk, what is free at `where`, too."""
    try:
        yield
    except Stopped as stop:
        stop.add_note(describe())
        raise
    except OSError as error:
        if error.errno in OUT_OF_SPACE:
            free = free_bytes(where)
            error.add_note(f"{'' if free is None else f'{human_bytes(free)} are free at {where}, '}{describe()}")
        raise


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _stop  # noqa: PLW0603  (signals are the process's own)
    if _stop is not None:
        os._exit(EXIT_STOPPED)  # safe: a kill at any instant loses no more than the open blocks
    _stop = Stopped(signal.Signals(number).name)
    if not _is_loading:
        raise _stop


def _limit_the_way_out(asked: threading.Event, over: threading.Event) -> None:
    asked.wait()
    if not over.wait(UNWIND_S):
        os._exit(EXIT_STOPPED)  # safe, as above


def _clear() -> None:
    global _stop  # noqa: PLW0603
    _stop = None
