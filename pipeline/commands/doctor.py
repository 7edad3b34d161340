"""`atlas doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.disk.places import Place
from pipeline.doctor.checks import doctor
from pipeline.doctor.findings import Asked
from pipeline.look.plan import predicted_bytes


def examine_machine(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, as_json: bool, quick: bool) -> None:
    """Check this machine before a run. Prints one line per check, with a remedy. Exit code 1 if a check fails. --config and --run are optional."""
    directory = directory or Path("runs") / (config.stem if config else "")
    if not doctor(Asked(directory, config, assignments, predicted_bytes(directory, config, assignments)), click.echo, quick=quick, as_json=as_json):
        click.get_current_context().exit(1)
