"""`atlas forget-checkpoint`."""

from __future__ import annotations

from pathlib import Path

from pipeline.commands.runs import chosen_run
from pipeline.disk.places import Place
from pipeline.disk.space import human_bytes
from pipeline.forgetting import forget_checkpoints


def forget(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, names: tuple[str, ...]) -> None:
    """Take checkpoints out of a run: features, heat maps, figures, curves, and the pictures that show only them. The checkpoint files stay."""
    run = chosen_run(config, directory, assignments, quiet)
    found = forget_checkpoints(run, names)
    run.say(f"forget-checkpoint: {', '.join(found.names)} taken out, {human_bytes(found.bytes)} deleted, including {found.pictures} pictures")
    run.say("  run `atlas stats`, `atlas render` and `atlas report` to bring the rest up to date")
