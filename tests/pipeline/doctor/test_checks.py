"""`atlas doctor`: every check is brought into its bad case and must name it and the remedy; a sound machine passes; nothing stays behind."""

import errno
import fcntl
import importlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from packaging.requirements import Requirement

from pipeline.commands.group import main
from pipeline.doctor import installation, machine, network
from pipeline.doctor.checks import CHECKS, Check, describe, doctor, examine
from pipeline.doctor.findings import Asked, Finding
from pipeline.stages import STAGES, Stage
from pipeline.work import control_groups

ROWS = {row.name: row for row in CHECKS}
Usage = namedtuple("Usage", "total used free")
GIB = 2**30


def look(name, asked):
    """Run one row of CHECKS."""
    (found,) = examine(asked, [ROWS[name]])
    assert found.name == name
    return found


def raising(error):
    def raises(*arguments, **options):
        raise error

    return raises


def is_bad(found, status, text, remedy):
    assert found.status == status, found
    assert re.search(text, found.text), found.text
    assert re.search(remedy, found.remedy), found.remedy
    assert "\n" not in describe(found)


@pytest.fixture
def asked(tmp_path):
    """A run's directory that is not there yet; no scratch file may be left where it will be."""
    (tmp_path / "runs").mkdir()
    yield Asked(tmp_path / "runs" / "mine")
    assert list((tmp_path / "runs").iterdir()) == []


# ---- a sound machine


def test_a_sound_machine_fails_no_check(asked):
    found = {finding.name: finding for finding in examine(asked, quick=True)}
    assert list(found) == [row.name for row in CHECKS if row.name != "tiny run"]
    assert [finding for finding in found.values() if finding.status == "fail"] == []
    assert all(bool(finding.remedy) == (finding.status != "ok") for finding in found.values())
    assert all(found[name].status == "ok" for name in ("python", "required", "optional", "arithmetic", "run directory", "file locks", "clock"))
    assert f"torch {torch.__version__}" in found["torch"].text
    assert re.search(r"extract\.device = 'auto' is (cpu; torch has \d+ CPU threads|cuda: .* free, with(out)? bfloat16)", found["device"].text)
    assert found["run directory"].text == f"{asked.directory} can be made in {asked.place}"
    assert re.fullmatch(rf"[\d,]+ MB/s in {asked.place}", found["write speed"].text)


def test_the_oldest_python_is_what_the_package_says():
    assert metadata.metadata("safenet-atlas")["Requires-Python"] == ">=" + ".".join(map(str, installation.OLDEST_PYTHON))


def test_optional_packages_are_listed_and_never_missed(asked, monkeypatch):
    monkeypatch.setattr(metadata, "version", {"zarrs": "0.2.1"}.__getitem__)
    monkeypatch.setattr(metadata, "PackageNotFoundError", KeyError)
    assert look("optional", asked) == Finding("optional", "ok", "zarrs 0.2.1, distributed not installed, grad-cam not installed", "")


# ---- the installation


