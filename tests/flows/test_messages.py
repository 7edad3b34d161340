"""What a user reads when something cannot be done: each text once."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import pipeline
from pipeline.cam.stage import cam
from pipeline.commands.group import main
from pipeline.extract import stage as extract_stage
from pipeline.extract.stage import extract
from pipeline.index.stage import index
from pipeline.render.stage import render
from pipeline.report.stage import report
from pipeline.run.directory import MissingProductError
from pipeline.settings.all import load_settings
from pipeline.settings.toml import ConfigError
from pipeline.stats.stage import stats
from safenet import PRESETS, SafeNet, save_checkpoint
from safenet.devices import pick_device

ONE = "net_000.pth"


def test_devices_that_cannot_be_had_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'gpu0' is unknown; expected auto, cpu, cuda"):
        pick_device("gpu0")
    with pytest.raises(ValueError, match=r"device 'cuda:1' is asked for, but torch .* finds no CUDA device\. Use cpu or auto"):
        pick_device("cuda:1")
    assert pick_device("auto") == pick_device("cpu") == "cpu"


def test_settings_that_contradict_themselves_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"extract\.blocks: -1 is not a block; the first is 0"):
        load_settings(None, ["extract.blocks=[-1]"])
    assert load_settings(None, ["extract.blocks=[1,0,1]"]).extract.blocks == (0, 1)
    path = tmp_path / "a.toml"
    path.write_text("cam = 3\n")
    with pytest.raises(ConfigError, match=r"cam = 3: expected a table \[cam\]"):
        load_settings(path, ["cam.methods=['max']"])


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "run").write_text("")
    found = CliRunner().invoke(main, ["status", "--run", str(tmp_path / "run")])
    assert found.exit_code == 2
    assert "a file; expected a directory" in found.output


def test_a_mosaic_that_is_gone_is_named(lab, finished_copy):
    next((finished_copy / "mosaics").rglob("*.png")).unlink()
    with pytest.raises(MissingProductError, match=r"\.png: this mosaic is gone \(1 in all\); run `atlas render` again"):
        report(lab.run(finished_copy))


def test_photos_that_are_nowhere_are_asked_for(lab, indexed, tmp_path):
    directory = shutil.copytree(indexed, tmp_path / "run")
    photos = shutil.copytree(lab.photos, tmp_path / "photos")
    run = lab.run(directory, "extract.store=[]", photos=photos, checkpoints=ONE)
    for stage in (index, extract, cam, stats):
        stage(run)
    shutil.rmtree(photos)
    with pytest.raises(MissingProductError, match=r"the photo is not here, and .*net_000 holds no copy\. Bring the photos back"):
        render(run)


def test_networks_of_different_sizes_are_not_joined(lab, indexed, tmp_path, monkeypatch):
    directory = shutil.copytree(indexed, tmp_path / "run")
    torch.manual_seed(0)
    for epoch, parts in enumerate((2, 4)):
        save_checkpoint(tmp_path / f"net_00{epoch}.pth", SafeNet(replace(PRESETS["tiny"], parts=parts)), epoch=epoch)
    run = lab.run(directory, f"extract.checkpoints=['{tmp_path}/net_*.pth']", "cam.targets=['match']")
    with monkeypatch.context() as patch:
        patch.setattr(extract_stage, "check_same_sizes", lambda run, infos: None)  # as earlier versions did
        extract(run)
    cam(run)
    with pytest.raises(ValueError, match="net_000 and net_001 differ in grid or parts, so their figures cannot be joined"):
        stats(run)
    with pytest.raises(ValueError, match=r"net_000 and net_001 are networks or datasets of different sizes, which do not fit side by side"):
        pipeline.open_run(directory)


def test_values_that_are_not_finite_are_told(lab, indexed, tmp_path):
    directory = shutil.copytree(indexed, tmp_path / "run")
    torch.manual_seed(0)
    model = SafeNet(PRESETS["tiny"])
    with torch.no_grad():
        model.transformer.norm.weight[0] = 1e6  # beyond float16 where a token is not small there
    save_checkpoint(tmp_path / "net_000.pth", model, epoch=0)
    run = lab.run(directory, f"extract.checkpoints=['{tmp_path}/net_000.pth']")
    said = str(extract(run))
    assert "are not finite, first in patch_map of" in said and "set extract.map_dtype" in said
    assert np.isinf(run.features("net_000").read(["patch_map"])["patch_map"].values).any()
