"""The precision that the transformer runs in."""

from __future__ import annotations

from safenet.devices import has_bfloat16
from stages.extract.settings import Precision


def resolve_precision(precision: Precision, device: str) -> str:
    """Resolve "auto": bfloat16 autocast on CUDA devices that have it, float32 elsewhere."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"
