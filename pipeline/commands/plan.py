"""`atlas plan`."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.commands.runs import chosen_run
from pipeline.disk.places import Place
from pipeline.look.plan import plan, plan_json, plan_table
from pipeline.text_tables import format_table, terminal_width


def show_plan(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Show what every stage would do: what is fresh, stale (and why), partial or missing, with images, bytes and time."""
    run = chosen_run(config, directory, assignments, quiet)
    rows = plan(run)
    run.say(json.dumps(plan_json(rows), indent=1) if as_json else format_table(plan_table(rows), terminal_width()))
