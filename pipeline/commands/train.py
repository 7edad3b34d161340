"""`atlas train`."""

from __future__ import annotations

from pathlib import Path

from pipeline.commands.runs import chosen_run
from pipeline.disk.places import Place
from pipeline.training import train_run


def train(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool) -> None:
    """Train a network on the dataset's training split."""
    train_run(chosen_run(config, directory, assignments, quiet))
