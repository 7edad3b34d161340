"""`atlas submit`: batch scripts that are run by bash for real, with stand-ins for sbatch, scontrol and the interpreter."""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.commands.group import main
from pipeline.jobs.script import StageCall, job_name, job_script
from pipeline.jobs.submit import Submission, chosen_stages
from pipeline.jobs.submit import submit as start_jobs
from pipeline.settings.jobs import StageJob, read_job_settings

SBATCH = """#!/bin/sh
printf '%s\\n' "$*" >> "$FAKE/sbatch.log"
count=$(wc -l < "$FAKE/sbatch.log")
if [ "$count" = "$(cat "$FAKE/fail_at" 2>/dev/null)" ]; then
    echo "sbatch: error: invalid partition specified: gpu" >&2
    echo "sbatch: error: Batch job submission failed" >&2
    exit 1
fi
echo "$((100 + count))"
"""
SCONTROL = """#!/bin/sh
printf '%s\\n' "$*" >> "$FAKE/scontrol.log"
[ ! -e "$FAKE/scontrol_fails" ]
"""
# Stands in for the interpreter: notes its arguments, one a line; then does as FAKE_DOES says.
PYTHON = """#!/bin/bash
printf '%s\\n' "$@" > "$FAKE/arguments"
trap 'echo USR1 >> "$FAKE/signals"; exit 75' USR1
case "$FAKE_DOES" in
    wait) touch "$FAKE/ready"; for i in $(seq 200); do sleep 0.05; done; exit 9 ;;
    brief) for i in $(seq 8); do sleep 0.01; done; exit 0 ;;
    deaf) trap - USR1; touch "$FAKE/ready"; exec sleep 10 ;;
    *) exit "${FAKE_DOES:-0}" ;;
esac
"""
ODD = """it's "odd" $(touch pwned) `touch pwned` ;touch pwned #%x é"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Folder of the stand-ins, which are first on the PATH, and of what they note."""
    folder = tmp_path / "fake"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL), ("python", PYTHON)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a configuration and a job file."""
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "a.toml").write_text("[extract]\nbatch_size = 3\n")
    (folder / "jobs.toml").write_text("[extract]\narray = 3\npartition = 'gpu'\n[cam]\narray = 2\n")
    monkeypatch.chdir(folder)
    return folder


def submit(*options, config="a.toml", jobs="jobs.toml", run="runs/mine"):
    return CliRunner().invoke(main, ["submit", "--config", config, "--run", run, "--jobs", jobs, *options])


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


# --- queueing


def test_every_stage_waits_for_the_one_before_it(fake, place):
    result = submit()
    assert result.exit_code == 0, result.output
    *jobs, watch = result.stdout.splitlines()
    assert jobs == [
        "index: job 101",
        "extract: job 102, after 101",
        "cam: job 103, after 102",
        "stats: job 104, after 103",
        "render: job 105, after 104",
        "report: job 106, after 105",
    ]
    assert watch.startswith("watch: squeue --jobs=101,102,103,104,105,106; atlas status --config ")
    folder = place / "runs" / "mine" / "jobs"
    assert lines(fake / "sbatch.log")[:2] == [f"--parsable {folder}/index.sh", f"--parsable --dependency=afterok:101 {folder}/extract.sh"]
    noted = json.loads((folder / "submitted.json").read_text())["jobs"]
    assert noted[2] == {"stage": "cam", "id": "103", "after": "102"}
    assert (folder / "logs").is_dir()  # SLURM does not make it, and a job without its log fails
    assert stat.S_IMODE((folder / "extract.sh").stat().st_mode) == 0o755


def test_index_only_where_there_is_no_manifest(fake, place):
    (place / "runs" / "mine").mkdir(parents=True)
    (place / "runs" / "mine" / "manifest.parquet").touch()
    assert submit().stdout.startswith("extract: job 101\n")


def test_named_stages_are_queued_in_the_pipelines_order(fake, place):
    assert submit("cam", "extract", "--after", "77").stdout.startswith("extract: job 101, after 77\ncam: job 102, after 101\nwatch: ")
    assert chosen_stages(["pixels", "index", "cam"], has_manifest=True) == ["index", "cam", "pixels"]


def test_a_dry_run_prints_all_and_writes_nothing(fake, place):
    before = sorted(place.rglob("*"))
    result = submit("extract", "cam", "--dry-run")
    assert result.exit_code == 0, result.output
    assert sorted(place.rglob("*")) == before
    assert not (fake / "sbatch.log").exists()
    folder = place / "runs" / "mine" / "jobs"
    assert f"# {folder}/extract.sh\n#!/bin/bash\n#SBATCH --job-name=mine-extract\n" in result.stdout
    assert result.stdout.endswith(
        f"sbatch --parsable {folder}/extract.sh\nsbatch --parsable '--dependency=afterok:<id of extract>' {folder}/cam.sh\n"
    )


def test_where_the_run_is_a_url_scripts_and_logs_lie_here(fake, place):
    submission = Submission("s3://bucket/some/mine", None, (), read_job_settings(place / "jobs.toml"), place)
    assert [str(job) for job in start_jobs(submission, ["extract"])] == ["extract: job 101"]
    text = (place / "jobs" / "mine" / "extract.sh").read_text()
    assert "--run s3://bucket/some/mine " in text
    assert f"#SBATCH --output={place}/jobs/mine/logs/%x-%A_%a.out\n" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stages": ["extrct"]}, r"atlas submit: 'extrct' is unknown\. Did you mean 'extract'\?"),
        ({"more": ["--after", "7; rm"]}, r"--after 7; rm: expected the number of a job"),
        ({"more": ["--set", "extract.batch_sizes=3"]}, r"unknown key 'extract\.batch_sizes'\. Did you mean 'batch_size'\?"),
        ({"jobs": "[extract]\ngpus=1"}, r"jobs\.toml: unknown key 'extract\.gpus'"),
        ({"jobs": "[extract]\ndirectives=['-G1']"}, r"directives: '-G1': expected an option of sbatch that begins with --"),
        ({"jobs": "[extract]\ndirectives=['--array=1-9']"}, r"directives: '--array=1-9': set array instead"),
        ({"jobs": "[extract]\ndirectives=['--comment=\"a']"}, r"directives: .*no closing quotation; expected words as in a shell"),
        ({"jobs": '[extract]\ncontainer="exec \'a"'}, r"container: .*no closing quotation"),
        ({"jobs": "[extract]\ntemplate='nowhere'"}, r"nowhere"),
        ({"run": "runs/a\n#SBATCH --uid=0"}, r"holds a control character; expected text in one line"),
        ({"run": "runs/a\\b"}, r"a backslash, which SLURM cannot have in the path of a log"),
        ({"more": ["--set", "dataset.root='a\nb'"]}, r"control character|expected"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written_or_queued(fake, place, options, said):
    if "jobs" in options:
        (place / "jobs.toml").write_text(options["jobs"])
    result = submit(*options.get("stages", ["extract"]), *options.get("more", []), run=options.get("run", "runs/mine"))
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("atlas: ")
    assert result.stderr.count("\n") == 1
    assert re.search(said, result.stderr), result.stderr
    assert not (fake / "sbatch.log").exists()
    assert not (place / "runs").exists()


def test_a_refusal_says_sbatchs_own_words_and_what_was_queued_before(fake, place):
    (fake / "fail_at").write_text("3")
    result = submit()
    assert result.exit_code == 1
    assert result.stderr == (
        "atlas: sbatch refused cam: sbatch: error: invalid partition specified: gpu sbatch: error: Batch job submission failed. "
        "Queued before it: index (101), extract (102); to take them back: scancel 101 102\n"
    )
    assert [job["id"] for job in json.loads((place / "runs/mine/jobs/submitted.json").read_text())["jobs"]] == ["101", "102"]


def test_without_slurm_one_line_says_so(place, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = submit()
    assert result.exit_code == 1
    assert result.stderr == (
        "atlas: sbatch: not found; expected SLURM's commands on the PATH. Call this on the cluster's login node, or look at --dry-run. "
        "Nothing was queued\n"
    )


# --- the script's text


def script(tmp_path, stage="extract", arguments=("--run", "r"), **job):
    return job_script(StageCall(stage, StageJob(**{"python": "python", **job}), "mine", arguments, tmp_path, tmp_path / "logs"))


def test_the_job_file_becomes_directives(tmp_path):
    made = script(
        tmp_path,
        partition="gpu",
        account="p42",
        qos="long",
        time="1-00:00:00",
        cores=8,
        memory="32G",
        gres="gpu:a100:1",
        array=4,
        signal_s=300,
        requeue=False,
        modules=("cuda/12.4",),
        prologue=("export A='b c'",),
        directives=("--exclusive",),
    )
    for line in (
        "--partition=gpu",
        "--account=p42",
        "--qos=long",
        "--time=1-00:00:00",
        "--cpus-per-task=8",
        "--mem=32G",
        "--gres=gpu:a100:1",
        "--array=1-4",
        "--signal=B:USR1@300",
        "--no-requeue",
        "--exclusive",
        f"--output={tmp_path}/logs/%x-%A_%a.out",
    ):
        assert f"\n#SBATCH {line}\n" in made
    assert "\nmodule load cuda/12.4\nexport A='b c'\nset +eu\n" in made
    assert "scontrol" not in made


def test_one_part_is_no_array(tmp_path):
    made = script(tmp_path)
    assert "--array" not in made
    assert "--part" not in made
    assert "/logs/%x-%j.out" in made


def test_a_template_of_ones_own(tmp_path):
    own = tmp_path / "own.sh"
    own.write_text("#!/bin/sh\n# ${#name}\n{{ command }}\n")
    assert script(tmp_path, template=own) == "#!/bin/sh\n# ${#name}\npython -P -m pipeline extract --run r\n"
    own.write_text("{{ comand }}")
    with pytest.raises(ValueError, match=r"own\.sh: cannot be filled in: 'comand' is undefined"):
        script(tmp_path, template=own)


@pytest.mark.parametrize(
    ("run", "name"), [("a b", "a-b-cam"), ("$(id)/é", "id-cam"), ("-x", "x-cam"), ("%%", "atlas-cam"), ("a" * 90, f"{'a' * 40}-cam")]
)
def test_job_names_are_plain(run, name):
    assert job_name(run, "cam") == name


# --- the script, run by bash


def start(text, tmp_path, **environment):
    path = tmp_path / "job.sh"
    path.write_bytes(os.fsencode(text))
    slurm = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "2"}
    process_environment = {**os.environ, **slurm, **environment}
    return subprocess.Popen(["bash", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=process_environment)


def ended(process):
    stdout, stderr = process.communicate(timeout=30)
    return process.returncode, stdout, stderr


def wait_for(path):
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_an_exit_code_is_the_jobs(fake, tmp_path, code):
    assert ended(start(script(tmp_path), tmp_path, FAKE_DOES=str(code)))[0] == code
    assert not (fake / "scontrol.log").exists()


def test_each_task_does_its_part(fake, tmp_path):
    assert ended(start(script(tmp_path, array=3), tmp_path))[0] == 0
    assert lines(fake / "arguments") == ["-P", "-m", "pipeline", "extract", "--run", "r", "--part", "2/3"]


@pytest.mark.parametrize(("array", "task"), [(3, "11_2"), (1, "12")])
def test_usr1_reaches_the_command_and_75_is_requeued(fake, tmp_path, array, task):
    process = start(script(tmp_path, array=array), tmp_path, FAKE_DOES="wait")
    wait_for(fake / "ready")
    process.send_signal(signal.SIGUSR1)
    code, stdout, _ = ended(process)
    assert lines(fake / "signals") == ["USR1"]
    assert code == 0  # the job is pending again by then
    assert lines(fake / "scontrol.log") == [f"requeue {task}"]
    assert stdout == "job: stopped, and requeued to go on\n"


def test_a_stop_of_its_own_is_requeued_too(fake, tmp_path):
    """atlas has a lifetime of its own, --lifetime."""
    assert ended(start(script(tmp_path), tmp_path, FAKE_DOES="75"))[0] == 0
    assert lines(fake / "scontrol.log") == ["requeue 12"]


def test_a_command_that_does_not_listen_yet_is_requeued_too(fake, tmp_path):
    process = start(script(tmp_path), tmp_path, FAKE_DOES="deaf")
    wait_for(fake / "ready")
    process.send_signal(signal.SIGUSR1)
    assert ended(process)[0] == 0
    assert lines(fake / "scontrol.log") == ["requeue 12"]


def test_a_signal_while_modules_are_loaded(fake, tmp_path):
    """The command is not even begun."""
    process = start(script(tmp_path, prologue=("set -eu", 'touch "$FAKE/ready"; sleep 0.3')), tmp_path, FAKE_DOES="wait")
    wait_for(fake / "ready")
    process.send_signal(signal.SIGUSR1)
    assert ended(process)[0] == 0
    assert lines(fake / "scontrol.log") == ["requeue 12"]
    assert not (fake / "arguments").exists()


def test_a_signal_at_any_moment_ends_in_done_or_requeued(fake, tmp_path):
    """Also while the command ends, where bash may lose its exit code; several at once, too."""
    text = script(tmp_path)
    running = [start(text, tmp_path, FAKE_DOES="brief") for _ in range(8)]
    for number in range(12):
        time.sleep(0.013)
        for process in running[number % 2 :: 2]:
            process.send_signal(signal.SIGUSR1)
    assert {ended(process)[0] for process in running} <= {0, -signal.SIGUSR1}  # the latter: before bash had read the script


def test_what_was_cancelled_is_not_brought_back(fake, tmp_path):
    process = start(script(tmp_path), tmp_path, FAKE_DOES="wait")
    wait_for(fake / "ready")
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 75
    assert lines(fake / "signals") == ["USR1"]
    assert not (fake / "scontrol.log").exists()


def test_without_requeue_the_job_ends_with_75(fake, tmp_path):
    assert ended(start(script(tmp_path, requeue=False), tmp_path, FAKE_DOES="75"))[0] == 75
    assert not (fake / "scontrol.log").exists()


def test_requeues_have_an_end(fake, tmp_path):
    code, _, stderr = ended(start(script(tmp_path, max_requeues=3), tmp_path, FAKE_DOES="75", SLURM_RESTART_COUNT="3"))
    assert code == 75
    assert "was requeued 3 times already" in stderr
    assert ended(start(script(tmp_path, max_requeues=3), tmp_path, FAKE_DOES="75", SLURM_RESTART_COUNT="2"))[0] == 0


def test_a_requeue_that_is_refused_leaves_the_job_failed(fake, tmp_path):
    """So that no later stage begins."""
    (fake / "scontrol_fails").touch()
    code, _, stderr = ended(start(script(tmp_path), tmp_path, FAKE_DOES="75"))
    assert code == 75
    assert "could not be requeued: call atlas submit again" in stderr


def test_a_working_directory_that_is_gone(fake, tmp_path):
    made = job_script(StageCall("cam", StageJob(), "mine", (), tmp_path / "gone", tmp_path / "logs"))
    assert ended(start(made, tmp_path))[0] == 1


def test_nothing_reaches_a_shell_unquoted(fake, tmp_path):
    """Paths, settings, modules and the container hold quotes, blanks, substitutions, and bytes that are no text."""
    odd = ODD + os.fsdecode(b"\xff")
    place = tmp_path / odd
    place.mkdir()
    arguments = ("--config", odd, "--run", str(place), "--set", f"dataset.root='{odd}'")
    job = StageJob(python="python", container=shlex.join(["env", f"ODD={odd}"]), modules=("a;touch(pwned)",), prologue=("module() { :; }",))
    made = job_script(StageCall("extract", job, odd, arguments, place, place / "logs"))
    assert ended(start(made, tmp_path))[0] == 0
    found = (fake / "arguments").read_bytes().decode("utf-8", "surrogateescape").splitlines()
    assert found == ["-P", "-m", "pipeline", "extract", *arguments]
    assert list(tmp_path.rglob("pwned")) == []
    assert [line for line in made.splitlines() if line.startswith("#SBATCH --output")] == [
        '#SBATCH --output="{}/logs/%x-%j.out"'.format(str(place).replace('"', '\\"').replace("%", "%%"))
    ]


def test_submit_runs_from_an_odd_place(fake, place, tmp_path, monkeypatch):
    """The whole way: working directory, config, run and --set, through the command and through bash."""
    odd = tmp_path / ODD
    place.rename(odd)
    monkeypatch.chdir(odd)
    (odd / "jobs.toml").write_text("[common]\npython = 'python'\n")
    root = "dataset.root='$HOME \"x\"'"
    result = submit("extract", "--set", root, run=ODD)
    assert result.exit_code == 0, result.output
    text = os.fsdecode((odd / ODD / "jobs" / "extract.sh").read_bytes())
    assert ended(start(text, tmp_path))[0] == 0
    assert lines(fake / "arguments")[4:] == ["--config", str(odd / "a.toml"), "--run", str(odd / ODD), "--set", root]
    assert list(tmp_path.rglob("pwned")) == []


def test_the_template_is_shipped():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert '"pipeline.jobs" = ["*.template"]' in text
