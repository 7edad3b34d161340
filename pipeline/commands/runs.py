"""The run that a command's options name."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.disk.places import Place
from pipeline.run.directory import Run
from pipeline.settings.all import load_settings


def chosen_run(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool) -> Run:
    """Read the settings and name the run's directory."""
    if config is None and directory is None:
        raise click.UsageError("give --config FILE, --run DIR or both")
    if directory is not None and directory.exists() and not directory.is_dir():
        raise click.UsageError(f"--run {directory}: a file; expected a directory")
    return Run(directory or Path("runs") / Path(str(config)).stem, load_settings(config, assignments), progress=not quiet and sys.stderr.isatty())


def with_executor(executor: str | None, assignments: tuple[str, ...]) -> tuple[str, ...]:
    """Add what --on says to what --set says."""
    return assignments if executor is None else (*assignments, f"compute.executor='{executor}'")
