"""Which device the network runs on."""

from __future__ import annotations

import torch


def pick_device(name: str) -> str:
    """Resolve "auto" to cuda where there is one, else cpu; a ValueError says what a device that cannot be had lacks."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise ValueError(f"device {name!r} is unknown; expected auto, cpu, cuda, cuda:0, ...") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} is asked for, but torch {torch.__version__} finds no CUDA device. Use cpu or auto")
    return name
