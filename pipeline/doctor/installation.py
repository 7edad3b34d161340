"""Checks of `atlas doctor` on the installation, and on the inputs of the run: settings, photos, checkpoints."""

from __future__ import annotations

import importlib
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement  # comes with xarray and zarr, which compare versions with it

from pipeline.checkpoints.files import find_checkpoint_files
from pipeline.doctor.findings import Asked, Finding, fail, ok, one_line, readable_size, warn
from pipeline.run.directory import Run
from pipeline.settings.all import Settings, load_settings
from pipeline.settings.compute import ComputeSettings
from pipeline.stages import STAGES
from safenet.architecture import PRESETS
from safenet.checkpoint import save_checkpoint
from safenet.devices import pick_device
from safenet.model import SafeNet
from safenet.scenes.dataset import write_scenes
from safenet.scenes.settings import SceneSettings
from stages.cam.settings import CamSettings
from stages.extract.settings import ExtractSettings
from stages.index.settings import DatasetSettings
from stages.render.settings import RenderSettings

PACKAGE = "safenet-atlas"
OLDEST_PYTHON = (3, 11)  # as pyproject.toml says
OPTIONAL = ("zarrs", "distributed", "grad-cam")
FEW_GPU_BYTES = 2_000_000_000
DEVICE_FILES = Path("/dev")  # the NVIDIA driver's are nvidia0, nvidia1, ...


# ---- the installation


def check_python(asked: Asked) -> Finding:
    """Compare the interpreter's version with the oldest one that is supported."""
    found, oldest = platform.python_version(), ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return fail(f"Python {found}; expected {oldest} or newer", f"Make the environment with python{oldest}")
    return ok(f"Python {found} in {sys.prefix}")


