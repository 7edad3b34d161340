"""`atlas table`."""

from __future__ import annotations

from pathlib import Path

from pipeline.commands.runs import chosen_run
from pipeline.disk.places import Place
from pipeline.look.image_table import write_image_table


def write_table(
    config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, checkpoints: tuple[str, ...], out: Path
) -> None:
    """Write the figures of every image, checkpoint and map to a file."""
    run = chosen_run(config, directory, assignments, quiet)
    rows = write_image_table(run, out, checkpoints)
    run.say(f"table: {rows:,} rows in {out}")
