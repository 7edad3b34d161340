"""What `atlas doctor` is asked about, and what a check answers."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Literal

from pipeline.disk.places import Place, local_folder
from pipeline.settings.all import Settings, load_settings

_SCRATCH = ".atlas-doctor-"


@dataclass(frozen=True)
class Finding:
    """What a check found; `name` is its row's in CHECKS, `remedy` is empty where the status is ok."""

    name: str
    status: Literal["ok", "warn", "fail"]
    text: str
    remedy: str


def ok(text: str) -> Finding:
    """Nothing is amiss. The name is filled in by whoever calls the check; so in `warn` and `fail`."""
    return Finding("", "ok", text, "")


def warn(text: str, remedy: str) -> Finding:
    """A run is possible, but slow or risky."""
    return Finding("", "warn", text, remedy)


def fail(text: str, remedy: str) -> Finding:
    """A run would stop."""
    return Finding("", "fail", text, remedy)


@dataclass(frozen=True)
class Asked:
    """What the checks are about.

    Parameters
    ----------
    directory : Path or ObjectPath
        Of the run; need not be there.
    config : Path or None
    assignments : tuple of str
        "table.key=value" each.
    needed_bytes : int or None
        Predicted size of what `extract` will write; None where nobody can tell.
    """

    directory: Place
    config: Path | None = None
    assignments: tuple[str, ...] = ()
    needed_bytes: int | None = None

    @cached_property
    def settings(self) -> Settings:
        """The settings; the defaults where they cannot be read, which the check of the config tells."""
        try:
            return load_settings(self.config, self.assignments)
        except (ValueError, OSError):
            return Settings()

    @property
    def place(self) -> Path:
        """The run's directory, or the nearest parent that is there; of local ones only."""
        return next(path for path in (self.local, *self.local.absolute().parents) if path.exists())

    @property
    def local(self) -> Path:
        """The run's directory, where it is a folder."""
        return local_folder(self.directory, "atlas doctor")

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """Return a directory in `place` to try things in; removed on leaving it, also by an error."""
        return tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self.place)


def one_line(error: BaseException) -> str:
    """Return an error's text without line breaks, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def readable_size(size: int) -> str:
    """Write a number of bytes in MB or GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def installed_version(package: str) -> str | None:
    """Return the version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
