"""The sizes of a Safe-Net, in one frozen row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

Sampling = Literal["nearest", "bilinear"]
HeadActivation = Literal["none", "leaky_relu"]
Pooling = Literal["mean", "max"]
_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"sampling": get_args(Sampling), "head_activation": get_args(HeadActivation), "pooling": get_args(Pooling)}
)


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes the shapes and the arithmetic of a network; the defaults are upstream's.

    Parameters
    ----------
    image_size, patch_size : int
        Side of the square input and of a patch, in pixels.
    width, depth, heads, mlp_ratio
        The vision transformer. Upstream calls its 768-wide, 8-deep, 8-head net "ViT-S".
    parts : int
        Rings that FPM cuts the map into: a power of two, at most half the grid.
    classes : int
        Rows of each classifier.
    embedding : int
        Length of the embedding of a head.
    loc_hidden : int
        Hidden width of the localisation network.
    sampling : {"nearest", "bilinear"}
        How FAM resamples. Upstream's nearest sampling gives the localisation network no gradient.
    drop_path : float
        Stochastic depth of the last block (training only), linear from 0.
    head_activation : {"none", "leaky_relu"}
        What follows a head's BatchNorm. Upstream's `relu=True` is a LeakyReLU of slope 0.1; its checkpoints do not tell.
    pooling : {"mean", "max"}
        How FPM pools a part. Upstream has a maximum that it never uses; its checkpoints do not tell.

    Raises
    ------
    ValueError
        If the sizes contradict each other.
    """

    image_size: int = 256
    patch_size: int = 16
    width: int = 768
    depth: int = 8
    heads: int = 8
    mlp_ratio: float = 3.0
    parts: int = 4
    classes: int = 701
    embedding: int = 512
    loc_hidden: int = 128
    sampling: Sampling = "nearest"
    drop_path: float = 0.1
    head_activation: HeadActivation = "none"
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.image_size < 2 * self.patch_size:
            raise ValueError(f"image_size {self.image_size} px holds fewer than 2 x 2 patches of {self.patch_size} px")
        if self.parts < 1 or self.parts & (self.parts - 1) or self.parts > self.rings:
            raise ValueError(f"parts is {self.parts}; expected a power of two, at most {self.rings} (half of the {self.grid} x {self.grid} grid)")

    @property
    def grid(self) -> int:
        """Cells along a side of the patch map."""
        return self.image_size // self.patch_size

    @property
    def rings(self) -> int:
        """Largest half-width of a centred square, in cells: R of FPM."""
        return self.grid // 2

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads in the order of every output: parts from the centre outwards, then global."""
        return (*(f"part{number}" for number in range(1, self.parts + 1)), "global")

    @property
    def is_linear(self) -> bool:
        """Whether the part heads' scores are affine in the aligned map, its boundaries held fixed: what the closed forms rest on."""
        return self.head_activation == "none" and self.pooling == "mean"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON and for a checkpoint's metadata; `Architecture(**values)` reads those of earlier versions, too."""
        return asdict(self)


PRESETS: Mapping[str, Architecture] = MappingProxyType(
    {
        "upstream": Architecture(),
        "small": Architecture(image_size=128, patch_size=8, width=192, depth=4, heads=6, classes=300, embedding=256, loc_hidden=64),
        "demo": Architecture(image_size=96, patch_size=8, width=96, depth=3, heads=4, classes=40, embedding=128, loc_hidden=32),
        "tiny": Architecture(image_size=32, patch_size=4, width=16, depth=2, heads=2, classes=3, embedding=8, loc_hidden=8, parts=2),
    }
)
