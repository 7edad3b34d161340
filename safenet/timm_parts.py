"""What the network uses from timm and torchvision, imported in the order in which a CPU-only torch can load them."""

from __future__ import annotations

from safenet.torchvision_import import ensure_torchvision

ensure_torchvision()

from timm.layers import Attention  # noqa: E402  (timm imports torchvision)
from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from torchvision import transforms  # noqa: E402

__all__ = ["Attention", "VisionTransformer", "transforms"]