def test_an_old_python(asked, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    is_bad(look("python", asked), "fail", r"Python 3\.\S+; expected 3\.11 or newer", r"python3\.11")


def test_packages_that_are_old_or_missing(asked, monkeypatch):
    versions = {Requirement(line).name: "9999" for line in metadata.requires("safenet-atlas")} | {"zarr": "2.18.0", "safenet-atlas": "1"}
    del versions["timm"]
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    monkeypatch.setattr(metadata, "PackageNotFoundError", KeyError)
    found = look("required", asked)
    text = r"timm is missing \(expected >=1\.0\.20\), zarr 2\.18\.0 \(expected >=3\.0\.10\)"
    is_bad(found, "fail", text, r"pip install 'timm>=1\.0\.20' 'zarr>=3\.0\.10'`")
    assert "pytest" not in found.text  # an extra is not required


def test_without_the_network_one_finding_tells_what_cannot_run(asked, monkeypatch):
    monkeypatch.setattr("safenet.needs_network._is_installed", lambda name: name == "timm")
    found = {finding.name: finding for finding in examine(asked, quick=True)}
    text = "^torch, torchvision are not installed: extract, pixels, train and demo cannot run here$"
    is_bad(found["torch"], "warn", text, r"^Run `pip install 'safenet-atlas\[network\]'`; all other commands work without$")
    assert set(ROWS) - set(found) == {"device", "arithmetic", "image packages", "tiny run"}
    assert found["required"].status == "ok"


def test_requirements_that_nobody_knows(asked, monkeypatch):
    monkeypatch.setattr(metadata, "requires", raising(metadata.PackageNotFoundError("safenet-atlas")))
    is_bad(look("required", asked), "fail", "safenet-atlas is not installed", r"pip install \.")


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_image_packages_that_do_not_import(asked, monkeypatch, name):
    original = importlib.import_module
    broken = raising(ImportError(f"{name}: undefined symbol"))
    monkeypatch.setattr(network.importlib, "import_module", lambda wanted: broken() if wanted == name else original(wanted))
    is_bad(look("image packages", asked), "fail", rf"`import {name}` fails: {name}: undefined symbol", f"Install the {name} that belongs to torch")


def test_a_gpu_that_torch_cannot_use(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(network, "DEVICE_FILES", tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert look("torch", asked).text.endswith("; no CUDA device")
    (tmp_path / "nvidia0").touch()
    is_bad(look("torch", asked), "warn", "cannot use this machine's NVIDIA GPU", "Install a torch build for a CUDA version that the driver supports")


def pretend_gpu(monkeypatch, free):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


def test_a_gpu_is_described(asked, monkeypatch):
    pretend_gpu(monkeypatch, 79 * GIB)
    assert look("torch", asked).text.endswith("; CUDA devices: 1")
    assert look("device", asked).text == "extract.device = 'auto' is cuda: NVIDIA H100, 84.8 GB of 85.9 GB free, with bfloat16"


def test_a_gpu_that_others_fill(asked, monkeypatch):
    pretend_gpu(monkeypatch, GIB)
    is_bad(look("device", asked), "warn", r"1\.1 GB of 85\.9 GB free, with bfloat16; expected 2\.0 GB or more", r"nvidia-smi.*extract\.batch_size")


@pytest.mark.parametrize(
    ("device", "said"), [("gpu", "'gpu' is unknown; expected auto, cpu"), ("cuda", "'cuda' is asked for, but torch .* finds no")]
)
def test_a_device_that_cannot_be_had(asked, monkeypatch, device, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    chosen = Asked(asked.directory, assignments=(f"extract.device={device}",))
    is_bad(look("device", chosen), "fail", rf"^extract\.device {said}", r"extract\.device=auto")
    is_bad(look("arithmetic", chosen), "fail", f"a matrix product fails: device {said}", r"extract\.device=cpu")


def test_a_device_that_stops_or_miscounts(asked, monkeypatch):
    multiply = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", raising(RuntimeError("no kernel image\nis available")))
    is_bad(look("arithmetic", asked), "fail", "a matrix product fails: no kernel image is available", "Install a torch build for this device")
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda left, right: multiply(left, right) + left.is_floating_point())
    is_bad(look("arithmetic", asked), "fail", "a matrix product on (cpu|cuda) is wrong", "Install a torch build for this device")


# ---- the run's directory


def test_a_run_directory_that_is_a_file_or_a_broken_link(tmp_path):
    (tmp_path / "file").touch()
    is_bad(look("run directory", Asked(tmp_path / "file")), "fail", "/file: a file; expected a directory", "another --run")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    is_bad(look("run directory", Asked(tmp_path / "link")), "fail", "/link: a link that leads nowhere", "Create the target of the link")


def test_a_run_directory_that_cannot_be_written(asked, monkeypatch):
    monkeypatch.setattr(tempfile, "mkdtemp", raising(OSError(errno.EROFS, "Read-only file system")))
    is_bad(look("run directory", asked), "fail", "/runs: cannot be written: .*Read-only file system", "owner or mode, or name another --run")
    is_bad(look("write speed", asked), "fail", "the check itself fails: OSError: .*Read-only file system", "Correct what the error names")


def test_a_run_directory_that_is_there_is_looked_at_itself(tmp_path):
    assert look("run directory", Asked(tmp_path)).text == f"{tmp_path} can be written"
    assert Asked(tmp_path / "a" / "b" / "c").place == tmp_path
    assert Asked(Path("nowhere/at/all")).place == Path.cwd()


@pytest.mark.parametrize("name", ["run directory", "write speed", "file locks", "clock"])
def test_things_are_tried_where_the_run_will_be(asked, monkeypatch, name):
    made, make = [], tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *arguments: made.append(make(*arguments)) or made[-1])
    assert look(name, asked).status != "fail"
    assert [Path(path).parent for path in made] == [asked.place]


def test_a_disk_without_room(asked, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: Usage(10**12, 0, 999_000_000))
    is_bad(look("disk space", asked), "warn", r"999 MB free in .*/runs; expected 1\.0 GB or more", "Free some, name another --run")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: Usage(10**12, 0, 5 * 10**9))
    assert look("disk space", asked).text.startswith("5.0 GB free in ")
    large = Asked(asked.directory, needed_bytes=6 * 10**9)
    is_bad(look("disk space", large), "fail", r"5\.0 GB free in .*; extract will write 6\.0 GB", "extract.store")
    assert look("disk space", Asked(asked.directory, needed_bytes=10**9)).text.endswith("; extract will write 1.0 GB")


def test_a_slow_disk_is_told_and_given_up_on(asked, monkeypatch):
    """The clock jumps 10 s a file: one file is enough to know."""
    synced = []
    monkeypatch.setattr(machine.os, "fsync", synced.append)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: 10.0 * len(synced))
    is_bad(look("write speed", asked), "warn", "^1 MB/s in .*/runs; expected 50 or more", "local disk")
    assert len(synced) == 1


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_scratch_files_are_removed_when_writing_stops(asked, monkeypatch, error):
    monkeypatch.setattr(machine.os, "fsync", raising(error))
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            look("write speed", asked)
    else:
        is_bad(look("write speed", asked), "fail", "the check itself fails: OSError: .*No space left", "Correct what the error names")
    # the fixture looks whether anything is left


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_that_refuses_locks(asked, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", raising(OSError(number, os.strerror(number))))
    is_bad(look("file locks", asked), "warn", f"/runs: the file system refuses file locks: .*{os.strerror(number)}", "never let two processes")


def test_a_file_system_that_only_pretends_to_lock(asked, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: None)
    is_bad(look("file locks", asked), "warn", "/runs: the file system gives one lock to two holders", "never let two processes")


@pytest.mark.parametrize("granted", [0, 1])
def test_another_fault_of_locking_is_neither_a_refusal_nor_a_lock(asked, monkeypatch, granted):
    answers = iter([None] * granted)
    stopping = raising(OSError(errno.EIO, "Input/output error"))
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: next(answers, "none") and stopping())
    is_bad(look("file locks", asked), "fail", "the check itself fails: OSError: .*Input/output error", "Correct what the error names")


