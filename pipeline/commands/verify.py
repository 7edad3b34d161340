"""`atlas verify`."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.runs import chosen_run
from pipeline.disk.places import Place
from pipeline.disk.space import human_bytes
from pipeline.look.verify import verify
from pipeline.text_tables import in_one_line


def verify_run(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, sample: str, repair: bool) -> None:
    """Read the stores again and compare them with their marks. Names every damaged, missing or foreign block and file; exit code 1 if any."""
    run = chosen_run(config, directory, assignments, quiet)
    found = verify(run, sample=_share(sample), repair=repair)
    for note in found.notes:
        run.say(f"note: {note}")
    for fault in found.faults:
        run.say(f"{fault.kind}: {fault.where}: {in_one_line(fault.text)}")
    run.say(f"verify: {found.checked_blocks:,} blocks, {human_bytes(found.checked_bytes)} read, {len(found.faults)} faults")
    if found.faults:
        remedy = "`atlas verify --repair` removes the marks of exactly these, so that their stages make them again"
        run.say("the marks of these are removed: run their stages again" if repair else remedy)
        for fault in found.beyond_repair if repair else ():
            run.say(f"left as it is: {fault.where}: {fault.text}")
        click.get_current_context().exit(0 if repair and not found.beyond_repair else 1)


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1
    if not 0 < share <= 1:
        raise click.UsageError(f"--sample {text}: expected a share, such as 5% or 0.05")
    return share
