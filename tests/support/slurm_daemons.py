"""A SLURM of one node on loopback: its three daemons, with ports, state and logs of their own."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
REQUEUE_WAIT_S = 8  # a requeued job waits until its first credential is void; SLURM's default is 120

_CONFIGURATION = """\
ClusterName=atlas
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire={requeue_wait}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_interval=2
KillWait=5
MinJobAge=3600
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no SLURM here, in one line; empty where there can."""
    lacking = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    if lacking:
        return f"no SLURM here: {', '.join(lacking)} not found; on Debian: apt-get install slurm-wlm munge"
    if os.geteuid():
        return "SLURM's daemons are started as root, and this is another user"
    return ""


@contextmanager
def slurm(folder: Path) -> Iterator[Path]:
    """Start the daemons with all they write in `folder`; yield the configuration's path; stop them at the end."""
    folder.chmod(0o755)
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            controller_port=_free_port(),
            node_port=_free_port(),
            folder=folder,
            requeue_wait=REQUEUE_WAIT_S,
            cores=os.cpu_count(),
            memory=2000,
        )
    )
    environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(configuration)}
    with ExitStack() as daemons:
        daemons.enter_context(_munged(folder / "munge", environment))
        daemons.enter_context(_running(["slurmctld", "-D"], folder / "slurmctld.out", environment))
        daemons.enter_context(_running(["slurmd", "-D"], folder / "slurmd.out", environment))
        _wait_until_idle(folder, environment)
        yield configuration


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _munged(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Munge as its own user, with a key of this test's own."""
    owner = pwd.getpwnam("munge")
    key = folder / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    for path in (folder, key):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    files = [f"--{name}-file={folder / name}" for name in ("key", "log", "pid", "seed")]
    command = ["munged", "--foreground", f"--socket={folder / 'socket'}", *files]
    with _running(command, folder.parent / "munged.out", environment, user="munge"):
        _wait((folder / "socket").exists, 20, f"munged did not start; see {folder}")
        yield


@contextmanager
def _running(command: list[str], log: Path, environment: dict[str, str], user: str | None = None) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, user=user, start_new_session=True)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_idle(folder: Path, environment: dict[str, str]) -> None:
    def idle() -> bool:
        done = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, env=environment, check=False)
        return done.stdout.strip() == "idle"

    _wait(idle, 60, f"the node is not idle; see {folder}/slurmctld.log and slurmd.log")


def _wait(condition, seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.2)