@pytest.mark.parametrize(("ahead_s", "said"), [(60, "60 s behind the"), (-60, "60 s ahead of the")])
def test_clocks_that_differ(asked, monkeypatch, ahead_s, said):
    now = time.time
    monkeypatch.setattr(machine.time, "time", lambda: now() + ahead_s)
    is_bad(look("clock", asked), "warn", rf"files in .*/runs are dated {said} system's clock", "Set both clocks by NTP")


def test_a_clock_that_was_never_set(asked, monkeypatch):
    monkeypatch.setattr(machine.time, "time", lambda: 12.0)
    is_bad(look("clock", asked), "fail", "the system's clock says 1970-01-01 00:00:12 UTC", "Set it .*ntp")


# ---- the machine


@pytest.mark.parametrize(
    ("limits", "remedy"),
    [((256, 4096), "^Run `ulimit -n 1024` first$"), ((256, 512), "the hard limit is 512: have it raised"), ((256, resource.RLIM_INFINITY), "first$")],
)
def test_few_open_files(asked, monkeypatch, limits, remedy):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits)
    is_bad(look("open files", asked), "warn", "^256 open files are allowed; expected 1,024 or more", remedy)


def test_no_limit_of_open_files(asked, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2)
    assert look("open files", asked) == Finding("open files", "ok", "no limit", "")


def test_little_shared_memory(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: Usage(67_108_864, 60_000_000, 7_108_864))
    is_bad(
        look("shared memory", asked),
        "warn",
        "^7 MB of 67 MB free in .*loader workers of `atlas train` need 64 MB",
        r"--shm-size=1g.*train\.workers at 0",
    )


