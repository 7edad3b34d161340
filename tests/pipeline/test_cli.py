"""The command `atlas`: results on stdout, one line on stderr when it fails, exit code 0, 1 or 2."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from pipeline.commands import status as status_command
from pipeline.commands.group import main
from pipeline.stages import STAGES

ONE = "net_000.pth"
ROOT = Path(__file__).parents[2]


def fails(result, said, code=1):
    """Assert exit code and one line on stderr that says `said`, nothing of a trace; return the line."""
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("atlas: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert re.search(said, result.stderr), result.stderr
    return result.stderr


def test_the_whole_flow_command_by_command(lab, tmp_path):
    said = {}
    for stage in STAGES:
        result = lab.atlas(stage.name, tmp_path / "run", checkpoints=ONE)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        said[stage.name] = result.stdout
    assert said["index"].startswith("index: 15 images computed, 0 up to date\n  4 test drone, 2 test satellite, 6 train drone, 3 train satellite")
    assert said["extract"].startswith("extract: 4 blocks computed, 0 up to date\n  1 checkpoints, 15 images, ")
    assert said["cam"].startswith("cam: 9 maps ")
    assert said["stats"].startswith("stats: 1 checkpoints computed, 0 up to date")
    assert said["render"].startswith("render: 6 pictures computed, 0 up to date\n")
    assert f"open {tmp_path}/run/report/index.html" in said["report"]
    again = lab.atlas("run", tmp_path / "run", checkpoints=ONE)
    assert again.exit_code == 0
    for name in ("index", "extract", "cam", "stats", "render"):
        assert re.search(rf"^{name}: nothing to compute, \d+ up to date$", again.stdout, re.MULTILINE)


def test_python_dash_m_is_the_command(lab, finished, tmp_path):
    """In a process of its own, from another working directory."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline"]
    done = subprocess.run(
        [*command, "status", "--run", finished.directory], check=False, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "15 images, 0 bad" in done.stdout
    assert re.search(r"net_000 +checkpoints +0 +4/4 blocks +9 kinds +yes", done.stdout)


def test_every_stage_is_a_command_with_help():
    listed = CliRunner().invoke(main, ["--help"]).stdout
    for stage in STAGES:
        assert re.search(rf"^  {stage.name} ", listed, re.MULTILINE)
        shown = CliRunner().invoke(main, [stage.name, "-h"])
        assert shown.exit_code == 0
        text = " ".join(shown.stdout.split())
        assert f"writes {stage.writes}" in text
        for option in ("--config", "--run", "--set", "--quiet", *(f"--{name.replace('_', '-')}" for name in stage.options)):
            assert option in text
    for name in ("run", "train", "status", "demo"):
        assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_the_version_is_told():
    assert re.search(r"version \d+\.\d+\.\d+", CliRunner().invoke(main, ["--version"]).stdout)


# ---- wrong usage: 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extract"], "give --config FILE, --run DIR or both"),
        (["extrct"], "No such command 'extrct'"),
        (["extract", "--confg", "x"], "No such option"),
        (["extract", "--partial", "--run", "x"], "No such option"),
        (["cam", "--replace", "--run", "x"], "No such option"),
        (["extract", "--run"], "requires an argument"),
        (["extract", "--run", "x", "stray"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, said):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert said in result.stderr


# ---- one line: 1


def test_each_stage_on_an_empty_run_names_the_missing_command(lab, tmp_path):
    fails(lab.atlas("extract", tmp_path), r"manifest\.parquet: no manifest; run `atlas index` first")
    for command in ("cam", "stats", "render"):
        fails(lab.atlas(command, tmp_path), r"features\.zarr: no features; run `atlas extract` first")
    fails(lab.atlas("report", tmp_path), "no figures; run `atlas stats` first")
    fails(CliRunner().invoke(main, ["status", "--run", str(tmp_path)]), "no manifest; run `atlas index` first")


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("dataset.root='/nowhere/at/all'", "/nowhere/at/all"),
        ("dataset.layout='university'", "university1652"),
        ("extract.batch_sise=3", r"--set extract\.batch_sise=3: unknown key 'extract\.batch_sise'. Did you mean 'batch_size'\?"),
        ("extrct.batch_size=3", r"--set extrct\.batch_size=3: unknown table 'extrct'. Did you mean 'extract'\?"),
        ("extract.batch_size=many", r"extract\.batch_size = 'many'"),
        ("cam.methods=['gradcam']", r"'gradcam' is unknown. Did you mean 'grad_cam'\?"),
        ("cam.targets=['lable']", r"'lable' is unknown. Did you mean 'label'\?"),
        ("cam.positions=['parts']", r"'parts' is unknown. Did you mean 'part'\?"),
        ("compute.executor=thread", r"'thread' is unknown. Did you mean 'threads'\?"),
        ("nonsense", r"--set nonsense: expected table\.key=value"),
    ],
)
def test_a_wrong_setting_is_one_line(lab, tmp_path, assignment, said):
    fails(lab.atlas("index", tmp_path, more=(assignment,)), said)


def test_a_config_that_is_not_there_or_not_toml_is_one_line(tmp_path):
    fails(CliRunner().invoke(main, ["index", "--config", str(tmp_path / "a.toml")]), r"a\.toml: no such configuration file")
    (tmp_path / "a.toml").write_text("[extract\nbatch_size = 3\n")
    fails(CliRunner().invoke(main, ["index", "--config", str(tmp_path / "a.toml")]), r"a\.toml: not valid TOML: ")


def test_an_empty_dataset_folder_is_one_line(lab, tmp_path):
    (tmp_path / "empty").mkdir()
    fails(lab.atlas("index", tmp_path, more=(f"dataset.root='{tmp_path}/empty'",)), "/empty: ")