def check_required(asked: Asked) -> Finding:
    """Compare the installed packages with what the package's metadata requires."""
    try:
        required = [Requirement(line) for line in metadata.requires(PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        return fail(f"{PACKAGE} is not installed, so its requirements are unknown", "Run `pip install .` in its folder")
    required = [row for row in required if row.marker is None or row.marker.evaluate({"extra": ""})]
    found = {row: _version(row.name) for row in required}
    faults = [row for row, version in found.items() if version is None or not row.specifier.contains(version, prereleases=True)]
    if not faults:
        return ok(f"{len(required)} packages have the versions that {PACKAGE} {metadata.version(PACKAGE)} requires")
    text = ", ".join(f"{row.name} {found[row] or 'is missing'} (expected {row.specifier})" for row in faults)
    return fail(text, "Run `pip install " + " ".join(f"'{row.name}{row.specifier}'" for row in faults) + "`")


def check_optional(asked: Asked) -> Finding:
    """List the optional packages; none is ever missed."""
    return ok(", ".join(f"{name} {_version(name) or 'not installed'}" for name in OPTIONAL))


def check_image_packages(asked: Asked) -> Finding:
    """Import torchvision and timm."""
    for name in ("torchvision", "timm"):
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError, OSError) as error:
            return fail(f"`import {name}` fails: {one_line(error)}", f"Install the {name} that belongs to torch {torch.__version__}")
    return ok(f"torchvision {_version('torchvision')}, timm {_version('timm')}")


def check_torch(asked: Asked) -> Finding:
    """Tell torch's version and build, and whether it can use the GPU that the machine has."""
    build = f"torch {torch.__version__}, built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'the CPU'}"
    if torch.cuda.is_available():
        return ok(f"{build}; CUDA devices: {torch.cuda.device_count()}")
    if any(DEVICE_FILES.glob("nvidia[0-9]*")):
        remedy = "Install a torch build for a CUDA version that the driver supports; see nvidia-smi"
        return warn(f"{build}; it cannot use this machine's NVIDIA GPU", remedy)
    return ok(f"{build}; no CUDA device")


def check_device(asked: Asked) -> Finding:
    """Resolve extract.device, and tell what there is: name, memory and bfloat16 of a GPU, else the threads."""
    name = asked.settings.extract.device
    try:
        device = torch.device(pick_device(name))
    except ValueError as error:
        return fail(f"extract.{one_line(error)}", "Pass --set extract.device=auto")
    text = f"extract.device = {name!r} is {device}"
    if device.type != "cuda":
        return ok(f"{text}; torch has {torch.get_num_threads()} CPU threads")
    free, total = torch.cuda.mem_get_info(device)
    text += f": {torch.cuda.get_device_name(device)}, {readable_size(free)} of {readable_size(total)} free, "
    text += "with bfloat16" if torch.cuda.is_bf16_supported() else "without bfloat16"
    if free < FEW_GPU_BYTES:
        return warn(f"{text}; expected {readable_size(FEW_GPU_BYTES)} or more", "End what else runs there (nvidia-smi), or lower extract.batch_size")
    return ok(text)


def check_arithmetic(asked: Asked) -> Finding:
    """Multiply two small matrices on the device that extract.device resolves to, and compare the product with the exact one."""
    numbers = torch.arange(64 * 64).reshape(64, 64) % 4  # whole numbers so small are exact in any precision
    remedy = "Install a torch build for this device, or pass --set extract.device=cpu"
    try:
        device = torch.device(pick_device(asked.settings.extract.device))
        factor = numbers.float().to(device)
        product = (factor @ factor).cpu()
    except (RuntimeError, ValueError, AssertionError) as error:  # torch asserts that a backend is compiled in
        return fail(f"a matrix product fails: {one_line(error)}", remedy)
    if not torch.equal(product, (numbers @ numbers).float()):
        return fail(f"a matrix product on {device} is wrong", remedy)
    return ok(f"a matrix product on {device} is right")


# ---- the run


def check_config(asked: Asked) -> Finding:
    """Read the settings, and look for the dataset's folder and a file for every checkpoint pattern."""
    if asked.config is None and not asked.assignments:
        return ok("none given; --config FILE has its dataset and checkpoints checked")
    try:
        settings = load_settings(asked.config, asked.assignments)
    except (ValueError, OSError) as error:
        return fail(one_line(error), "Correct it; `atlas settings` lists all keys")
    faults = [*_dataset_faults(settings.dataset), *_checkpoint_faults(settings.extract.checkpoints)]
    if faults:
        return fail("; ".join(faults), "Correct the paths; `atlas train` makes checkpoints")
    return ok(f"the photos' folder is there; checkpoint files: {len(find_checkpoint_files(settings.extract.checkpoints))}")


def check_tiny_run(asked: Asked) -> Finding:
    """Take a handful of drawn photos and an untrained network through every stage, in a temporary directory."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="atlas-doctor-") as scratch, torch.random.fork_rng(devices=[]):
        run = tiny_run(Path(scratch), asked.settings.extract)
        for stage in STAGES:
            try:
                stage.bring_up_to_date(run)
            except Exception as error:  # noqa: BLE001  (whatever it is, the stage is what the user wants to know)
                text = f"stage {stage.name} fails: {type(error).__name__}: {one_line(error)}"
                return fail(text, "Fix what fails above; if nothing does, install again in a new environment")
        if not run.report_path.is_file():
            return fail("every stage ran, but there is no report", "Install again in a new environment")
    elapsed_s = time.perf_counter() - started
    return ok(f"{' -> '.join(stage.name for stage in STAGES)} on {pick_device(run.settings.extract.device)} in {elapsed_s:.1f} s")


def tiny_run(root: Path, extract: ExtractSettings) -> Run:
    """Draw photos, seed torch, save a network as a checkpoint, and return the run on them; device and precision are those of `extract`."""
    write_scenes(root / "photos", SceneSettings(places=3, test_places=2, drone_views=1, size_px=48))
    torch.manual_seed(0)
    save_checkpoint(root / "net_000.pth", SafeNet(PRESETS["tiny"]), epoch=0)
    own = {"checkpoints": (str(root / "net_000.pth"),), "device": extract.device, "precision": extract.precision}
    settings = Settings(
        dataset=DatasetSettings(root=root / "photos"),
        extract=ExtractSettings.model_validate({**own, "block_samples": 4, "batch_size": 4, "workers": 0}),
        cam=CamSettings(positions=("patch", "aligned"), methods=("l2_norm", "grad_cam")),
        render=RenderSettings(methods=("l2_norm",), place_count=1, drone_views=1, panel_px=64),
        compute=ComputeSettings(workers=1),
    )
    return Run(root / "run", settings, progress=False)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _dataset_faults(dataset: DatasetSettings | None) -> list[str]:
    if dataset is None:
        return ["dataset.root is not set"]
    return [] if dataset.root.is_dir() else [f"dataset.root: {dataset.root} is no folder (working directory {Path.cwd()})"]


def _checkpoint_faults(patterns: Sequence[str]) -> list[str]:
    """One text per pattern that matches no file; else what is amiss with all of them together."""
    faults = []
    for chosen in (*((pattern,) for pattern in patterns), patterns):
        try:
            find_checkpoint_files(chosen)
        except (OSError, ValueError) as error:
            faults.append(one_line(error))
    return list(dict.fromkeys(faults))  # all together repeat the first pattern's
