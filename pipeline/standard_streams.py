"""Standard output and standard error that never stop the work: a reader may leave, and a descriptor may be closed from the start."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

READER_GONE = (errno.EPIPE, errno.ECONNRESET, errno.EIO)  # a pipe, a socket, a terminal
_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}


def keep_standard_streams() -> None:
    """Open what is closed on the null device, and let `sys.stdout` and `sys.stderr` go on without a reader.

    To be called before anything opens a file: the first one would get the number of a descriptor that is closed, and what is
    printed would be written into it.
    """
    _fill_closed_descriptors()
    for name, descriptor in _STREAMS.items():
        stream = getattr(sys, name)
        if stream is None:  # it was closed when Python started
            setattr(sys, name, open(os.devnull, "w" if descriptor else "r", encoding="utf-8"))  # noqa: SIM115, PTH123  (as long as the process)
        elif descriptor and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _enduring(stream, descriptor))


def _fill_closed_descriptors() -> None:
    for descriptor in _STREAMS.values():
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one


def _enduring(stream: io.TextIOWrapper, descriptor: int) -> io.TextIOWrapper:
    """Return a stream like `stream` on a descriptor that outlives its reader."""
    file = _EnduringFile(descriptor)
    buffer: Any = file if stream.write_through else io.BufferedWriter(file)  # through: python -u
    return io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=stream.line_buffering, write_through=stream.write_through)


class _EnduringFile(io.FileIO):
    """A descriptor that leads to the null device once its reader is gone; for everybody who writes to it, children included."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.name = "<stdout>" if descriptor == 1 else "<stderr>"

    def write(self, content: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Write; raise an OSError once, where standard output cannot take it for another reason, such as a full disk."""
        if not content:
            return 0  # a library that tries whether the stream takes text must not meet the error that is told once
        try:
            return super().write(content) or 0
        except OSError as error:
            self._lead_nowhere()  # what is left in the buffer would fail again when the process ends
            if self.fileno() == 2 or error.errno in READER_GONE:
                return len(memoryview(content).cast("B"))
            raise OSError(error.errno, error.strerror, "standard output") from None

    def _lead_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
