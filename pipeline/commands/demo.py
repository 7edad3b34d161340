"""`atlas demo`."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline import demo as demo_module
from pipeline.disk.places import Place
from pipeline.run.directory import Run


def demo(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool) -> None:
    """Make scenes, train a small network on them, run every stage, and print where the report is."""
    directory = directory or Path("runs/demo")
    settings = demo_module.demo_settings(config or demo_module.CONFIG, directory, assignments)
    run = Run(directory, settings, progress=not quiet and sys.stderr.isatty())
    run.say(f"open {demo_module.demo(run)}")
