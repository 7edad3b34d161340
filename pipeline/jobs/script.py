"""A stage's batch script for SLURM, as text: its #SBATCH lines and the filled-in template. Every value in it is quoted or refused."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template, TemplateError

from pipeline.settings.jobs import StageJob, one_line

_OWN = {"array": "array", "signal": "signal_s", "requeue": "requeue", "no-requeue": "requeue", "time": "time"}  # option -> key in the job file


@dataclass(frozen=True)
class StageCall:
    """What a job does.

    Parameters
    ----------
    stage : str
    job : StageJob
        What it asks for.
    name : str
        Of the run; begins the job's name.
    arguments : sequence of str
        Of the command, after the stage's name: --config, --run, --set.
    directory : Path
        Working directory, absolute.
    logs : Path
        Folder of what the job prints, absolute.
    """

    stage: str
    job: StageJob
    name: str
    arguments: Sequence[str]
    directory: Path
    logs: Path


def job_script(call: StageCall) -> str:
    """Return the text of a batch script.

    Raises
    ------
    ValueError
        If a value cannot be quoted for SLURM or a shell, or the template cannot be filled in.
    """
    job = call.job
    try:
        return _template(job.template).render(
            directives=_directives(call),
            environment=job.environment,
            directory=_quoted([str(call.directory)]),
            command=_quoted([*_words("container", job.container), job.python or sys.executable, "-P", "-m", "pipeline", call.stage, *call.arguments]),
            parts=job.array if job.array > 1 else None,
            requeue=job.requeue,
            max_requeues=job.max_requeues,
        )
    except TemplateError as error:
        raise ValueError(f"{job.template or 'job.sh.template'}: cannot be filled in: {error}") from None


def job_name(run: str, stage: str) -> str:
    """Return a name that is safe in file names, shells and SLURM's patterns."""
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '-', run).strip('-.')[:40] or 'atlas'}-{stage}"


def _template(path: Path | None) -> Template:
    text = path.read_text("utf-8") if path else files("pipeline.jobs").joinpath("job.sh.template").read_text("utf-8")
    return Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        comment_start_string="{##",  # jinja's own, "{#", stands in a shell's ${#name}
        comment_end_string="##}",
    ).from_string(text)


def _directives(call: StageCall) -> list[str]:
    job = call.job
    if "\\" in str(call.logs):
        raise ValueError(f"{call.logs}: a backslash, which SLURM cannot have in the path of a log; expected none. Give --run another name")
    options = {
        "job-name": job_name(call.name, call.stage),
        "output": f"{str(call.logs).replace('%', '%%')}/{'%x-%A_%a' if job.array > 1 else '%x-%j'}.out",
        "open-mode": "append",  # a requeued job goes on in its log
        "partition": job.partition,
        "account": job.account,
        "qos": job.qos,
        "time": job.time,
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": str(job.cores),
        "mem": job.memory,
        "gres": job.gres,
        "array": f"1-{job.array}" if job.array > 1 else None,
        "signal": f"B:USR1@{job.signal_s}",
        "kill-on-invalid-dep": "yes",  # where a job failed, those that wait for it end, instead of waiting for ever
    }
    own = [f"--{name}={_for_slurm(value)}" for name, value in options.items() if value]
    return [*own, "--requeue" if job.requeue else "--no-requeue", *map(_directive, job.directives)]


def _for_slurm(value: str) -> str:
    """Quote a value of a #SBATCH line; SLURM reads double quotes and backslashes as a shell does, and expands nothing."""
    if re.fullmatch(r"[\w@%+=:,./-]+", one_line(value), re.ASCII):
        return value
    return '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"'))


def _directive(text: str) -> str:
    if not text.startswith("--"):
        raise ValueError(f"directives: {text!r}: expected an option of sbatch that begins with --, such as '--exclusive'")
    name = re.split(r"[=\s]", text[2:], maxsplit=1)[0]
    if name in _OWN:
        raise ValueError(f"directives: {text!r}: set {_OWN[name]} instead, which the script depends on")
    _words("directives", text)
    return one_line(text)


def _words(key: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{key}: {text!r}: {str(error).lower()}; expected words as in a shell") from None


def _quoted(words: Sequence[str]) -> str:
    return shlex.join([one_line(word) for word in words])
