"""A laboratory for the pipeline's tests: tiny scenes, seeded checkpoints, and one finished run that tests copy and then mistreat."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before a library reads it, and for processes of tests: small arrays leave more threads waiting, at full load

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from faults import FaultServer

from pipeline.commands.group import main
from pipeline.disk.locks import locked
from pipeline.extract.stage import extract
from pipeline.run.directory import Run
from pipeline.settings.all import Settings, load_settings
from pipeline.stages import STAGES
from safenet.architecture import PRESETS
from safenet.checkpoint import save_checkpoint
from safenet.model import SafeNet
from safenet.scenes.dataset import write_scenes
from stages.extract.batch import FeatureExtractor

CONFIG = Path(__file__).parent.parent / "configs" / "tiny.toml"
CLASS_NAMES = ("0000", "0001", "0002")  # the training places of configs/tiny.toml


@dataclass(frozen=True)
class Lab:
    """Photos and checkpoints, and the ways to run the pipeline on them: Python (`run`) and the command line (`atlas`)."""

    photos: Path
    checkpoints: Path
    config: Path = CONFIG

    def assignments(self, checkpoints: str = "net_*.pth", photos: Path | None = None) -> tuple[str, ...]:
        return (f"dataset.root='{photos or self.photos}'", f"extract.checkpoints=['{self.checkpoints / checkpoints}']")

    def settings(self, *more: str, checkpoints: str = "net_*.pth", photos: Path | None = None) -> Settings:
        return load_settings(self.config, (*self.assignments(checkpoints, photos), *more))

    def run(self, directory: Path, *more: str, checkpoints: str = "net_*.pth", photos: Path | None = None) -> Run:
        return Run(directory, self.settings(*more, checkpoints=checkpoints, photos=photos), progress=False)

    def atlas(self, command: str, directory: Path, *options: str, more: tuple[str, ...] = (), checkpoints: str = "net_*.pth") -> Result:
        chosen = (*self.assignments(checkpoints), *more)
        sets = [part for assignment in chosen for part in ("--set", assignment)]
        env = {"COLUMNS": None}  # processes that share out the tests set it, and a table would be wrapped
        return CliRunner(env=env).invoke(main, [command, "--config", str(self.config), "--run", str(directory), *sets, *options])


def seeded_network(seed: int, **sizes: object) -> SafeNet:
    """A network whose every part matters: a warp that moves cells, and BatchNorm statistics that are not 0 and 1."""
    torch.manual_seed(seed)
    model = SafeNet(replace(PRESETS["tiny"], **sizes))
    with torch.no_grad():
        model.loc_net.fc_loc[2].weight.normal_(std=0.1)
        model.loc_net.fc_loc[2].bias.add_(torch.tensor([-0.3, 0.1, 0.2, -0.1, -0.2, -0.1]))
        for head in model.heads:
            head.add_block[1].running_mean.normal_(std=0.2)
            head.add_block[1].running_var.uniform_(0.5, 2.0)
            head.classifier[0].weight.normal_(std=0.3)
        for block in model.transformer.blocks:  # initial attention is nearly uniform, which would hide a wrong row
            block.attn.qkv.weight.normal_(std=0.5)
    return model.eval()


@pytest.fixture(scope="session")
def make_network() -> Callable[..., SafeNet]:
    return seeded_network


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Folder that `make` fills: by the first to ask of all processes that run tests."""
    folder = factory.getbasetemp() / name
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = factory.getbasetemp().parent / name
    with locked(folder.with_suffix(".lock"), name, wait=True):
        if not folder.exists():
            make(folder.with_suffix(".partial"))
            folder.with_suffix(".partial").rename(folder)
    return folder


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """15 photos of 5 places; net_000 and net_001 sample nearest, net_002 bilinearly."""
    root = made_once(tmp_path_factory, "lab", _write_lab)
    return Lab(root / "photos", root / "checkpoints")


def _write_lab(root: Path) -> None:
    write_scenes(root / "photos", load_settings(CONFIG).scenes)
    for epoch, sampling in enumerate(("nearest", "nearest", "bilinear")):
        save_checkpoint(
            root / "checkpoints" / f"net_{epoch:03d}.pth",
            seeded_network(epoch, sampling=sampling),
            epoch=epoch,
            metrics={"loss": 1.0 / (epoch + 1)},
            class_names=CLASS_NAMES,
        )
    for file in (root / "checkpoints").iterdir():
        os.utime(file, (an_hour_ago := time.time() - 3600, an_hour_ago))  # as a user's are: what is read of a file just written is not noted


@pytest.fixture(scope="session")
def finished(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every stage done. Shared by all tests of a process: look, do not touch."""

    def bring_up(folder: Path) -> None:
        for stage in STAGES:
            stage.bring_up_to_date(lab.run(folder / "run"))

    made = made_once(tmp_path_factory, "finished", bring_up)
    return lab.run(Path(shutil.copytree(made / "run", tmp_path_factory.mktemp("own") / "run")))


@pytest.fixture
def finished_copy(finished: Run, tmp_path: Path) -> Path:
    """Directory of a copy of `finished`, to mistreat."""
    return Path(shutil.copytree(finished.directory, tmp_path / "run"))


@pytest.fixture(scope="session")
def indexed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a run that has a manifest and nothing else."""
    run = lab.run(tmp_path_factory.mktemp("indexed") / "run")
    STAGES[0].bring_up_to_date(run)
    return run.directory


@pytest.fixture
def fresh(indexed: Path, tmp_path: Path) -> Path:
    """Directory of a run that has a manifest and nothing else, to work in."""
    return Path(shutil.copytree(indexed, tmp_path / "run"))


@pytest.fixture(scope="session")
def extracted(lab, indexed, tmp_path_factory):
    """Directory of a run with the features of one checkpoint; a test's undisturbed reference."""
    directory = Path(shutil.copytree(indexed, tmp_path_factory.mktemp("extracted") / "run"))
    extract(lab.run(directory, checkpoints="net_000.pth"))
    return directory


@pytest.fixture
def extracted_copy(extracted, tmp_path):
    return Path(shutil.copytree(extracted, tmp_path / "extracted"))


@pytest.fixture(scope="session")
def server(lab, tmp_path_factory):
    """A process that runs commands in processes of their own, none of which imports anything any more."""
    server, folder = FaultServer(tmp_path_factory.mktemp("server")), tmp_path_factory.mktemp("learnt")
    sets = [part for assignment in lab.assignments("net_000.pth") for part in ("--set", assignment)]
    assert server.run(["run", "--config", str(lab.config), "--run", str(folder / "run"), *sets], learn=True) == 0, server.said
    yield server
    server.close()


@pytest.fixture
def computed(monkeypatch):
    """How many images went through the network, batch by batch."""
    batches = []
    original = FeatureExtractor.__call__
    monkeypatch.setattr(FeatureExtractor, "__call__", lambda self, images, *more: batches.append(len(images)) or original(self, images, *more))
    return batches
