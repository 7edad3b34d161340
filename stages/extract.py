"""One batch of photos -> the feature variables of the schema, on the device, in the layout and dtype of the store."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from safenet.architecture import Architecture, Sampling
from safenet.attention import AttentionRecorder
from safenet.model import SafeNet, SafeNetOutput
from safenet.preprocess import normalise
from stages.naming import known
from stages.schema import CHOICES, MASKS, Variable, feature_variables

Precision = Literal["auto", "float32", "bfloat16", "float16"]
_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class ExtractSettings(BaseModel):
    """The [extract] table.

    The second half only says how fast: those settings never make stored features stale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoints: tuple[str, ...] = Field((), description="checkpoint files or globs")
    heads: int | None = Field(None, description="attention heads; default: what the file says, else 8")
    sampling: Sampling | None = Field(None, description="FAM's: nearest, bilinear; default: what the file says, else nearest")
    map_dtype: Literal["float16", "float32"] = Field("float16", description="precision of the stored maps")
    aligned: Literal["stored", "derived"] = Field(
        "stored", description="derived: rebuild the aligned map from source_cell on reading (nearest sampling)"
    )
    store: tuple[str, ...] = Field(("image",), description="variables on request: " + ", ".join(sorted(CHOICES)))
    blocks: tuple[int, ...] = Field((), description="blocks whose maps are stored, 0 first")
    precision: Precision = Field("auto", description="of the transformer; auto: bfloat16 on CUDA, float32 elsewhere")

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

    @field_validator("blocks")
    @classmethod
    def _ascending_blocks(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(number < 0 for number in value):
            raise ValueError(f"extract.blocks: {min(value)} is no block; the first is 0")
        return tuple(sorted(set(value)))

    @property
    def requested(self) -> frozenset[str]:
        """The variables on request, with those that other settings imply."""
        implied = {"aligned_map"} if self.aligned == "stored" else set()
        implied |= {"block_map", "block"} if self.blocks else set()
        return frozenset(self.store) | implied


RESOURCE_SETTINGS = frozenset({"checkpoints", "batch_size", "workers", "device", "max_bad_share", "block_samples", "chunk_samples"})


def resolve_precision(precision: Precision, device: torch.device) -> str:
    """Resolve "auto": bfloat16 autocast on CUDA devices that have it, float32 elsewhere."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


class FeatureExtractor:
    """A network on a device that turns photos into feature variables.

    Parameters
    ----------
    model : SafeNet
        In evaluation mode; it is moved to the device.
    settings : ExtractSettings
    device : torch.device
    """

    def __init__(self, model: SafeNet, settings: ExtractSettings, device: torch.device) -> None:
        self.model = model.to(device)
        self.architecture: Architecture = model.architecture
        self.settings = settings
        self.device = device
        self.precision = resolve_precision(settings.precision, device)
        self.variables = written_by_network(settings)

    @torch.inference_mode()
    def __call__(self, photos: Tensor) -> dict[str, Tensor]:
        """Run the network.

        Parameters
        ----------
        photos : Tensor [B, S, S, 3] of uint8
            RGB at the network's size, on any device.

        Returns
        -------
        dict
            One tensor a variable of `written_by_network`, samples first, on the device.
        """
        images = normalise(photos.to(self.device, non_blocking=True))
        requested = self.settings.requested
        with ExitStack() as stack:
            if self.precision in _AUTOCAST:
                stack.enter_context(torch.autocast(self.device.type, _AUTOCAST[self.precision]))
            recorder = None
            if requested & {"cls_attention", "rollout"}:
                recorder = stack.enter_context(AttentionRecorder(self.model))
            output = self.model(images, self.settings.blocks)
            found = _variables(output)
            if recorder is not None:
                found |= {"cls_attention": recorder.cls_attention, "rollout": recorder.rollout}
        if "flip_embedding" in requested:
            found["flip_embedding"] = self._flip_embedding(images)
        return {variable.name: found[variable.name].to(storage_dtype(variable, self.settings)).contiguous() for variable in self.variables}

    def _flip_embedding(self, images: Tensor) -> Tensor:
        if self.precision in _AUTOCAST:
            with torch.autocast(self.device.type, _AUTOCAST[self.precision]):
                return self.model(images.flip(3)).embedding.transpose(1, 2)
        return self.model(images.flip(3)).embedding.transpose(1, 2)


def written_by_network(settings: ExtractSettings) -> tuple[Variable, ...]:
    """Return the variables that come out of a forward pass (the others come from the manifest, the photo or the head)."""
    elsewhere = {"sample_id", "place", "view", "split", "roles", "digest", "valid", "image", *MASKS}
    return tuple(v for v in feature_variables(settings.requested) if v.per_sample and v.name not in elsewhere)


def storage_dtype(variable: Variable, settings: ExtractSettings) -> torch.dtype:
    """Resolve the schema's dtype to torch's."""
    dtype = getattr(torch, settings.map_dtype if variable.dtype == "map" else variable.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _variables(output: SafeNetOutput) -> dict[str, Tensor]:
    change = (output.aligned_map - output.patch_map).flatten(1).norm(dim=1) / output.patch_map.flatten(1).norm(dim=1)
    found = {
        "patch_map": output.patch_map.permute(0, 2, 3, 1),
        "aligned_map": output.aligned_map.permute(0, 2, 3, 1),
        "theta": output.theta,
        "source_cell": output.source_cell,
        "fam_change": change,
        "saliency": output.saliency,
        "boundary": output.boundary,
        "part_feature": output.part_feature.transpose(1, 2),
        "global_feature": output.global_feature,
        "embedding": output.embedding.transpose(1, 2),
        "logit": output.logit.transpose(1, 2),
    }
    if output.block_maps:
        found["block_map"] = torch.stack([output.block_maps[index] for index in sorted(output.block_maps)], dim=1).permute(0, 1, 3, 4, 2)
    return found
