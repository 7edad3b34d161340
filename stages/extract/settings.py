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

    checkpoints: tuple[str, ...] = Field((), description="checkpoint files or globs")
    heads: int | None = Field(None, description="attention heads; default: what the file says, else 8")
    sampling: Sampling | None = Field(None, description="FAM's: nearest, bilinear; default: what the file says, else nearest")
    head_activation: HeadActivation | None = Field(
        None, description="of the heads: none, leaky_relu (upstream's `relu` option); default: what the file says, else none"
    )
    pooling: Pooling | None = Field(None, description="FPM's: mean, max; default: what the file says, else mean")
    state_key: str | None = Field(
        None, description='which network to take of files that hold several, such as "ema"; default: the only one that is no moving average'
    )
    map_dtype: Literal["float16", "float32"] = Field("float16", description="precision of the stored maps")
    aligned: Literal["stored", "derived"] = Field(
        "stored", description="derived: rebuild the aligned map from source_cell on reading (nearest sampling)"
    )
    store: tuple[str, ...] = Field(("image",), description="variables on request: " + ", ".join(sorted(CHOICES)))
    blocks: tuple[int, ...] = Field((), description="blocks whose maps are stored, 0 first")
    gradient_targets: tuple[str, ...] = Field(
        (),
        description="class scores whose heat maps at blocks are stored: label, predicted, counter, class_NAME, each also with .part_N, .softmax, ...",
    )
    gradient_blocks: tuple[int, ...] = Field(
        (), description="blocks of those maps, 0 first; default: all. The lower the first, the longer the backward pass, one a target"
    )
    precision: Precision = Field("auto", description="of the transformer; auto: bfloat16 on CUDA, float32 elsewhere")

    series: str | None = Field(
        None, description="regular expression whose first group, searched in a checkpoint file's path, names its series; default: the file's folder"
    )
    block_samples: int = Field(32, ge=1, description="samples a block: the unit of work, one file an array")
    chunk_samples: int = Field(0, ge=0, description="samples a chunk within a block's file; 0: the whole block")
    batch_size: int = Field(32, ge=1, description="images a forward pass")
    workers: int | None = Field(None, ge=0, description="decoding processes; default: by the machine")
    device: str = Field("auto", description="cpu, cuda, cuda:1, ...; auto: cuda where there is one")
    max_bad_share: float = Field(0.05, ge=0, le=1, description="stop when more than this share of the images is bad")

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
            raise ValueError(f"extract.series = {value!r}: no regular expression: {error}") from None
        if not groups:
            raise ValueError(f"extract.series = {value!r}: has no group to take the series from; put it in brackets, as in '/(seed[0-9]+)/'")
        return value

    @field_validator("blocks", "gradient_blocks")
    @classmethod
    def _ascending_blocks(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if any(number < 0 for number in value):
            raise ValueError(f"extract.{info.field_name}: {min(value)} is no block; the first is 0")
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
            f"{GRADIENT_TARGETS}: {text!r} is a similarity: it needs the embeddings of other images, which are not there before the pass is over. "
            f"Name a target of a class (label, predicted, counter, class_NAME) here, and this one in cam.targets"
        )
    return target
