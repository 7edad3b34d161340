"""The commands, one row each: what `--help` tells of each, and the module that does it, imported when the command runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from pipeline.commands.options import COMMON, FARM, ON
from pipeline.stages import OPTIONAL_STAGES, STAGES, Stage


@dataclass(frozen=True)
class CommandRow:
    """A row of COMMANDS.

    Parameters
    ----------
    name : str
        As it is typed.
    module, function : str
        What does it, below `pipeline.commands`; it takes the values of `params` by name.
    help : str
        Its first sentences stand in the list of all commands.
    params : tuple of click.Parameter
    """

    name: str
    module: str
    function: str
    help: str
    params: tuple[click.Parameter, ...] = ()


_STAGE_OPTION_HELP = {
    "replace": "Compute features anew that were made with other settings or of other images; the old ones stay until the new are complete.",
    "retry_bad": "Try the photos again that could not be read.",
    "forget": "Take images out of the manifest that are not in the dataset any more.",
    "partial": "Leave unfinished checkpoints out instead of refusing.",
}


def _stage_row(stage: Stage) -> CommandRow:
    """Make a command of a row of STAGES."""
    reads = f"Reads {', '.join(stage.reads)}; writes {stage.writes}. Runs on the {stage.worker.upper()}."
    flags = [click.Option([f"--{name.replace('_', '-')}"], is_flag=True, help=_STAGE_OPTION_HELP[name]) for name in reversed(stage.options)]
    return CommandRow(stage.name, "stages", "bring_up_to_date", f"{stage.summary}\n\n{reads}", (*flags, *(FARM if stage.has_parts else ()), *COMMON))


COMMANDS: Sequence[CommandRow] = (
    *map(_stage_row, (*STAGES, *OPTIONAL_STAGES)),
    CommandRow("run", "stages", "bring_all_up_to_date", "Run all stages in order; what is up to date is left alone.", (ON, *COMMON)),
    CommandRow(
        "train",
        "train",
        "train",
        "Train a network on the dataset's training split; one checkpoint an epoch in RUN/checkpoints. Goes on where it stopped.",
        COMMON,
    ),
    CommandRow("demo", "demo", "demo", "Make scenes, train a small network on them, run every stage, and print where the report is.", COMMON),
    CommandRow(
        "submit",
        "submit",
        "submit_stages",
        "Queue stages on a SLURM cluster, each after the one before it; without names all of them, index only where there is no manifest.\n\n"
        "Scripts, logs and the jobs' numbers go to RUN/jobs. Called again, it queues the same stages anew: what is done is found done.",
        (
            click.Option(["--dry-run"], is_flag=True, help="Print the scripts and the commands that would queue them; write and queue nothing."),
            click.Option(["--after"], metavar="JOB", help="Let the first stage wait for this job to succeed."),
            click.Option(
                ["--jobs", "job_file"],
                type=click.Path(path_type=Path),
                default=Path("configs/slurm.toml"),
                show_default=True,
                help="TOML file with what each stage's jobs ask for.",
            ),
            *COMMON,
            click.Argument(["stages"], nargs=-1, metavar="[STAGE]..."),
        ),
    ),
    CommandRow(
        "status",
        "status",
        "status",
        "Show what a run holds.",
        (
            click.Option(
                ["--bad"],
                is_flag=True,
                help="List the images that could not be used, or whose values are not finite: file, reason, since when, remedy.",
            ),
            *COMMON,
        ),
    ),
    CommandRow(
        "plan",
        "plan",
        "show_plan",
        "Show what every stage would do: fresh, stale and why, partial or missing; images, bytes and time.",
        (click.Option(["--json", "as_json"], is_flag=True, help="For machines."), *COMMON),
    ),
    CommandRow(
        "forget-checkpoint",
        "forget",
        "forget",
        "Take checkpoints out of a run: features, heat maps, figures, curves, and the pictures that show nothing else. Files of checkpoints stay.",
        (*COMMON, click.Argument(["names"], nargs=-1, required=True, metavar="NAME...")),
    ),
    CommandRow(
        "verify",
        "verify",
        "verify_run",
        "Re-read the stores against their marks; name every damaged, missing or foreign block and file. Exit code 1 if there are any.",
        (
            click.Option(["--sample"], default="100%", metavar="SHARE", help="Share of the blocks to read, such as 5%; drawn anew at every call."),
            click.Option(["--repair"], is_flag=True, help="Take the marks from what is wrong, so that its stage makes it again."),
            *COMMON,
        ),
    ),
    CommandRow("settings", "settings", "settings", "Print every setting with its default and meaning."),
    CommandRow(
        "methods",
        "methods",
        "methods",
        "Print every method, target and position: what it is, where it exists, what it needs and costs, whether it is exact.",
    ),
    CommandRow(
        "doctor",
        "doctor",
        "examine_machine",
        "Check this machine before a run: a line a check, with the remedy. Exit code 1 if one fails; --config and --run may both be left out.",
        (
            click.Option(["--json", "as_json"], is_flag=True, help="Print the findings as JSON."),
            click.Option(["--quick"], is_flag=True, help="Leave out the tiny run through all stages."),
            *COMMON,
        ),
    ),
)
