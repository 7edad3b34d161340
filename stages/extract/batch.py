"""One batch of photos -> the feature variables of the schema, on the device, in the layout and dtype of the store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from torch import Tensor

from safenet.architecture import Architecture, HeadActivation, Pooling, Sampling
from safenet.attention import AttentionRecorder
from safenet.model import SafeNet, SafeNetOutput
from safenet.preprocess import normalise
from stages.extract.block_gradients import BlockGradients, class_target, plan_gradients
from stages.naming import known
from stages.schema import CHOICES, GRADIENT_METHODS, MASKS, SAMPLE_TEXTS, Variable, feature_variables

Precision = Literal["auto", "float32", "bfloat16", "float16"]
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_RECORDED = frozenset({"cls_attention", "rollout", "block_rollout"})
_GRADIENT_SCALE = {"float16": 2.0**12}  # float16 ends at 6e-8, above many gradients; a power of two changes no bit of the others


class ExtractSettings(BaseModel):
    """The [extract] table.

    The second half only says how fast: those settings never make stored features stale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    def coordinates(self, depth: int) -> dict[str, NDArray[Any]]:
        """What the dims of the maps on request hold, of a network of `depth` blocks: whole arrays of the store."""
        found: dict[str, NDArray[Any]] = {"block": np.array(self.blocks, np.int16)} if self.blocks else {}
        if self.gradient_targets:
            found["gradient_target"] = np.array(self.gradient_targets, object)
            found["gradient_block"] = np.array(self.gradient_blocks or range(depth), np.int16)
            found["gradient_method"] = np.array(GRADIENT_METHODS, object)
        return found

    def gradients(self, architecture: Architecture, class_names: Sequence[str]) -> BlockGradients | None:
        """Check the heat maps at blocks against a network, as `plan_gradients` does; None where none are asked for."""
        if not self.gradient_targets:
            return None
        return plan_gradients(self.gradient_targets, self.gradient_blocks or range(architecture.depth), architecture, class_names)


RESOURCE_SETTINGS = frozenset({"checkpoints", "series", "batch_size", "workers", "device", "max_bad_share", "block_samples", "chunk_samples"})

# they came after the first stores: in a stamp only if set
LATER_SETTINGS = ("head_activation", "pooling", "gradient_targets", "gradient_blocks", "state_key")


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
        In evaluation mode; it is moved to the device. Where heat maps at blocks are asked for, its weights are set to
        require no gradient.
    settings : ExtractSettings
    device : torch.device
    class_names : sequence of str
        Training places in the order of the logits, for the heat maps of a class by its name.

    Raises
    ------
    ValueError
        If the network has no such heat maps at blocks as are asked for.

    Notes
    -----
    Heat maps at blocks keep the graph of a batch from the lowest of their blocks upwards, and take one backward pass a
    target; the other tensors come out of the same forward pass, with the same bits as without.
    """

    def __init__(self, model: SafeNet, settings: ExtractSettings, device: torch.device, class_names: Sequence[str] = ()) -> None:
        self.model = model.to(device)
        self.architecture: Architecture = model.architecture
        self.settings = settings
        self.device = device
        self.precision = resolve_precision(settings.precision, device)
        self.variables = written_by_network(settings)
        self.gradients = settings.gradients(model.architecture, class_names)
        if self.gradients is not None:
            model.requires_grad_(False)  # what lies below the lowest block keeps no graph, what lies above no gradients of weights

    def __call__(self, photos: Tensor, class_index: Tensor | None = None) -> dict[str, Tensor]:
        """Run the network.

        Parameters
        ----------
        photos : Tensor [B, S, S, 3] of uint8
            RGB at the network's size, on any device.
        class_index : Tensor [B] of int64, optional
            Class of each photo's place, -1 where it was not trained: for the heat maps of target `label`.

        Returns
        -------
        dict
            One tensor a variable of `written_by_network`, samples first, on the device.
        """
        with torch.inference_mode(self.gradients is None), torch.no_grad():  # tensors of inference mode can have no gradient
            images = normalise(photos.to(self.device, non_blocking=True))
            found = self._look(images, class_index)
            if "flip_embedding" in self.settings.requested:
                with self._autocast():
                    found["flip_embedding"] = self.model(images.flip(3)).embedding.transpose(1, 2)
            return {variable.name: self._to_store(found[variable.name], variable) for variable in self.variables}

    def _look(self, images: Tensor, class_index: Tensor | None) -> dict[str, Tensor]:
        """One forward pass, what was recorded during it, and the gradients through it."""
        found, recorder = {}, None
        with ExitStack() as stack:
            if self.settings.requested & _RECORDED:
                recorder = stack.enter_context(AttentionRecorder(self.model))
            output = self._forward(images)
        if recorder is not None:
            found = {name: getattr(recorder, name) for name in _RECORDED}
        if self.gradients is not None:
            found["block_cam"] = self.gradients.maps(output, class_index, _GRADIENT_SCALE.get(self.precision, 1.0))
        return found | _variables(output, self.settings.blocks)

    def _forward(self, images: Tensor) -> SafeNetOutput:
        blocks = self.gradients.blocks if self.gradients is not None else ()
        with torch.set_grad_enabled(bool(blocks)), self._autocast():
            return self.model(images, {*blocks, *self.settings.blocks}, graph_from=blocks[0] if blocks else None)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, AUTOCAST.get(self.precision), enabled=self.precision in AUTOCAST)

    def _to_store(self, found: Tensor, variable: Variable) -> Tensor:
        return found.detach().to(storage_dtype(variable, self.settings)).contiguous()


def written_by_network(settings: ExtractSettings) -> tuple[Variable, ...]:
    """Return the variables that come out of a forward pass (the others come from the manifest, the photo or the head)."""
    elsewhere = {*SAMPLE_TEXTS, "valid", "image", *MASKS}
    return tuple(v for v in feature_variables(settings.requested) if v.per_sample and v.name not in elsewhere)


def storage_dtype(variable: Variable, settings: ExtractSettings) -> torch.dtype:
    """Resolve the schema's dtype to torch's."""
    dtype = getattr(torch, settings.map_dtype if variable.dtype == "map" else variable.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _variables(output: SafeNetOutput, blocks: Sequence[int]) -> dict[str, Tensor]:
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
    if blocks:
        maps = output.block_maps
        found["block_map"] = torch.stack([maps[index] for index in blocks], dim=1).permute(0, 1, 3, 4, 2)
    return found
