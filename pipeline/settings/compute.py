"""The [compute] table: where and how blocks are worked on; never part of a stamp, as it changes no number."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator


class ComputeSettings(BaseModel):
    """The [compute] table: where and how blocks are worked on; never part of a stamp."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    executor: str = Field(
        "threads",
        description="serial, threads: in this process; local, cuda: processes here; slurm, pbs, lsf, sge: jobs; scheduler: at `address`",
    )
    workers: int | None = Field(None, ge=1, description="threads, processes or jobs; default: the cores that may be used (cuda: the machine's GPUs)")
    threads: int | None = Field(None, ge=1, description="threads a process; default: the cores that may be used, shared out")
    span_samples: int = Field(2048, ge=1, description="images that a process of a cluster takes at once, in whole blocks")
    address: str = Field("", description="of a running Dask scheduler, such as tcp://10.0.0.1:8786 or tls://..., for executor = 'scheduler'")
    host: str = Field("127.0.0.1", description="address that a scheduler of ours listens at: loopback, unless jobs on other machines are to reach it")
    dashboard_port: int = Field(0, ge=0, le=65535, description="of the Dask dashboard, at `host`; 0: any free one")
    jobs: Path | None = Field(None, description="job file (configs/slurm.toml) for executors that submit jobs")
    lifetime: str = Field("", description="workers that are jobs end by themselves after this long, such as 55m: below the jobs' wall clock")
    performance_report: bool = Field(False, description="write Dask's performance report to RUN/logs/<stage>-performance.html")
    tls_ca: Path | None = Field(None, description="certificate authority; with tls_cert and tls_key, Dask speaks TLS alone")
    tls_cert: Path | None = Field(None, description="this side's certificate")
    tls_key: Path | None = Field(None, description="its key")

    @field_validator("lifetime")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if value:
            seconds_of(value, "compute.lifetime")
        return value


def seconds_of(text: str, name: str) -> int:
    """Read "3h55m", "55m", "90s"; a ValueError names the setting and says what was expected."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    if not found or not any(found.groups()):
        raise ValueError(f"{name} = {text!r}: expected a time, such as 3h55m, 55m or 90s")
    hours, minutes, seconds = (int(value or 0) for value in found.groups())
    return 3600 * hours + 60 * minutes + seconds
