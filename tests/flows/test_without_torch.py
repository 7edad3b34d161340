"""Everything after `extract` on a machine without torch, timm and torchvision: the same products, and one line where the network is needed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.extract.stage import extract
from safenet.checkpoint import save_checkpoint

ROOT = Path(__file__).parents[2]
AFTER_EXTRACT = ("cam", "stats", "render", "report", "plan", "status", "verify")
MADE_BY_THEM = ("cams.zarr", "stats.zarr", "mosaics", "report")
NOT_INSTALLED = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""
COMMANDS = """
import json
from click.testing import CliRunner
from pipeline.commands.group import main

found = []
for arguments in json.load(sys.stdin):
    done = CliRunner().invoke(main, arguments)
    found.append([done.exit_code, done.stdout, done.stderr])
print(json.dumps(found))
"""
ANALYSIS = """
import pipeline

run = pipeline.open_run(sys.argv[1])
maps, explain = run.cams["aligned/match/grad_cam"].sel(checkpoint="net_002"), run.explain
sample = str(maps["sample_id"].values[0])
asked = explain.maps("net_002", ["aligned/match/grad_cam", "patch/predicted/eigen_grad_cam"])
assert (asked["aligned/match/grad_cam"].values == maps.values).all()
explain.maps("net_000", ["part/predicted/hires_cam"], heads_of="net_002")
explain.split_change("net_000", "net_001", "patch/label/hires_cam", [sample])
for method in ("grad_cam", "hires_cam"):
    explain.class_maps("net_002", [sample], method=method)
    explain.mean_class_maps("net_002", position="patch", method=method)
explain.curves("net_002", "aligned/label/hires_cam", [sample], "label.softmax")
explain.pair("net_002", sample, 1)
explain.image_frame(asked["aligned/match/grad_cam"], "net_002")
"""


def without_torch(script: str, *arguments: str, given: object = None) -> str:
    """Run a script in a process that finds no torch; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", NOT_INSTALLED + script, *arguments],
        input=json.dumps(given), capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def atlas(*commands: list[str]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of commands, one after the other in one process."""
    return json.loads(without_torch(COMMANDS, given=commands))


def options_of(lab, directory: Path, *more: str, checkpoints: str = "net_*.pth") -> list[str]:
    sets = [part for assignment in (*lab.assignments(checkpoints), *more) for part in ("--set", assignment)]
    return ["--config", str(lab.config), "--run", str(directory), *sets]


@pytest.fixture(scope="module")
def made(lab, finished, tmp_path_factory) -> Path:
    """A run whose products after `extract` were made in a process without torch."""
    directory = Path(shutil.copytree(finished.directory, tmp_path_factory.mktemp("without") / "run"))
    for name in MADE_BY_THEM:
        shutil.rmtree(directory / name)
        shutil.rmtree(directory / "ledger" / name.removesuffix(".zarr"), ignore_errors=True)
    done = atlas(*([command, *options_of(lab, directory)] for command in AFTER_EXTRACT))
    assert [code for code, _, _ in done] == [0] * len(AFTER_EXTRACT), done
    return directory


def test_maps_figures_pictures_and_the_page_are_the_same(made, finished):
    """Each file, byte for byte."""
    for name in MADE_BY_THEM:
        ours, theirs = ({path.relative_to(run): path for path in (run / name).rglob("*") if path.is_file()} for run in (made, finished.directory))
        assert set(ours) == set(theirs)
        assert [path for path in ours if ours[path].read_bytes() != theirs[path].read_bytes()] == []


def test_a_run_is_opened_and_explained(made):
    without_torch(ANALYSIS, str(made))


def test_heads_and_pooling_without_a_closed_form_need_no_torch_either(lab, indexed, tmp_path, make_network):
    save_checkpoint(tmp_path / "net_000.pth", make_network(0, head_activation="leaky_relu", pooling="max", sampling="bilinear"), epoch=0)
    directory = Path(shutil.copytree(indexed, tmp_path / "run"))
    settings = (f"extract.checkpoints=['{tmp_path / 'net_000.pth'}']", "cam.methods=['hires_cam', 'token_deletion']", "cam.targets=['predicted']")
    extract(lab.run(directory, *settings))
    (code, said, _), *_ = atlas(["cam", *options_of(lab, directory, *settings)], ["stats", *options_of(lab, directory, *settings)])
    assert code == 0, said
    cams = lab.run(directory, *settings).cams("net_000")
    assert cams.attributes["exactness"]["form"] == "autograd"
    assert np.isfinite(cams.read(["patch/predicted/token_deletion"])["patch/predicted/token_deletion"]).all()


def test_what_runs_the_network_says_in_one_line_what_to_install(lab, made, tmp_path):
    directory = Path(shutil.copytree(made, tmp_path / "run"))
    more = {"extract": ["--replace", "--set", "extract.precision='bfloat16'"]}
    commands = ("extract", "pixels", "train")
    done = atlas(*([command, *options_of(lab, directory), *more.get(command, [])] for command in commands))
    for command, (code, _, errors) in zip(commands, done, strict=True):
        assert code == 1
        said = f"{command} needs torch, timm, torchvision, which are not installed. Run pip install 'safenet-atlas[network]'"
        assert errors.splitlines()[-1].endswith(said)
