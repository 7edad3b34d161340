"""The [extract] table: which files, which tensors at what precision, and how fast."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from safenet.architecture import HeadActivation, Pooling, Sampling
from stages.naming import known
from stages.schema import CHOICES
from stages.targets.names import TargetName, parse_target

Precision = Literal["auto", "float32", "bfloat16", "float16"]
GRADIENT_TARGETS = "extract.gradient_targets"
RESOURCE_SETTINGS = frozenset({"checkpoints", "series", "batch_size", "workers", "device", "max_bad_share", "block_samples", "chunk_samples"})

# they came after the first stores: in a stamp only if set
LATER_SETTINGS = ("head_activation", "pooling", "gradient_targets", "gradient_blocks", "state_key")


class ExtractSettings(BaseModel):
    """The [extract] table.

    The second half only says how fast: those settings never make stored features stale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    checkpoints: tuple[str, ...] = Field((), description="checkpoint files, or glob patterns")
    heads: int | None = Field(None, description="number of attention heads; default: as the file says, else 8")
    sampling: Sampling | None = Field(None, description="sampling of FAM: nearest, bilinear; default: as the file says, else nearest")
    head_activation: HeadActivation | None = Field(
        None, description="activation in the heads: none, leaky_relu (the `relu` option of the published code); default: as the file says, else none"
    )
    pooling: Pooling | None = Field(None, description="pooling of FPM: mean, max; default: as the file says, else mean")
    state_key: str | None = Field(
        None, description='which network to take from a file that holds several, such as "ema"; default: the only one that is not a moving average'
    )
    map_dtype: Literal["float16", "float32"] = Field("float16", description="precision of the stored maps")
    aligned: Literal["stored", "derived"] = Field(
        "stored", description="derived: the aligned map is not stored, but rebuilt from source_cell on reading (nearest sampling only)"
    )
    store: tuple[str, ...] = Field(("image",), description="optional variables to store: " + ", ".join(sorted(CHOICES)))
    blocks: tuple[int, ...] = Field((), description="transformer blocks whose maps are stored; the first is 0")
    gradient_targets: tuple[str, ...] = Field(
        (),
        description=(
            "class scores whose heat maps at transformer blocks are stored: label, predicted, counter, class_NAME, each also with .part_N, "
            ".softmax, ..."
        ),
    )
    gradient_blocks: tuple[int, ...] = Field(
        (),
        description="transformer blocks of those maps; the first is 0; empty: all. Each target takes a backward pass down to the lowest of them",
    )
    precision: Precision = Field("auto", description="precision of the transformer; auto: bfloat16 on CUDA, float32 elsewhere")

    series: str | None = Field(
        None,
        description="regular expression whose first group, found in the path of a checkpoint file, names its series; default: the folder of the file",
    )
    block_samples: int = Field(32, ge=1, description="samples per block; a block is the unit of work, with one file per array")
    chunk_samples: int = Field(0, ge=0, description="samples per chunk within the file of a block; 0: the whole block")
    batch_size: int = Field(32, ge=1, description="images per forward pass")
    workers: int | None = Field(
        None, ge=0, description="decoding processes; 0: as many threads as the network has; default: 1 on a CPU, one per core (16 at most) with CUDA"
    )
    device: str = Field("auto", description="cpu, cuda, cuda:1, ...; auto: cuda if there is one, else cpu")
    max_bad_share: float = Field(0.05, ge=0, le=1, description="stop if more than this share of the images is bad")

    @field_validator("store")
    @classmethod
    def _known_variables(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(known(name, CHOICES, "extract.store") for name in value)

    @field_validator("series")
    @classmethod
    def _has_a_group(cls, value: str | None) -> str | None:
        try:
            groups = 1 if value is None else re.compile(value).groups
        except re.error as error:
            raise ValueError(f"extract.series = {value!r}: not a regular expression: {error}") from None
        if not groups:
            raise ValueError(f"extract.series = {value!r}: has no group to take the series from; put it in brackets, as in '/(seed[0-9]+)/'")
        return value

    @field_validator("blocks", "gradient_blocks")
    @classmethod
    def _ascending_blocks(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if any(number < 0 for number in value):
            raise ValueError(f"extract.{info.field_name}: {min(value)} is not a block; the first is 0")
        return tuple(sorted(set(value)))

    @field_validator("gradient_targets")
    @classmethod
    def _class_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(class_target(text)) for text in value))

    @model_validator(mode="after")
    def _blocks_have_targets(self) -> ExtractSettings:
        if self.gradient_blocks and not self.gradient_targets:
            raise ValueError("extract.gradient_blocks: no class scores to trace back to them. Name some in extract.gradient_targets")
        return self

    @property
    def requested(self) -> frozenset[str]:
        """The variables on request, with those that other settings imply."""
        implied = {"aligned_map"} if self.aligned == "stored" else set()
        implied |= {"block_map", "block"} if self.blocks else set()
        implied |= {"block_cam", "gradient_target", "gradient_block", "gradient_method"} if self.gradient_targets else set()
        return frozenset(self.store) | implied

    @property
    def told(self) -> dict[str, Any]:
        """What a checkpoint file's shapes do not tell, as `read_checkpoint` takes it; None where the file is to say."""
        names = ("heads", "sampling", "head_activation", "pooling", "state_key")
        return {name: getattr(self, name) for name in names}


def class_target(text: str) -> TargetName:
    """Take a target of extract.gradient_targets apart.

    Raises
    ------
    ValueError
        If it is unknown, or a similarity.
    """
    target = parse_target(text, GRADIENT_TARGETS)
    if target.row.kind == "similarity":
        raise ValueError(
            f"{GRADIENT_TARGETS}: {text!r} is a similarity: it needs the embeddings of other images, which do not exist before the pass is over. "
            f"Name a target of a class (label, predicted, counter, class_NAME) here, and this one in cam.targets"
        )
    return target
