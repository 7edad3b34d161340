"""The [compute] table: where and how blocks are computed. It is never part of a stamp, because it changes no number."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.settings.durations import seconds_of
from pipeline.settings.executor_names import EXECUTOR_MEANINGS
from stages.naming import known


class ComputeSettings(BaseModel):
    """The [compute] table: where and how blocks are computed. It is never part of a stamp."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    executor: str = Field(
        "threads",
        description="serial, threads: in this process; local, cuda: processes here; slurm, pbs, lsf, sge: jobs; scheduler: Dask at `address`",
    )
    workers: int | None = Field(
        None, ge=1, description="number of threads, processes or jobs; default: the cores that may be used (cuda: the GPUs of the machine)"
    )
    threads: int | None = Field(None, ge=1, description="threads per process; default: an equal share of the cores that may be used")
    span_samples: int = Field(2048, ge=1, description="images that a process of a cluster takes at once, in complete blocks")
    address: str = Field("", description="address of a running Dask scheduler, such as tcp://10.0.0.1:8786 or tls://..., for executor = 'scheduler'")
    host: str = Field(
        "127.0.0.1", description="address that our own scheduler listens at; change it from loopback if jobs on other machines must reach it"
    )
    dashboard_port: int = Field(0, ge=0, le=65535, description="port of the Dask dashboard, at `host`; 0: any free port")
    jobs: Path | None = Field(None, description="job file (configs/slurm.toml) for executors that submit jobs")
    lifetime: str = Field(
        "", description="workers that are jobs end by themselves after this time, such as 55m; it must be below the time limit of the jobs"
    )
    performance_report: bool = Field(False, description="write Dask's performance report to RUN/logs/<stage>-performance.html")
    tls_ca: Path | None = Field(None, description="file of the certificate authority; with tls_cert and tls_key, Dask uses only TLS")
    tls_cert: Path | None = Field(None, description="file of the certificate of this side")
    tls_key: Path | None = Field(None, description="file of its key")

    @field_validator("executor")
    @classmethod
    def _known_executor(cls, value: str) -> str:
        return known(value, EXECUTOR_MEANINGS, "compute.executor")

    @field_validator("lifetime")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if value:
            seconds_of(value, "compute.lifetime")
        return value
