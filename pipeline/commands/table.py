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
    "replace": "Compute features again that were made with other settings or from other images. The old ones stay until the new ones are complete.",
    "retry_bad": "Try the bad photos again.",
    "forget": "Take images out of the manifest that are no longer in the dataset.",
    "partial": "Leave out unfinished checkpoints instead of refusing.",
}


def _stage_row(stage: Stage) -> CommandRow:
    """Make a command of a row of STAGES."""
    reads = f"Reads {', '.join(stage.reads)}; writes {stage.writes}. Runs on the {stage.worker.upper()}."
    flags = [click.Option([f"--{name.replace('_', '-')}"], is_flag=True, help=_STAGE_OPTION_HELP[name]) for name in reversed(stage.options)]
    return CommandRow(stage.name, "stages", "bring_up_to_date", f"{stage.summary}\n\n{reads}", (*flags, *(FARM if stage.has_parts else ()), *COMMON))


COMMANDS: Sequence[CommandRow] = (
    *map(_stage_row, (*STAGES, *OPTIONAL_STAGES)),
    CommandRow("run", "stages", "bring_all_up_to_date", "Run all stages in order. What is up to date is not computed again.", (ON, *COMMON)),
    CommandRow(
        "train",
        "train",
        "train",
        "Train a network on the training split of the dataset. It writes one checkpoint per epoch to RUN/checkpoints and goes on where it stopped.",
        COMMON,
    ),
    CommandRow(
        "demo",
        "demo",
        "demo",
        "Run every stage on procedural scenes. Makes the scenes, trains a small network on them, and prints where the report is.",
        COMMON,
    ),
    CommandRow(
        "submit",
        "submit",
        "submit_stages",
        "Queue stages as SLURM jobs, each after the one before. Without names: all of them, but index only if there is no manifest.\n\n"
        "Scripts, logs and job numbers go to RUN/jobs. A second call queues the same stages again; what is done is not computed again.",
        (
            click.Option(["--dry-run"], is_flag=True, help="Print the scripts and the commands that would queue them; write and queue nothing."),
            click.Option(["--after"], metavar="JOB", help="Let the first stage wait for this job to succeed."),
            click.Option(
                ["--jobs", "job_file"],
                type=click.Path(path_type=Path),
                default=Path("configs/slurm.toml"),
                show_default=True,
                help="TOML file that says what the jobs of each stage ask for.",
            ),
            *COMMON,
            click.Argument(["stages"], nargs=-1, metavar="[STAGE]..."),
        ),
    ),
    CommandRow(
        "status",
        "status",
        "status",
        "Show what a run contains.",
        (
            click.Option(
                ["--bad"],
                is_flag=True,
                help="List the bad images and those with values that are not finite: file, reason, date, remedy.",
            ),
            *COMMON,
        ),
    ),
    CommandRow(
        "plan",
        "plan",
        "show_plan",
        "Show what every stage would do. Says what is fresh, stale (and why), partial or missing, with images, bytes and time.",
        (click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for programs."), *COMMON),
    ),
    CommandRow(
        "table",
        "image_table",
        "write_table",
        "Write the figures of images as one table. A row for each image, checkpoint and map, with place, view, split and variant.",
        (
            click.Option(["--checkpoint", "checkpoints"], multiple=True, metavar="NAME", help="Only this checkpoint; may be given several times."),
            click.Option(["--out"], type=click.Path(path_type=Path), required=True, help="File to write; it ends in .parquet or .csv."),
            *COMMON,
        ),
    ),
    CommandRow(
        "forget-checkpoint",
        "forget",
        "forget",
        "Take checkpoints out of a run. Deletes features, heat maps, figures, curves, and the pictures that show only them. Checkpoint files stay.",
        (*COMMON, click.Argument(["names"], nargs=-1, required=True, metavar="NAME...")),
    ),
    CommandRow(
        "verify",
        "verify",
        "verify_run",
        "Compare the stores with their marks. Reads them again and names each damaged, missing or foreign block and file; exit code 1 if any.",
        (
            click.Option(
                ["--sample"], default="100%", metavar="SHARE", help="Share of the blocks to read, such as 5%. Every call draws a new sample."
            ),
            click.Option(["--repair"], is_flag=True, help="Remove the marks of what is wrong, so that its stage makes it again."),
            *COMMON,
        ),
    ),
    CommandRow("settings", "settings", "settings", "Print every setting with its default and meaning."),
    CommandRow(
        "methods",
        "methods",
        "methods",
        "Print every method, target and position. For each: what it is, where it exists, what it needs, what it costs, and whether it is exact.",
    ),
    CommandRow("figures", "figures", "figures", "Print every figure of `stats`: what it is, which maps have it, its frame and unit, its reduction."),
    CommandRow(
        "doctor",
        "doctor",
        "examine_machine",
        "Check this machine before a run. Prints one line per check, with a remedy. Exit code 1 if a check fails. --config and --run are optional.",
        (
            click.Option(["--json", "as_json"], is_flag=True, help="Print the findings as JSON."),
            click.Option(["--quick"], is_flag=True, help="Leave out the tiny run through all stages."),
            *COMMON,
        ),
    ),
)
