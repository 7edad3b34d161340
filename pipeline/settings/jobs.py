"""The job file: what the jobs of each stage ask for, in a [common] table and one table per stage that overrides it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.settings.toml import ConfigError, first_fault, read_toml

UNCUT = ("index", "report")  # stages that are not cut in parts

_CLOCK = re.compile(r"(?:(\d+)-)?(\d{1,2}):(\d\d):(\d\d)")
_MEMORY = re.compile(r"[1-9]\d*[KMGT]")


def one_line(text: str) -> str:
    """Return `text`, or raise a ValueError if a control character in it (a newline, say) could begin a line of its own."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError(f"{text!r} holds a control character; expected text in one line")
    return text


def _word(text: str) -> str:
    if not re.fullmatch(r"[^\s\"'\\#$`-][^\s\"'\\#$`]*", one_line(text)):
        raise ValueError(f"{text!r}: expected one word without blanks, quotes, backslashes, # or $")
    return text


def _clock(text: str) -> str:
    if not _CLOCK.fullmatch(text):
        raise ValueError(f"{text!r}: expected hours:minutes:seconds, such as '04:00:00', or '2-00:00:00' for two days")
    return text


def _memory(text: str) -> str:
    if not _MEMORY.fullmatch(text):
        raise ValueError(f"{text!r}: expected a whole number with K, M, G or T, such as '16G'")
    return text


Line = Annotated[str, AfterValidator(one_line)]
Word = Annotated[str, AfterValidator(_word)]


class StageJob(BaseModel):
    """One table of the file: what a job asks for, and how its script begins."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    partition: Word | None = Field(None, description="partition or queue; default: that of the site")
    account: Word | None = Field(None, description="account or project that is charged")
    qos: Word | None = Field(None, description="quality of service")
    time: Annotated[str, AfterValidator(_clock)] = Field("01:00:00", description="time limit of one job, [days-]hours:minutes:seconds")
    cores: int = Field(1, ge=1, description="cores of one job")
    memory: Annotated[str, AfterValidator(_memory)] = Field("4G", description="memory of one job")
    gres: Word | None = Field(None, description="generic resources, such as gpu:1")
    array: int = Field(1, ge=1, description="number of parts of the stage, one job each")
    signal_s: int = Field(120, ge=10, description="seconds before the time limit at which the job is told to stop")
    requeue: bool = Field(True, description="queue a job again that was stopped by the time limit; it goes on where it stopped")
    max_requeues: int = Field(100, ge=0, description="after this many the job fails, because a block may take longer than the time limit")
    modules: tuple[Word, ...] = Field((), description="environment modules to load")
    prologue: tuple[Line, ...] = Field((), description="lines of shell code that run first, as they are")
    container: Line = Field("", description="words before the command, such as apptainer exec --nv image.sif")
    python: Line | None = Field(None, description="Python interpreter that has the package; default: the running one")
    directives: tuple[Line, ...] = Field((), description="further options of the batch system, one per line, as they are")
    template: Path | None = Field(None, description="script to fill in; default: the one that comes with the package")

    @property
    def time_s(self) -> int:
        """Wall clock, seconds."""
        found = _CLOCK.fullmatch(self.time)
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0, 0)
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

    @property
    def environment(self) -> tuple[str, ...]:
        """Lines of shell that make a job's environment: the modules, then the prologue."""
        return (*(f"module load {shlex.quote(module)}" for module in self.modules), *self.prologue)


class JobSettings(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    common: StageJob = Field(default_factory=StageJob)
    index: StageJob = Field(default_factory=StageJob)
    extract: StageJob = Field(default_factory=StageJob)
    cam: StageJob = Field(default_factory=StageJob)
    stats: StageJob = Field(default_factory=StageJob)
    render: StageJob = Field(default_factory=StageJob)
    report: StageJob = Field(default_factory=StageJob)
    pixels: StageJob = Field(default_factory=StageJob)

    def of(self, stage: str) -> StageJob:
        """Return a stage's job: what its own table says, else [common], else the default."""
        own: StageJob = getattr(self, stage)
        return StageJob(**{**self.common.model_dump(exclude_unset=True), **own.model_dump(exclude_unset=True)})

    @model_validator(mode="after")
    def _check_together(self) -> JobSettings:
        for stage in sorted(set(type(self).model_fields) - {"common"}):
            job = self.of(stage)
            if job.signal_s >= job.time_s:
                raise ValueError(f"{stage}.signal_s = {job.signal_s}: not before the wall clock of {job.time}; give a smaller one, or more time")
            if stage in UNCUT and job.array > 1:
                raise ValueError(
                    f"{stage}.array = {job.array}: {stage} is not cut in parts; set array in the tables of the other stages, not in [common]"
                )
        return self


def read_job_settings(path: Path) -> JobSettings:
    """Read the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ConfigError
        If a key is unknown or a value is of the wrong kind.
    """
    try:
        return JobSettings.model_validate(read_toml(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_fault(error, JobSettings)}") from None
