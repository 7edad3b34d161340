"""The command `atlas`: one command a stage, and a few that serve them."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pipeline import demo as demo_module
from pipeline.cam.target_checks import check_views
from pipeline.checkpoints.names import left_by_place, notes_on_left
from pipeline.disk.places import Place, place_of
from pipeline.disk.space import human_bytes
from pipeline.doctor.checks import doctor
from pipeline.doctor.findings import Asked
from pipeline.features.bad_images import bad_images
from pipeline.forgetting import forget_checkpoints
from pipeline.jobs.submit import Submission, check_job_id, chosen_stages, dry_run_texts, submit
from pipeline.look.plan import plan, plan_json, plan_table, predicted_bytes
from pipeline.look.status import overflow_lines, run_overflow, run_status
from pipeline.look.verify import verify
from pipeline.look.writers import RECENT_S, at_work
from pipeline.methods_page import methods_page
from pipeline.run.directory import Run
from pipeline.settings.all import load_settings
from pipeline.settings.compute import seconds_of
from pipeline.settings.jobs import read_job_settings
from pipeline.settings.page import settings_page
from pipeline.stages import OPTIONAL_STAGES, STAGES, Stage
from pipeline.text_tables import format_table, terminal_width
from pipeline.training import train_run
from pipeline.work.executors import EXECUTORS
from pipeline.work.log import close_work_log, open_work_log
from pipeline.work.share import Part
from pipeline.work.stops import EXIT_STOPPED, OUT_OF_SPACE, Stopped, stop_after, stop_on_signals
from stages.naming import known

EXPECTED_ERRORS = (ValueError, OSError, FloatingPointError)  # told in one line; anything else is a fault of ours and shows its trace
_OPTION_HELP = {
    "replace": "Compute features anew that were made with other settings or of other images; the old ones stay until the new are complete.",
    "retry_bad": "Try the photos again that could not be read.",
    "forget": "Take images out of the manifest that are not in the dataset any more.",
    "partial": "Leave unfinished checkpoints out instead of refusing.",
}


class OneLineErrors(click.Group):
    """Turns an expected error into one line on stderr and exit code 1, and a stop by a signal into one and exit code 75."""

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> click.Context:
        """Read the arguments; --help and --version print here."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except OSError as error:
            _tell(_out_of_space(error) or str(error))
            raise click.exceptions.Exit(1) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with stop_on_signals():
                return super().invoke(ctx)
        except Stopped as stop:
            _tell(f"stopped by {stop}; {_notes(stop) or 'what is done is kept'}. Call the same command again to go on")
            ctx.exit(EXIT_STOPPED)
        except EXPECTED_ERRORS as error:
            if ctx.params.get("debug"):
                raise
            _tell(_out_of_space(error) or str(error))
            ctx.exit(1)


def _tell(text: str) -> None:
    click.echo(f"atlas: {' '.join(text.split())}", err=True)


def _notes(error: BaseException) -> str:
    return "; ".join(getattr(error, "__notes__", []))


def _out_of_space(error: BaseException) -> str:
    """What is free and what is left to do, where a disk or a quota was full in the middle of the work."""
    if not isinstance(error, OSError) or error.errno not in OUT_OF_SPACE or not error.strerror:
        return ""
    what = ": ".join(text for text in (error.filename, error.strerror, _notes(error)) if text)
    return f"{what}. What is done is kept: make room and call the same command again"


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the trace of an error.")
@click.version_option(package_name="safenet-atlas")
def main(debug: bool) -> None:
    """Extract a Safe-Net's inner tensors once, then draw, compare and count its heat maps, without the model."""


class _RunPlace(click.ParamType):
    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """A place; what is wrong with it is told without the value, in which a secret may be."""
        try:
            return place_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --config, --run, --set and --quiet."""
    for option in (
        click.option("--quiet", is_flag=True, help="No progress bars."),
        click.option("--set", "assignments", multiple=True, metavar="TABLE.KEY=VALUE", help="Override a setting; may be given several times."),
        click.option("--run", "directory", type=_RunPlace(), help="Directory of the run, or its URL; default: runs/<name of the config>."),
        click.option("--config", type=click.Path(path_type=Path), help="TOML file with the settings."),
    ):
        command = option(command)
    return command


def chosen_run(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool) -> Run:
    """Read the settings and name the run's directory."""
    if config is None and directory is None:
        raise click.UsageError("give --config FILE, --run DIR or both")
    if directory is not None and directory.exists() and not directory.is_dir():
        raise click.UsageError(f"--run {directory}: a file; expected a directory")
    return Run(directory or Path("runs") / Path(str(config)).stem, load_settings(config, assignments), progress=not quiet and sys.stderr.isatty())


