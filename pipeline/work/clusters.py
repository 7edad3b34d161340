"""Dask clusters, one function per kind: each opens one, yields its client, and closes what it opened."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.disk.places import Place
from pipeline.settings.compute import ComputeSettings
from pipeline.settings.jobs import StageJob, read_job_settings
from pipeline.work.cores import cores
from pipeline.work.pieces import Needs

if TYPE_CHECKING:
    from distributed import Client
    from distributed.security import Security

ANSWER_S = 30  # that a scheduler has to answer
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_STAGE_OF: dict[Needs, str] = {"gpu": "extract", "cpu": "cam"}  # whose job describes a worker for such work
_NO_SPILLING = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,  # a paused worker waits for memory that nobody gives back; one that is killed is told
    "distributed.scheduler.work-stealing": False,  # pieces are placed by who has their checkpoint at hand
    "distributed.comm.timeouts.connect": "60s",
    "distributed.admin.tick.limit": "60s",  # a worker that imports torch is slow to answer, and no reason to worry
}


class MissingClusterError(ValueError):
    """The executor is not available: a package or a setting is missing."""


@contextmanager
def local(settings: ComputeSettings, needs: Needs, directory: Place) -> Iterator[Client]:
    """Processes on this machine; cores are shared out among them, and no library starts threads beyond its share."""
    import dask
    from distributed import LocalCluster

    workers = settings.workers or cores()
    threads = settings.threads or max(1, cores() // workers)
    with dask.config.set({**_NO_SPILLING, "distributed.nanny.pre-spawn-environ": _limits(needs, threads)}):
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1 if needs == "gpu" else threads,
            host=settings.host,
            dashboard_address=_dashboard(settings),
            security=_security(settings),
            local_directory=str(_scratch()),
        )
        yield from _client_of(cluster, settings)


@contextmanager
def cuda(settings: ComputeSettings, needs: Needs, directory: Place) -> Iterator[Client]:
    """One process per GPU of this machine; stages that need none run as `local`."""
    if needs == "cpu":
        with local(settings, needs, directory) as client:
            yield client
        return
    import dask

    try:
        from dask_cuda import LocalCUDACluster
    except ImportError:
        raise MissingClusterError("compute.executor = 'cuda' needs the package dask-cuda: pip install 'safenet-atlas[cuda]'") from None
    import torch

    if not torch.cuda.is_available():
        raise MissingClusterError("compute.executor = 'cuda': this machine has no CUDA device that torch can use; expected one. Use 'local'")
    with dask.config.set(_NO_SPILLING):
        cluster = LocalCUDACluster(
            n_workers=settings.workers,
            threads_per_worker=1,
            host=settings.host,
            dashboard_address=_dashboard(settings),
            security=_security(settings),
            local_directory=str(_scratch()),
            rmm_pool_size=None,
        )
        yield from _client_of(cluster, settings)


def jobs_of(kind: str, account: str) -> Callable[[ComputeSettings, Needs, Place], AbstractContextManager[Client]]:
    """A cluster of dask-jobqueue, by the name of its class and of the keyword that takes the account."""

    @contextmanager
    def jobs(settings: ComputeSettings, needs: Needs, directory: Place) -> Iterator[Client]:
        try:
            import dask_jobqueue
        except ImportError:
            raise MissingClusterError(
                f"compute.executor = '{settings.executor}' needs the package dask-jobqueue: pip install 'safenet-atlas[cluster]'"
            ) from None
        if settings.jobs is None:
            raise MissingClusterError(
                f"compute.executor = '{settings.executor}': compute.jobs is not set; name the job file, such as configs/slurm.toml"
            )
        import dask

        job = read_job_settings(settings.jobs).of(_STAGE_OF[needs])
        with dask.config.set(_NO_SPILLING):
            cluster = getattr(dask_jobqueue, kind)(**job_keywords(settings, job, needs, directory, account))
            workers = settings.workers or 1
            cluster.adapt(minimum_jobs=workers, maximum_jobs=workers)  # `scale` does not replace a job that was lost
            yield from _client_of(cluster, settings)

    return jobs


def job_keywords(settings: ComputeSettings, job: StageJob, needs: Needs, directory: Place, account: str) -> dict[str, Any]:
    """What a cluster of dask-jobqueue is told, given what the job file says; the account by the keyword that it has there."""
    logs = directory / "logs" if isinstance(directory, Path) else Path("logs").absolute()  # batch systems write to files alone
    logs.mkdir(parents=True, exist_ok=True)
    threads = job.cores or 1
    lines = [f"export {name}={value}" for name, value in _limits(needs, threads if needs == "gpu" else 1).items()]
    lifetime = ["--lifetime", settings.lifetime, "--lifetime-stagger", "1m"] if settings.lifetime else []
    wanted = {
        "queue": job.partition,
        account: job.account,
        "walltime": job.time,
        "memory": f"{job.memory}iB",
        "job_extra_directives": _directives(settings, job),
        "job_script_prologue": [*job.environment, *lines],
        "python": " ".join(part for part in (job.container, job.python or "") if part),
    }
    return {
        **{key: value for key, value in wanted.items() if value},
        "cores": 1 if needs == "gpu" else threads,
        **({"job_cpu": threads} if settings.executor == "slurm" else {}),
        "processes": 1,
        "worker_extra_args": lifetime,
        "log_directory": str(logs),
        "local_directory": str(_scratch()),
        "scheduler_options": {"host": settings.host, "dashboard_address": _dashboard(settings)},
        "security": _security(settings),
        **({"interface": "lo"} if settings.host == "127.0.0.1" else {}),
    }


def _directives(settings: ComputeSettings, job: StageJob) -> list[str]:
    """What the job file asks for beyond what every batch system knows; SLURM's own options by name."""
    named = [f"--gres={job.gres}" if job.gres else "", f"--qos={job.qos}" if job.qos else ""] if settings.executor == "slurm" else []
    return [*filter(None, named), *job.directives]