def test_no_shared_memory(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "none")
    monkeypatch.setattr(machine.platform, "system", lambda: "Linux")
    is_bad(
        look("shared memory", asked), "warn", "^no .*/none; the loader workers of `atlas train` need it", r"Mount a tmpfs there.*train\.workers at 0"
    )
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    assert look("shared memory", asked).status == "ok"


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """Stand-ins for the kernel's files; call with the available KiB, the process's control groups and their files."""

    def write(available_kib, listing="", **files):
        (tmp_path / "meminfo").write_text(f"MemTotal:  99999999 kB\nMemAvailable:  {available_kib} kB\nHugePages_Total:  0\n")
        (tmp_path / "cgroup").write_text(listing)
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(machine, "MEMORY_FILE", tmp_path / "meminfo")
    monkeypatch.setattr(control_groups, "LISTING", tmp_path / "cgroup")
    monkeypatch.setattr(control_groups, "MOUNT", tmp_path / "groups")
    return write


def test_little_memory(asked, memory):
    memory(1_000_000)
    is_bad(look("memory", asked), "warn", r"^1\.0 GB available; expected 2\.0 GB or more", r"extract\.batch_size")


def test_a_control_group_with_little_left(asked, memory):
    """Version 2: the group above has the limit; 3.0 GB less 2.5 GB in use, of which 0.2 GB are droppable cache."""
    group = {"job/memory.max": "3000000000\n", "job/memory.current": "2500000000\n", "job/memory.stat": "anon 1\ninactive_file 200000000\n"}
    memory(50_000_000, "0::/job/step\n", **group, **{"job/step/memory.max": "max\n"})
    text = r"^700 MB left under the control group's limit \(the machine has 51\.2 GB available\)"
    is_bad(look("memory", asked), "warn", text, "docker run --memory")


def test_the_control_group_with_the_least_room_counts(asked, memory):
    files = {"memory.max": ("3000000000", "4000000000"), "memory.current": ("2500000000", "1000000000"), "memory.stat": ("anon 1", "anon 1")}
    group = {f"{folder}/{name}": f"{values[number]}\n" for name, values in files.items() for number, folder in enumerate(("job", "job/step"))}
    memory(50_000_000, "0::/job/step\n", **group)
    assert look("memory", asked).text.startswith("500 MB left under the control group's limit")


def test_a_control_group_of_version_1_whose_path_is_the_hosts(asked, memory):
    """In a container the listing may name the host's path, of which only the root is seen."""
    group = {"memory/memory.limit_in_bytes": "3000000000", "memory/memory.usage_in_bytes": "2500000000"}
    memory(50_000_000, "9:name=systemd:/docker/1f\n4:cpu,memory:/docker/1f\n0::/\n", **group)
    assert look("memory", asked).text.startswith("500 MB left under the control group's limit")


def test_control_groups_without_a_limit(asked, memory):
    group = {"memory.max": "max\n", "memory/memory.limit_in_bytes": str(2**63 - 4096), "memory/memory.usage_in_bytes": "5"}
    memory(50_000_000, "4:memory:/\n0::/\n", **group)
    assert look("memory", asked) == Finding("memory", "ok", "51.2 GB available", "")


def test_memory_that_the_system_does_not_tell(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "MEMORY_FILE", tmp_path / "none")
    assert look("memory", asked).status == "ok"


# ---- the run


def test_a_config_that_fits(lab, asked):
    found = look("config", Asked(asked.directory, lab.config, lab.assignments()))
    assert found == Finding("config", "ok", "the photos' folder is there; checkpoint files: 3", "")


def test_a_config_that_cannot_be_read_fails_its_own_check_only(asked, tmp_path):
    (tmp_path / "a.toml").write_text("[extract]\nbatch_sise = 3\n")
    found = {finding.name: finding for finding in examine(Asked(asked.directory, tmp_path / "a.toml"), quick=True)}
    is_bad(found["config"], "fail", r"a\.toml: unknown key 'extract\.batch_sise'\. Did you mean 'batch_size'\?", "atlas settings")
    assert [name for name, finding in found.items() if finding.status == "fail"] == ["config"]
    is_bad(look("config", Asked(asked.directory, tmp_path / "b.toml")), "fail", r"b\.toml: no such configuration file", "Correct it")


def test_a_config_whose_files_are_not_there_names_each(asked):
    paths = ("dataset.root='/nowhere/photos'", "extract.checkpoints=['/nowhere/a_*.pth', '/nowhere/b.pth']")
    found = look("config", Asked(asked.directory, assignments=paths))
    is_bad(found, "fail", "dataset.root: /nowhere/photos is no folder .*no file matches '/nowhere/a_.*no file matches '/nowhere/b", "`atlas train`")
    assert found.text.count("a_*.pth") == 1
    nothing_set = look("config", Asked(asked.directory, assignments=("stats.low_contrast_below=0.1",)))
    is_bad(nothing_set, "fail", "dataset.root is not set; extract.checkpoints names no", "Correct the paths")


