"""Which checkpoint files a configuration names."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipeline.checkpoints.notes import CheckpointNotes
from pipeline.disk.stamps import file_digest


@dataclass(frozen=True)
class CheckpointFile:
    """A file, by the path that the configuration names it by; its digest is read when it is asked for, unless the notes have it."""

    path: Path
    notes: CheckpointNotes | None = field(default=None, compare=False, repr=False)

    @cached_property
    def digest(self) -> str:
        """Of its bytes: what a checkpoint is known by, whatever its file is called."""
        return self.notes.digest(self.path) if self.notes else file_digest(self.path)

    @property
    def folder(self) -> str:
        """Absolute. A link counts where it lies, as its name was chosen there."""
        return os.path.dirname(os.path.abspath(self.path))  # noqa: PTH100, PTH120  (resolve would follow links)

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of its folders, the nearest first."""
        return tuple(reversed(Path(self.folder).parts[1:]))

    @property
    def stem(self) -> str:
        """Of its name."""
        return self.path.stem

    def series(self, pattern: str | None) -> str:
        """First group of `extract.series` in its path with forward slashes; the name of its folder where nothing matches."""
        found = re.search(pattern, f"{Path(self.folder).as_posix()}/{self.path.name}") if pattern else None
        return (found and found.group(1)) or (self.parents[0] if self.parents else "")


def find_checkpoint_files(patterns: Sequence[str], notes: CheckpointNotes | None = None) -> list[CheckpointFile]:
    """Expand the patterns, sorted by path; a file that two of them match is one file.

    Raises
    ------
    FileNotFoundError
        If there is no pattern, or one matches no file.
    """
    if not patterns:
        raise FileNotFoundError("extract.checkpoints names no checkpoint; give files or globs, for instance checkpoints = ['checkpoints/net_*.pth']")
    paths: dict[str, Path] = {}
    for pattern in patterns:
        matches = [Path(match) for match in glob.glob(pattern, recursive=True)]  # noqa: PTH207  (absolute patterns too)
        if not any(match.is_file() for match in matches):
            raise FileNotFoundError(f"extract.checkpoints: no file matches {pattern!r} (working directory {Path.cwd()})")
        paths |= {os.path.abspath(match): match for match in matches if match.is_file()}  # noqa: PTH100
    return [CheckpointFile(paths[key], notes) for key in sorted(paths)]