def test_checkpoints_that_cannot_be_used_are_one_line(lab, fresh, tmp_path):
    fails(lab.atlas("extract", fresh, checkpoints="nett_*.pth"), r"extract\.checkpoints: no file matches '.*nett_\*\.pth'")
    good = (lab.checkpoints / ONE).read_bytes()
    (tmp_path / "cut.pth").write_bytes(good[: len(good) // 3])
    torch.save({"conv1.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    for name in ("cut", "other"):
        fails(lab.atlas("extract", fresh, more=(f"extract.checkpoints=['{tmp_path}/{name}.pth']",)), rf"{name}\.pth: ")


def test_stale_features_are_one_line_and_replace_mends_them(lab, finished_copy):
    changed = ("extract.map_dtype=float32",)
    line = fails(lab.atlas("extract", finished_copy, more=changed), r"made with map_dtype = 'float16', but 'float32' is asked for")
    assert "--replace" in line
    result = lab.atlas("extract", finished_copy, "--replace", more=changed, checkpoints=ONE)
    assert result.exit_code == 0
    assert result.stdout.startswith("extract: 4 blocks computed")


def test_unfinished_features_are_one_line_and_partial_goes_on(lab, finished_copy):
    (finished_copy / "ledger" / "features" / "net_001" / "000000.json").unlink()
    fails(lab.atlas("cam", finished_copy), r"net_001: unfinished, 1 of 4 blocks missing; run `atlas extract` again, or pass --partial")
    assert lab.atlas("cam", finished_copy, "--partial").exit_code == 0


def test_damage_is_one_line(lab, finished_copy):
    path = finished_copy / "features.zarr" / "net_001" / "theta" / "c.0.0.0"
    content = bytearray(path.read_bytes())
    content[3] ^= 16
    path.write_bytes(bytes(content))
    fails(lab.atlas("stats", finished_copy, more=("stats.top_share=0.3",)), r"features\.zarr/net_001/theta, samples 0 to 3: damaged or missing: ")


def test_status_lists_the_bad_images_with_their_reasons(lab, tmp_path):
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    cut = photos / "train" / "drone" / "0000" / "image-01.jpeg"
    cut.write_bytes(cut.read_bytes()[:700])
    Image.new("RGB", (1, 1)).save(photos / "train" / "drone" / "0001" / "image-02.jpeg")
    more = (f"dataset.root='{photos}'", "extract.max_bad_share=0.2")
    for command in ("index", "extract"):
        assert lab.atlas(command, tmp_path / "run", more=more, checkpoints=ONE).exit_code == 0
    shown = CliRunner().invoke(main, ["status", "--bad", "--run", str(tmp_path / "run")]).stdout
    assert "15 images, 2 bad" in shown
    assert re.search(r"0000\S*image-01\S*: cannot be decoded: .*truncated", shown)
    assert re.search(r"0001\S*image-02\S*: too small: 1 x 1 px", shown)
    assert "truncated" not in CliRunner().invoke(main, ["status", "--run", str(tmp_path / "run")]).stdout
    stopped = lab.atlas("extract", tmp_path / "again", more=more, checkpoints=ONE)
    fails(stopped, "no manifest")


def test_status_before_extraction(fresh):
    shown = CliRunner().invoke(main, ["status", "--run", str(fresh)])
    assert shown.exit_code == 0
    assert "no features yet; run `atlas extract`" in shown.stdout


# ---- how errors are told


@pytest.mark.parametrize("error", [ValueError("two\nlines"), FileNotFoundError("two\nlines"), FloatingPointError("two\nlines")])
def test_expected_errors_become_one_line(monkeypatch, tmp_path, error):
    def failing(run):
        raise error

    monkeypatch.setattr(status_command, "run_status", failing)
    fails(CliRunner().invoke(main, ["status", "--run", str(tmp_path)]), "^atlas: two lines\n$")


def test_a_fault_of_ours_shows_its_trace(monkeypatch, tmp_path):
    def failing(run):
        raise KeyError("ours")

    monkeypatch.setattr(status_command, "run_status", failing)
    result = CliRunner().invoke(main, ["status", "--run", str(tmp_path)])
    assert isinstance(result.exception, KeyError)


def test_debug_shows_the_trace_of_an_expected_error(tmp_path):
    result = CliRunner().invoke(main, ["--debug", "status", "--run", str(tmp_path)])
    assert isinstance(result.exception, FileNotFoundError)


def test_a_run_is_called_after_its_config_and_paths_are_taken_from_the_working_directory(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(lab.photos, tmp_path / "photos")
    (tmp_path / "mine.toml").write_text('[dataset]\nroot = "photos"\n')
    result = CliRunner().invoke(main, ["index", "--config", "mine.toml"])
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "runs" / "mine" / "manifest.parquet").is_file()
    assert "15 images" in CliRunner().invoke(main, ["status", "--config", "mine.toml"]).stdout


def test_training_goes_from_the_config_to_checkpoints_that_extract_reads(lab, tmp_path):
    """The smallest way from photos to a store with a real epoch."""
    result = lab.atlas("train", tmp_path / "run", more=("train.epochs=1",))
    assert result.exit_code == 0, result.output
    assert re.match(r"epoch 0: \w+ ", result.stdout)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("net_*.pth"))
    assert names == ["net_000.pth", "net_init.pth"]
    assert lab.atlas("index", tmp_path / "run").exit_code == 0
    done = lab.atlas("extract", tmp_path / "run", more=(f"extract.checkpoints=['{tmp_path}/run/checkpoints/net_*.pth']",))
    assert done.stdout.startswith("extract: 8 blocks computed")
    shown = CliRunner().invoke(main, ["status", "--run", str(tmp_path / "run")]).stdout
    assert shown.index("net_init") < shown.index("net_000")  # the untrained network comes first