def test_the_tiny_run_goes_through_all_stages_silently_and_leaves_nothing(asked, tmp_path, monkeypatch, capfd):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    state = torch.random.get_rng_state()
    found = look("tiny run", Asked(asked.directory, assignments=("extract.device=cpu",)))
    assert re.fullmatch(r"index -> extract -> cam -> stats -> render -> report on cpu in \d+\.\d s", found.text), found
    assert list((tmp_path / "temporary").iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_stage_that_stops_is_named_and_nothing_is_left(asked, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    broken = Stage("extract", "Breaks.", raising(KeyError("made\nof glass")), (), "features", "gpu")
    monkeypatch.setattr(network, "STAGES", (STAGES[0], broken))
    is_bad(look("tiny run", asked), "fail", "stage extract fails: KeyError: 'made.*of glass'", "install again in a new environment")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_stages_that_make_no_report(asked, monkeypatch):
    monkeypatch.setattr(network, "STAGES", STAGES[:1])
    is_bad(look("tiny run", asked), "fail", "every stage ran, but there is no report", "Install again")


# ---- all together


def test_a_check_that_breaks_is_a_finding_and_the_next_one_runs(asked):
    rows = [Check("first", raising(ZeroDivisionError("two\nlines"))), Check("second", raising(OSError())), ROWS["python"]]
    first, second, third = examine(asked, rows)
    is_bad(first, "fail", "^the check itself fails: ZeroDivisionError: two lines$", "^Correct what the error names, then run `atlas doctor` again$")
    is_bad(second, "fail", "^the check itself fails: OSError: OSError$", "^Correct what")
    assert third.status == "ok"


def test_a_finding_is_told_before_the_next_check_runs(asked, monkeypatch):
    said = []
    rows = [ROWS["python"], Check("second", lambda asked: Finding("", "warn", f"{len(said)} lines said", "Do this"))]
    monkeypatch.setattr("pipeline.doctor.checks.examine", lambda asked, quick: examine(asked, rows))
    assert doctor(asked, said.append)
    assert said[1] == "warn  second          1 lines said. Do this"
    assert said[2] == "2 checks: 1 ok, 1 warn, 0 fail"


def atlas(*options):
    return CliRunner().invoke(main, ["doctor", *options])


def test_the_command_tells_a_line_a_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "SLOW_MB_PER_S", 10**9)  # a warning is no failure
    result = atlas("--quick")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line[6:20].strip() for line in lines[:-1]] == [row.name for row in CHECKS if row.name != "tiny run"]
    assert f"runs can be made in {tmp_path}" in result.stdout
    assert re.search(r"^warn  write speed .*; expected 1000000000 or more\. Name a --run directory", result.stdout, re.MULTILINE)
    assert re.fullmatch(r"16 checks: \d+ ok, [1-9] warn, 0 fail", lines[-1])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_exit_code_1_also_as_json(tmp_path):
    result = atlas("--quick", "--json", "--run", str(tmp_path / "run"), "--set", "extract.device=gpu")
    assert (result.exit_code, result.stderr) == (1, "")
    found = {row["name"]: row for row in json.loads(result.stdout)}
    assert len(found) == 16
    assert list(found["device"]) == ["name", "status", "text", "remedy"]
    assert found["device"]["status"] == "fail"
    assert found["run directory"]["text"].startswith(f"{tmp_path}/run can be made in ")


def test_a_run_is_called_after_its_config(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sets = [part for assignment in lab.assignments() for part in ("--set", assignment)]
    result = atlas("--quick", "--config", str(lab.config), *sets)
    assert result.exit_code == 0, result.output
    assert "runs/tiny can be made in " in result.stdout
    assert "checkpoint files: 3" in result.stdout


def test_it_needs_nothing_of_the_source_tree(tmp_path):
    """All of it, from copies of the three packages alone, in an empty working directory."""
    source = Path(__file__).parents[3]
    for name in ("pipeline", "safenet", "stages"):
        shutil.copytree(source / name, tmp_path / "installed" / name)
    (tmp_path / "empty").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-W", "error", "-m", "pipeline", "doctor"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path / "empty", env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.search(r"^ok    tiny run  .* in \d+\.\d s$", done.stdout, re.MULTILINE)
    assert list((tmp_path / "empty").iterdir()) == []