@contextmanager
def running(settings: ComputeSettings, needs: Needs, directory: Place) -> Iterator[Client]:
    """A scheduler that somebody else started; its workers need this package, and the run's directory under the same path."""
    from distributed import Client

    if not settings.address:
        raise MissingClusterError("compute.executor = 'scheduler': compute.address is not set; expected the scheduler's, such as tcp://10.0.0.1:8786")
    try:
        client = Client(settings.address, security=_security(settings), timeout=ANSWER_S)
    except OSError as error:
        raise MissingClusterError(f"compute.address = {settings.address!r}: no scheduler answers there: {error}. Start one, or correct it") from None
    with client:
        yield client


def _client_of(cluster: Any, settings: ComputeSettings) -> Iterator[Client]:
    from distributed import Client

    with cluster, Client(cluster, security=_security(settings)) as client:
        yield client


def _limits(needs: Needs, threads: int) -> dict[str, int]:
    """A network uses all threads of its process; a block of maps uses one, as there are many blocks at a time."""
    return dict.fromkeys(_THREADS, threads if needs == "gpu" else 1)


def _dashboard(settings: ComputeSettings) -> str:
    return f"{settings.host}:{settings.dashboard_port}"


def _scratch() -> Path:
    """Where Dask keeps the little that it writes; never on the run's file system, which may be shared and slow."""
    return Path(tempfile.gettempdir()) / "safenet-atlas-dask"


def _security(settings: ComputeSettings) -> Security | None:
    """TLS, where certificates are named; all three are needed."""
    found = (settings.tls_ca, settings.tls_cert, settings.tls_key)
    if not any(found):
        return None
    if not all(found):
        raise MissingClusterError("compute.tls_ca, tls_cert and tls_key: only some are set; expected all three, or none")
    from distributed.security import Security

    ca, cert, key = (str(path) for path in found)
    return Security(
        tls_ca_file=ca,
        tls_client_cert=cert,
        tls_client_key=key,
        tls_scheduler_cert=cert,
        tls_scheduler_key=key,
        tls_worker_cert=cert,
        tls_worker_key=key,
        require_encryption=True,
    )
