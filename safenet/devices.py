"""Which device the network runs on, and what it can do; torch is imported only if nothing else can tell."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

_CUDA_DRIVER = "libcuda.so.1"
_ROCM_DRIVER = Path("/dev/kfd")


def pick_device(name: str) -> str:
    """Resolve "auto" to cuda where there is one, else cpu; a ValueError says why a device is not available."""
    if name == "cpu" or (name == "auto" and not _has_driver()):
        return "cpu"
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise ValueError(f"device {name!r} is unknown; expected auto, cpu, cuda, cuda:0, ...") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} is asked for, but torch {torch.__version__} finds no CUDA device. Use cpu or auto")
    return name


def is_cuda(device: str) -> bool:
    """Whether a device that `pick_device` gave is a CUDA one."""
    return device.partition(":")[0] == "cuda"


def has_bfloat16(device: str) -> bool:
    """Whether a device computes in bfloat16 by itself; no CPU is taken to."""
    if not is_cuda(device):
        return False
    import torch

    return bool(torch.cuda.is_bf16_supported())


def device_model(device: str) -> str:
    """What a device is sold as."""
    if not is_cuda(device):
        return platform.processor() or platform.machine()
    import torch

    return str(torch.cuda.get_device_name(device))


def _has_driver() -> bool:
    """Whether torch could find a CUDA or ROCm device at all: without a driver there is none, whatever torch was built for."""
    if "torch" in sys.modules or _ROCM_DRIVER.exists():
        return True
    try:
        ctypes.CDLL(_CUDA_DRIVER)
    except OSError:
        return False
    return True