def _read_by(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Turn the ValueError of what reads an option into wrong usage."""

    def callback(context: click.Context, option: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else read(text)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    return callback


_ON = click.option(
    "--on",
    "executor",
    metavar="EXECUTOR",
    callback=_read_by(lambda text: known(text, EXECUTORS, "--on")),
    help=f"Where to work (compute.executor): {'; '.join(f'{name}: {row.summary}' for name, row in EXECUTORS.items())}.",
)
_FARM_OPTIONS = (
    click.option(
        "--lifetime",
        metavar="TIME",
        callback=_read_by(lambda text: seconds_of(text, "--lifetime")),
        help="Stop by itself after this long, such as 3h55m, as a signal would: exit code 75.",
    ),
    click.option(
        "--part", metavar="K/N", callback=_read_by(Part.parse), help="Do part K of N alone; the others may run at the same time, on any machine."
    ),
    _ON,
)


def _on(executor: str | None, assignments: tuple[str, ...]) -> tuple[str, ...]:
    return assignments if executor is None else (*assignments, f"compute.executor='{executor}'")


def _add_stage(stage: Stage) -> None:
    """Make a command of a row of STAGES."""

    @common_options
    def command(
        config: Path | None,
        directory: Place | None,
        assignments: tuple[str, ...],
        quiet: bool,
        executor: str | None = None,
        part: Part | None = None,
        lifetime: int | None = None,
        **options: bool,
    ) -> None:
        run = chosen_run(config, directory, _on(executor, assignments), quiet)
        if part is not None:
            run = replace(run, part=part)
            open_work_log(run.directory)
        if lifetime is not None:
            stop_after(lifetime)
        try:
            run.say(str(stage.bring_up_to_date(run, **options)))
        finally:
            close_work_log()

    for option in _FARM_OPTIONS if stage.has_parts else ():
        command = option(command)
    for name in stage.options:
        command = click.option(f"--{name.replace('_', '-')}", is_flag=True, help=_OPTION_HELP[name])(command)
    summary = (stage.bring_up_to_date.__doc__ or "").strip().splitlines()[0]
    reads = f"Reads {', '.join(stage.reads)}; writes {stage.writes}. Runs on the {stage.worker.upper()}."
    main.command(stage.name, help=f"{summary}\n\n{reads}")(command)


for _stage in (*STAGES, *OPTIONAL_STAGES):
    _add_stage(_stage)


@main.command("run")
@_ON
@common_options
def run_all(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, executor: str | None) -> None:
    """Run all stages in order; what is up to date is left alone."""
    run = chosen_run(config, directory, _on(executor, assignments), quiet)
    for stage in STAGES:
        if stage.writes == "features":
            check_views(run)
        run.say(str(stage.bring_up_to_date(run)))


@main.command()
@common_options
def train(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool) -> None:
    """Train a network on the dataset's training split; one checkpoint per epoch in RUN/checkpoints. Goes on where it stopped."""
    train_run(chosen_run(config, directory, assignments, quiet))


@main.command("submit")
@click.argument("stages", nargs=-1, metavar="[STAGE]...")
@click.option("--dry-run", is_flag=True, help="Print the scripts and the commands that would queue them; write and queue nothing.")
@click.option("--after", metavar="JOB", help="Let the first stage wait for this job to succeed.")
@click.option(
    "--jobs",
    "job_file",
    type=click.Path(path_type=Path),
    default=Path("configs/slurm.toml"),
    show_default=True,
    help="TOML file with what each stage's jobs ask for.",
)
@common_options
def submit_stages(
    config: Path | None,
    directory: Path | None,
    assignments: tuple[str, ...],
    quiet: bool,
    stages: tuple[str, ...],
    job_file: Path,
    after: str | None,
    dry_run: bool,
) -> None:
    """Queue stages on a SLURM cluster, each after the one before it; without names all of them, index only where there is no manifest.

    Scripts, logs and the jobs' numbers go to RUN/jobs. Called again, it queues the same stages anew: what is done is found done.
    """
    run = chosen_run(config, directory, assignments, quiet)
    submission = Submission(str(run.directory), config, assignments, read_job_settings(job_file), Path.cwd())
    chosen, after = chosen_stages(stages, run.manifest_path.exists()), check_job_id(after) if after else None
    if dry_run:
        for text in dry_run_texts(submission, chosen, after):
            run.say(text)
        return
    queued = []
    for job in submit(submission, chosen, after):
        run.say(str(job))
        queued.append(job.job_id)
    run.say(f"watch: squeue --jobs={','.join(queued)}; {shlex.join(['atlas', 'status', *submission.arguments])}; logs: {submission.folder / 'logs'}")


@main.command()
@click.option("--bad", is_flag=True, help="List the images that could not be used, or whose values are not finite: file, reason, since when, remedy.")
@common_options
def status(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, bad: bool) -> None:
    """Show what a run holds."""
    run = chosen_run(config, directory, assignments, quiet)
    rows, void, overflow = run_status(run), bad_images(run), overflow_lines(run)
    run.say(f"{run.directory}: {len(run.manifest):,} images, {len(void)} bad")
    run.say(format_table(rows, terminal_width()) if rows else "no features yet; run `atlas extract`")
    for note in notes_on_left(left_by_place(run)):
        run.say(note)
    if rows := at_work(run):
        run.say(f"in the last {RECENT_S // 60} minutes:\n{format_table(rows, terminal_width())}")
    paths = dict(zip(run.manifest["id"], run.manifest["path"], strict=True))
    for name, fault in void.items() if bad else ():
        run.say(f"{name} ({_one_line(paths.get(name, 'not in the manifest'))}): {fault.reason}, since {fault.since or 'an earlier version'}")
    for line in overflow:
        run.say(line)
    for name, texts in run_overflow(run).items() if bad else ():
        run.say(f"{name} ({_one_line(paths.get(name, 'not in the manifest'))}): {'. '.join(texts)}")
    if overflow and not bad:
        run.say("`atlas status --bad` names each of these images")


@main.command("plan")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@common_options
def show_plan(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Show what every stage would do: fresh, stale and why, partial or missing; images, bytes and time."""
    run = chosen_run(config, directory, assignments, quiet)
    rows = plan(run)
    run.say(json.dumps(plan_json(rows), indent=1) if as_json else format_table(plan_table(rows), terminal_width()))


@main.command("forget-checkpoint")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@common_options
def forget(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, names: tuple[str, ...]) -> None:
    """Take checkpoints out of a run: features, heat maps, figures, curves, and the pictures that show nothing else. Files of checkpoints stay."""
    run = chosen_run(config, directory, assignments, quiet)
    found = forget_checkpoints(run, names)
    run.say(f"forget-checkpoint: {', '.join(found.names)} taken out, {human_bytes(found.bytes)} deleted, pictures among it: {found.pictures}")
    run.say("  run `atlas stats`, `atlas render` and `atlas report` to bring the rest up to date")


@main.command("verify")
@click.option("--sample", default="100%", metavar="SHARE", help="Share of the blocks to read, such as 5%; drawn anew at every call.")
@click.option("--repair", is_flag=True, help="Take the marks from what is wrong, so that its stage makes it again.")
@common_options
def verify_run(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, sample: str, repair: bool) -> None:
    """Re-read the stores against their marks; name every damaged, missing or foreign block and file. Exit code 1 if there are any."""
    run = chosen_run(config, directory, assignments, quiet)
    found = verify(run, sample=_share(sample), repair=repair)
    for note in found.notes:
        run.say(f"note: {note}")
    for fault in found.faults:
        run.say(f"{fault.kind}: {fault.where}: {_one_line(fault.text)}")
    run.say(f"verify: {found.checked_blocks:,} blocks, {human_bytes(found.checked_bytes)} read, {len(found.faults)} faults")
    if found.faults:
        remedy = "`atlas verify --repair` takes the marks from these and no others, so that their stages make them anew"
        run.say("the marks are taken from these: run their stages again" if repair else remedy)
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


def _one_line(text: str) -> str:
    return " ".join(text.split())


@main.command()
def settings() -> None:
    """Print every setting with its default and meaning."""
    click.echo(settings_page(), nl=False)


@main.command()
def methods() -> None:
    """Print every method, target and position: what it is, where it exists, what it needs and costs, whether it is exact."""
    click.echo(methods_page(), nl=False)


@main.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--quick", is_flag=True, help="Leave out the tiny run through all stages.")
@common_options
def examine_machine(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, as_json: bool, quick: bool) -> None:
    """Check this machine before a run: a line a check, with the remedy. Exit code 1 if one fails; --config and --run may both be left out."""
    directory = directory or Path("runs") / (config.stem if config else "")
    if not doctor(Asked(directory, config, assignments, predicted_bytes(directory, config, assignments)), click.echo, quick=quick, as_json=as_json):
        click.get_current_context().exit(1)


@main.command()
@common_options
def demo(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool) -> None:
    """Make scenes, train a small network on them, run every stage, and print where the report is."""
    directory = directory or Path("runs/demo")
    settings = demo_module.demo_settings(config or demo_module.CONFIG, directory, assignments)
    run = Run(directory, settings, progress=not quiet and sys.stderr.isatty())
    run.say(f"open {demo_module.demo(run)}")
