"""`atlas STAGE` and `atlas run`: bring products up to date."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from pipeline.commands.runs import chosen_run, with_executor
from pipeline.disk.places import Place
from pipeline.index.missing_views import check_views
from pipeline.stages import OPTIONAL_STAGES, STAGES
from pipeline.work.log import close_work_log, open_work_log
from pipeline.work.share import Share
from pipeline.work.stops import stop_after


def bring_up_to_date(
    config: Path | None,
    directory: Place | None,
    assignments: tuple[str, ...],
    quiet: bool,
    executor: str | None = None,
    part: Share | None = None,
    lifetime: int | None = None,
    **options: bool,
) -> None:
    """Run the stage that the command is called after."""
    name = click.get_current_context().command.name
    stage = next(stage for stage in (*STAGES, *OPTIONAL_STAGES) if stage.name == name)
    run = chosen_run(config, directory, with_executor(executor, assignments), quiet)
    if part is not None:
        run = replace(run, share=part)
        open_work_log(run.directory)
    if lifetime is not None:
        stop_after(lifetime)
    try:
        run.say(str(stage.bring_up_to_date(run, **options)))
    finally:
        close_work_log()


def bring_all_up_to_date(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, executor: str | None) -> None:
    """Run all stages in order."""
    run = chosen_run(config, directory, with_executor(executor, assignments), quiet)
    for stage in STAGES:
        if stage.writes == "features":
            check_views(run)
        run.say(str(stage.bring_up_to_date(run)))
