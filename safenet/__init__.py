"""The model: Safe-Net in PyTorch on timm's vision transformer; knows no file format of ours and no scheduler."""

from safenet.torchvision_import import ensure_torchvision

ensure_torchvision()

from safenet.architecture import PRESETS, Architecture  # noqa: E402  (timm needs torchvision to be importable)
from safenet.checkpoint import CheckpointError, CheckpointInfo, load_checkpoint, save_checkpoint  # noqa: E402
from safenet.model import SafeNet, SafeNetOutput  # noqa: E402

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
