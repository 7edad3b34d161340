"""The stages as jobs of SLURM: one script per stage, and every stage waits for the one before it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pipeline.disk.records import write_atomically
from pipeline.jobs.script import StageCall, job_script
from pipeline.settings.jobs import JobSettings
from pipeline.stages import OPTIONAL_STAGES, STAGES
from stages.naming import known

SUBMITTED = "submitted.json"


class SubmitError(OSError):
    """The batch system did not take a job."""


@dataclass(frozen=True)
class Submission:
    """What is to be queued.

    Parameters
    ----------
    location : str
        The run: a folder, or a URL.
    config : Path or None
        File with the settings.
    assignments : sequence of str
        What was given by --set.
    jobs : JobSettings
    directory : Path
        Working directory of the jobs, absolute: relative paths in settings are taken from it.
    """

    location: str
    config: Path | None
    assignments: Sequence[str]
    jobs: JobSettings
    directory: Path

    @property
    def is_url(self) -> bool:
        """Whether the run is no folder here."""
        return "://" in self.location

    @property
    def name(self) -> str:
        """Last part of the run's path."""
        return PurePosixPath(self.location).name

    @property
    def folder(self) -> Path:
        """Where scripts and logs go."""
        return self.directory / "jobs" / self.name if self.is_url else self.directory / self.location / "jobs"

    @property
    def arguments(self) -> list[str]:
        """Of every stage's command; paths are absolute."""
        config = [] if self.config is None else ["--config", str(self.directory / self.config)]
        sets = [part for assignment in self.assignments for part in ("--set", assignment)]
        return [*config, "--run", self.location if self.is_url else str(self.directory / self.location), *sets]


@dataclass(frozen=True)
class QueuedJob:
    """A job that SLURM took."""

    stage: str
    job_id: str
    after: str | None

    def __str__(self) -> str:
        return f"{self.stage}: job {self.job_id}" + (f", after {self.after}" if self.after else "")


def chosen_stages(names: Sequence[str], has_manifest: bool) -> list[str]:
    """Return the stages to queue, in order; without names all, but index only where there is no manifest.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    every = [stage.name for stage in (*STAGES, *OPTIONAL_STAGES)]
    if not names:
        return [stage.name for stage in STAGES if stage.name != "index" or not has_manifest]
    chosen = {known(name, every, "atlas submit") for name in names}
    return [name for name in every if name in chosen]


def scripts(submission: Submission, stages: Sequence[str]) -> dict[str, str]:
    """Return the text of every stage's script."""
    return {
        stage: job_script(
            StageCall(stage, submission.jobs.of(stage), submission.name, submission.arguments, submission.directory, logs=submission.folder / "logs")
        )
        for stage in stages
    }


def submit(submission: Submission, stages: Sequence[str], after: str | None = None) -> Iterator[QueuedJob]:
    """Write the scripts and queue them; yield each job as SLURM takes it.

    Raises
    ------
    SubmitError
        If sbatch is not there or refuses a job; names what was queued before.
    """
    texts = scripts(submission, stages)
    for stage, text in texts.items():
        _write_script(_script_path(submission, stage), text)
    (submission.folder / "logs").mkdir(exist_ok=True)
    queued: list[QueuedJob] = []
    for stage in stages:
        queued.append(QueuedJob(stage, _sbatch(sbatch_command(submission, stage, after), stage, queued), after))
        _record(submission, queued)
        yield queued[-1]
        after = queued[-1].job_id


def dry_run_texts(submission: Submission, stages: Sequence[str], after: str | None = None) -> Iterator[str]:
    """Yield the scripts and the commands that would queue them; nothing is written."""
    for stage, text in scripts(submission, stages).items():
        yield f"# {_script_path(submission, stage)}\n{text}"
    for stage in stages:
        yield shlex.join(sbatch_command(submission, stage, after))
        after = f"<id of {stage}>"


def sbatch_command(submission: Submission, stage: str, after: str | None) -> list[str]:
    """Return the words that queue a stage; everything but what it waits for stands in the script."""
    dependency = [f"--dependency=afterok:{after}"] if after else []
    return ["sbatch", "--parsable", *dependency, str(_script_path(submission, stage))]


def check_job_id(text: str) -> str:
    """Return the number of a job, or raise a ValueError."""
    if not re.fullmatch(r"\d+(_\d+)?", text):
        raise ValueError(f"--after {text}: expected the number of a job, such as 4711 or 4711_3")
    return text


def _script_path(submission: Submission, stage: str) -> Path:
    return submission.folder / f"{stage}.sh"


def _write_script(path: Path, text: str) -> None:
    write_atomically(path, text.encode("utf-8", "surrogateescape"))
    path.chmod(0o755)


def _sbatch(command: Sequence[str], stage: str, queued: Sequence[QueuedJob]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        remedy = "Call this on the cluster's login node, or look at --dry-run"
        raise SubmitError(f"sbatch: not found; expected SLURM's commands on the PATH. {remedy}.{_left_behind(queued)}") from None
    found = re.fullmatch(r"(\d+)(;\S+)?", done.stdout.strip())  # "id" or "id;cluster"
    if done.returncode or not found:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise SubmitError(f"sbatch refused {stage}: {said}.{_left_behind(queued)}")
    return found[1]


def _left_behind(queued: Sequence[QueuedJob]) -> str:
    if not queued:
        return " Nothing was queued"
    ids = [job.job_id for job in queued]
    return f" Queued before it: {', '.join(f'{job.stage} ({job.job_id})' for job in queued)}; to take them back: scancel {' '.join(ids)}"


def _record(submission: Submission, queued: Sequence[QueuedJob]) -> None:
    """After every job, so that no number is lost."""
    jobs = [{"stage": job.stage, "id": job.job_id, "after": job.after} for job in queued]
    text = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), "jobs": jobs}, indent=1)
    write_atomically(submission.folder / SUBMITTED, f"{text}\n".encode())
