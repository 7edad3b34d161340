"""The stages as jobs of a real SLURM: tasks are killed and requeued, and the stores come out bit for bit as from a serial run."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from slurm_daemons import missing, slurm
from slurm_jobs import (
    ROOT,
    assert_same_bits,
    atlas,
    kill_in_the_middle,
    logs,
    marks,
    processes,
    running_jobs,
    say,
    started,
    states,
    stop_in_the_middle,
    submitted,
    tell,
    wait_for_end,
    wait_until,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


@pytest.fixture(scope="module")
def scheduler():
    """A running SLURM; its configuration's path is in the environment."""
    folder = Path(tempfile.mkdtemp(prefix="atlas-slurm-"))  # not under pytest's folder, which munge's user may not enter
    with pytest.MonkeyPatch.context() as patch, slurm(folder) as configuration:
        patch.setenv("SLURM_CONF", str(configuration))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder
        say("scancel", "--user=root")
        wait_until(lambda: not say("squeue", "--noheader"), 60, "no job is left")
    wait_until(lambda: not _processes_of(configuration), 30, "no process is left")
    shutil.rmtree(folder)


@pytest.fixture
def job_file(tmp_path):
    """A task takes the whole node, so that tasks run one at a time."""
    path = tmp_path / "jobs.toml"
    path.write_text(
        f"[common]\ntime = '00:10:00'\nmemory = '1G'\ncores = {os.cpu_count()}\n[extract]\narray = 3\n[cam]\narray = 2\n[stats]\narray = 2\n"
    )
    return path


def test_the_scheduler_runs_a_job(scheduler, tmp_path):
    job = say("sbatch", "--parsable", "--mem=1", f"--output={tmp_path}/out", "--wrap=echo here")
    assert wait_for_end(job) == {job: "COMPLETED"}
    assert (tmp_path / "out").read_text() == "here\n"


def test_killed_and_requeued_tasks_change_no_bit(scheduler, lab, job_file, tmp_path):
    """From nothing to the report: a task's process is killed and all is submitted again; a task that is told to stop comes back by itself."""
    directory, serial = tmp_path / "it's a run", tmp_path / "serial"
    paced = ("extract.block_samples=1", "extract.batch_size=1")  # many small blocks, so that a task can be hit between two
    for stage in ("index", "extract", "cam", "stats"):
        atlas(stage, lab, serial, more=paced)

    tell(atlas("submit", lab, directory, "--jobs", job_file, more=paced))
    first = submitted(directory)
    kill_in_the_middle(directory, f"{first['extract']}_1", "extract", "1/3")
    wait_until(lambda: states(first["extract"])[f"{first['extract']}_1"] == "FAILED", what="a killed task has failed")
    say("scancel", first["extract"])
    wait_until(lambda: states(first["report"])[first["report"]] == "CANCELLED", what="what waits for a failed stage is cancelled")
    wait_for_end(first["extract"])
    tell(f"killed and cancelled: {states(first['extract'])}, {len(marks(directory))} of {len(marks(serial))} blocks done")
    assert 0 < len(marks(directory)) < len(marks(serial))

    tell(atlas("submit", lab, directory, "--jobs", job_file, more=paced))
    second = submitted(directory)
    assert list(second) == ["extract", "cam", "stats", "render", "report"]
    task = f"{second['extract']}_2"
    stop_in_the_middle(directory, task, "extract", "2/3")
    wait_until(lambda: states(second["extract"])[task] == "PENDING", what="a stopped task is queued again")
    tell(f"stopped: {states(second['extract'])}")
    wait_until(lambda: states(second["extract"])[task] != "PENDING", what="it comes back")
    assert set(states(second["cam"]).values()) == {"PENDING"}  # a requeued task releases nobody
    wait_for_end(second["report"])
    ended = {stage: set(states(job).values()) for stage, job in second.items()}
    assert ended == {stage: {"COMPLETED"} for stage in second}, logs(directory)
    assert "Restarts=1" in say("scontrol", "--oneliner", "show", "job", task)
    assert "job: stopped, and requeued to go on" in (directory / "jobs" / "logs" / f"it-s-a-run-extract-{task}.out").read_text()
    tell(f"all ended: {logs(directory)}")
    assert_same_bits(directory, serial)
    assert (directory / "report" / "index.html").exists()
    assert "0 faults" in atlas("verify", lab, directory, more=paced)


def test_a_cancelled_task_stays_cancelled(scheduler, lab, indexed, job_file, tmp_path):
    """scancel sends TERM, too, which must not requeue."""
    directory = Path(shutil.copytree(indexed, tmp_path / "run"))
    atlas("submit", lab, directory, "extract", "--jobs", job_file)
    job = submitted(directory)["extract"]
    wait_until(lambda: processes("extract", "1/3", str(directory)))
    say("scancel", job)
    assert set(wait_for_end(job).values()) == {"CANCELLED"}
    wait_until(lambda: not processes("extract", str(directory)), what="no process is left")


def test_a_worker_that_is_lost_changes_no_bit(scheduler, lab, indexed, job_file, tmp_path):
    """Dask workers as jobs: one job is cancelled while it works; another takes its place, and the blocks come out the same."""
    directory, serial = Path(shutil.copytree(indexed, tmp_path / "run")), Path(shutil.copytree(indexed, tmp_path / "serial"))
    paced = ("extract.block_samples=1", "extract.batch_size=1", "extract.precision=float32", "compute.workers=1", "compute.span_samples=1")
    for stage in ("extract", "cam", "stats"):
        atlas(stage, lab, serial, more=paced)
    with started("extract", lab, directory, "--on", "slurm", more=(*paced, f"compute.jobs='{job_file}'")) as extracting:
        wait_until(lambda: marks(directory) or extracting.poll() is not None, pause_s=0.01)
        assert extracting.poll() is None, extracting.communicate()
        workers = running_jobs()
        tell(f"{len(marks(directory))} blocks done by worker {workers}, which is cancelled")
        say("scancel", workers[0])
        said = extracting.communicate(timeout=120)
    tell(said[0])
    assert extracting.returncode == 0, said
    assert workers[0] not in running_jobs()
    for stage in ("cam", "stats"):
        atlas(stage, lab, directory, more=paced)
    assert_same_bits(directory, serial)


def _processes_of(configuration):
    """Daemons, jobs and all that came of them: whose environment names this SLURM."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if str(configuration).encode() in path.read_bytes():
                found.append(path.parent.name)
    return found
