"""The model: Safe-Net in PyTorch on timm's vision transformer; knows none of our file formats and no scheduler."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safenet.architecture import PRESETS, Architecture
from safenet.checkpoint_info import CheckpointError, CheckpointInfo
from safenet.needs_network import require_network

if TYPE_CHECKING:
    from safenet.checkpoint import load_checkpoint, save_checkpoint
    from safenet.model import SafeNet, SafeNetOutput

__all__ = [
    "PRESETS",
    "Architecture",
    "CheckpointError",
    "CheckpointInfo",
    "SafeNet",
    "SafeNetOutput",
    "load_checkpoint",
    "save_checkpoint",
]

_LAZY = {
    "SafeNet": "safenet.model",
    "SafeNetOutput": "safenet.model",
    "load_checkpoint": "safenet.checkpoint",
    "save_checkpoint": "safenet.checkpoint",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is asked for: sizes and settings are read without it."""
    if name in _LAZY:
        require_network(f"safenet.{name}")
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
