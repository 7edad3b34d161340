"""Checks of `atlas doctor` on what the network runs on: torch, its device, and a tiny run through all stages."""

from __future__ import annotations

import importlib
import tempfile
import time
from pathlib import Path

import torch

from pipeline.doctor.findings import Asked, Finding, fail, installed_version, ok, one_line, readable_size, warn
from pipeline.run.directory import Run
from pipeline.settings.all import Settings
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

FEW_GPU_BYTES = 2_000_000_000
DEVICE_FILES = Path("/dev")  # the NVIDIA driver's are nvidia0, nvidia1, ...


def check_image_packages(asked: Asked) -> Finding:
    """Import torchvision and timm."""
    for name in ("torchvision", "timm"):
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError, OSError) as error:
            return fail(f"`import {name}` fails: {one_line(error)}", f"Install the {name} that belongs to torch {torch.__version__}")
    return ok(f"torchvision {installed_version('torchvision')}, timm {installed_version('timm')}")


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
