"""Which checkpoint files a configuration names, and what each is called in the stores."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.stores import JOINED


def find_checkpoint_files(patterns: Sequence[str]) -> dict[str, Path]:
    """Expand the patterns; name -> file, sorted by name.

    A name is the file's stem; where two files share it, their folders' names tell them apart.

    Raises
    ------
    FileNotFoundError
        If there is no pattern, or one matches no file.
    ValueError
        If two files cannot be told apart by folder and name.
    """
    if not patterns:
        raise FileNotFoundError("extract.checkpoints names no checkpoint; give files or globs, for instance checkpoints = ['checkpoints/net_*.pth']")
    paths: set[Path] = set()
    for pattern in patterns:
        matches = [Path(match) for match in glob.glob(pattern, recursive=True)]  # noqa: PTH207  (absolute patterns too)
        if not any(match.is_file() for match in matches):
            raise FileNotFoundError(f"extract.checkpoints: no file matches {pattern!r} (working directory {Path.cwd()})")
        paths |= {match for match in matches if match.is_file()}
    shared = Counter(path.stem for path in paths)
    named: dict[str, Path] = {}
    for path in sorted(paths):
        name = path.stem if shared[path.stem] == 1 else f"{path.resolve().parent.name}-{path.stem}"
        if name in named:
            raise ValueError(f"extract.checkpoints: {named[name]} and {path} would both be called {name!r}; rename a folder or a file")
        if name == JOINED or name.startswith("."):
            raise ValueError(f"extract.checkpoints: {path} would be called {name!r}, which the stores use themselves; rename the file")
        named[name] = path
    return named
