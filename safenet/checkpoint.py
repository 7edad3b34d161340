"""Checkpoint files, of the published code and ours -> a network; its architecture is read from the file, and every odd key is named."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.nn import functional as F

from safenet.architecture import Architecture, HeadActivation, Pooling, Sampling
from safenet.checkpoint_bytes import read_content
from safenet.checkpoint_info import CheckpointError, CheckpointInfo
from safenet.checkpoint_wrappings import unwrap
from safenet.model import SafeNet

METADATA_KEY = "safenet_atlas"
_UNUSED = "transformer.fc."  # upstream's 1000-class ImageNet head: saved, never called
_UNUSED_CLASSES = 1000
_UPSTREAM_HEADS = 8  # leaves no trace in the shapes of a file
_EPOCH_IN_NAME = (r"epoch[-_=]?", r"net_")  # before the number, as a whole word of the name
_NO_SHAPE_TELLS = {"heads", "sampling", "head_activation", "pooling", "drop_path", "image_size"}


@dataclass(frozen=True)
class Checkpoint:
    """A read checkpoint: `info`, and `state` under the names of SafeNet.state_dict()."""

    info: CheckpointInfo
    state: Mapping[str, Tensor]

    def build(self) -> SafeNet:
        """Return the network in evaluation mode, float32, on the CPU.

        Raises
        ------
        CheckpointError
            If keys or shapes of the file do not match the network that its shapes describe, or a weight is not finite.
        """
        self.check()
        with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten: leave the caller's seed alone
            model = SafeNet(self.info.architecture)
        model.load_state_dict(dict(self.state))
        return model.eval()

    def check(self) -> None:
        """Raise the CheckpointError that `build` would raise, without the cost of building."""
        _check_keys(self.info.path, self.state, _expected_shapes(self.info.architecture))
        _check_values(self.info.path, self.state)


def load_checkpoint(
    path: str | Path,
    *,
    heads: int | None = None,
    sampling: Sampling | None = None,
    head_activation: HeadActivation | None = None,
    pooling: Pooling | None = None,
    state_key: str | None = None,
) -> SafeNet:
    """Load a network: evaluation mode, float32, CPU.

    Parameters
    ----------
    path : path
        A published-code checkpoint (`net_119.pth`), one of `save_checkpoint`, or one whose state dict lies under other keys or
        whose tensors' names have a wrapper's prefix; `CheckpointInfo.taken` says which was taken.
    heads, sampling, head_activation, pooling
        What no shape tells: attention heads, FAM's sampling, the heads' activation and FPM's pooling. Default: the file's
        metadata, else 8, "nearest", "none" and "mean".
    state_key : str, optional
        Which network to take of a file that holds several, such as "ema". Default: the only one, or the only one that is no
        moving average.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If the file is damaged, is no Safe-Net checkpoint, holds several networks of which none is plainly meant, holds pickled
        code, contradicts its own metadata, has unmatched keys or shapes, or a weight that is not finite.
    """
    told = {"heads": heads, "sampling": sampling, "head_activation": head_activation, "pooling": pooling, "state_key": state_key}
    return read_checkpoint(path, **told).build()  # type: ignore[arg-type]


def read_checkpoint(
    path: str | Path,
    *,
    heads: int | None = None,
    sampling: Sampling | None = None,
    head_activation: HeadActivation | None = None,
    pooling: Pooling | None = None,
    state_key: str | None = None,
) -> Checkpoint:
    """Read a file and infer its architecture; see `load_checkpoint` for the arguments and the errors."""
    path = Path(path)
    content = read_content(path)
    found = unwrap(path, content, state_key)
    metadata = _metadata(path, found.mappings)
    state = {key: value for key, value in found.state.items() if not key.startswith(_UNUSED)}
    _check_size(path, state)
    said = {"heads": heads, "sampling": sampling, "head_activation": head_activation, "pooling": pooling}
    told = metadata.architecture.model_copy(update={key: value for key, value in said.items() if value is not None})
    architecture = _infer(path, state, told)
    if metadata.class_names and len(metadata.class_names) != architecture.classes:
        raise CheckpointError(
            f"{path}: its metadata names {len(metadata.class_names)} classes, its classifiers have {architecture.classes}; "
            f"they belong to two networks. Save the checkpoint again"
        )
    info = CheckpointInfo(
        path=path,
        architecture=architecture,
        epoch=_epoch(path, metadata, found.mappings),
        metrics=metadata.metrics,
        class_names=tuple(metadata.class_names),
        taken=found.taken,
    )
    return Checkpoint(info, state)


def save_checkpoint(
    path: str | Path,
    model: SafeNet,
    *,
    epoch: int | None = None,
    metrics: Mapping[str, float] | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Write `model` under upstream's names, with what no shape tells beside it; the file appears complete or not at all.

    `torch.load(path)["state_dict"]` is a state dict that the published code loads, its unused `transformer.fc`
    included (as zeros).
    """
    path = Path(path)
    width = model.architecture.width
    state = {f"loc_model.{key}": value.detach().cpu() for key, value in model.state_dict().items()}
    state["loc_model.transformer.fc.weight"] = torch.zeros(_UNUSED_CLASSES, width)
    state["loc_model.transformer.fc.bias"] = torch.zeros(_UNUSED_CLASSES)
    metadata = {
        "architecture": model.architecture.as_dict(),
        "epoch": epoch,
        "metrics": dict(metrics or {}),
        "class_names": list(class_names),
    }
    save_atomically(path, {"state_dict": state, METADATA_KEY: metadata})


def save_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """`torch.save` through a temporary file beside the target, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    torch.save(dict(content), partial)
    partial.replace(path)


def epoch_from_name(path: Path) -> int | None:
    """Read the epoch off names such as net_119.pth, net_119_seed1.pth, epoch-29.pt, epoch=3-step=100.ckpt; None where no word says it.

    Other numbers, as in univ1652.pth, 7.pth or net_1.5.pth, are no epochs; nor are two that differ.
    """
    for word in _EPOCH_IN_NAME:
        numbers = {int(number) for number in re.findall(rf"(?i)(?<![^\W_]){word}([0-9]+)(?![^\W_]|\.[0-9])", path.stem)}
        if len(numbers) == 1:
            return numbers.pop()
    return None


def load_imagenet_backbone(model: SafeNet, path: str | Path) -> list[str]:
    """Overwrite the transformer with ImageNet weights of timm's old `vit_small_patch16_224`, by upstream's rules.

    Unwraps `model` or `state_dict`; skips keys with "head" or "dist"; reshapes a flat patch kernel; resizes the
    position embedding bilinearly.

    Returns
    -------
    list of str
        Keys that were left out because the network has no such entry or another shape.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If the file is damaged or holds pickled code, no entry of it fits, or a weight is not finite.
    """
    path = Path(path)
    content = read_content(path)
    entries = next((content[key] for key in ("model", "state_dict") if isinstance(content.get(key), Mapping)), content)
    own = model.transformer.state_dict()
    wanted = {str(key): value for key, value in entries.items() if not ("head" in str(key) or "dist" in str(key))}
    _check_size(path, {key: value for key, value in wanted.items() if isinstance(value, Tensor)})
    resized = {key: _resized(key, value, own, model.architecture.grid) for key, value in wanted.items()}
    fitting = {key: value for key, value in resized.items() if key in own and isinstance(value, Tensor) and value.shape == own[key].shape}
    if not fitting:
        raise CheckpointError(f"{path}: none of its {len(entries)} entries fits the transformer; expected timm's vit_small_patch16_224 of old")
    _check_values(path, fitting)
    for key, value in fitting.items():
        own[key].copy_(value)
    return [key for key in wanted if key not in fitting]


def resize_position_embedding(embedding: Tensor, grid: int) -> Tensor:
    """Resize the patch entries of `embedding` [1, 1+N, D] to [1, 1+grid*grid, D], bilinearly with half-pixel centres; CLS stays."""
    cls_entry, patches = embedding[:, :1], embedding[:, 1:]
    side = int(patches.shape[1] ** 0.5)
    plane = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, size=(grid, grid), mode="bilinear", align_corners=False)
    return torch.cat([cls_entry, plane.flatten(2).transpose(1, 2)], dim=1)


def _resized(key: str, value: Any, own: Mapping[str, Tensor], grid: int) -> Any:
    """Fit ImageNet's patch kernel and position embedding to the network; what cannot be fitted comes back as it is."""
    if not isinstance(value, Tensor) or key not in own or value.shape == own[key].shape:
        return value
    if key == "patch_embed.proj.weight" and value.ndim != 4 and value.numel() == own[key].numel():
        return value.reshape(own[key].shape)
    if key == "pos_embed" and value.ndim == 3 and value.shape[1] > 1 and math.isqrt(value.shape[1] - 1) ** 2 == value.shape[1] - 1:
        return resize_position_embedding(value, grid)
    return value


# ---- what a file says of itself


class _ToldSizes(BaseModel):
    """The architecture of a file's metadata: what no shape tells, and what must agree with the shapes."""

    model_config = ConfigDict(strict=True)

    heads: int | None = Field(None, ge=1)
    sampling: Sampling | None = None
    head_activation: HeadActivation | None = None
    pooling: Pooling | None = None
    drop_path: float | None = Field(None, ge=0, lt=1)
    image_size: int | None = Field(None, ge=1)
    patch_size: int | None = None
    width: int | None = None
    depth: int | None = None
    parts: int | None = None
    classes: int | None = None
    embedding: int | None = None
    loc_hidden: int | None = None


class _Metadata(BaseModel):
    """What `save_checkpoint` writes beside the weights."""

    model_config = ConfigDict(strict=True)

    architecture: _ToldSizes = _ToldSizes()
    epoch: int | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    class_names: list[str] = Field(default_factory=list)


def _metadata(path: Path, mappings: Sequence[Mapping[Any, Any]]) -> _Metadata:
    """Ours, of the outermost mapping that has some."""
    try:
        return _Metadata.model_validate(next((mapping[METADATA_KEY] for mapping in mappings if METADATA_KEY in mapping), {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (METADATA_KEY, *first["loc"])))
        raise CheckpointError(f"{path}: its metadata is damaged: {where}: {first['msg']}; copy or train it again") from None


def _epoch(path: Path, metadata: _Metadata, mappings: Sequence[Mapping[Any, Any]]) -> int | None:
    """From our metadata, else a number beside the network under "epoch", else from the file's name."""
    if metadata.epoch is not None:
        return metadata.epoch
    beside = [mapping.get("epoch") for mapping in mappings]
    whole = [value for value in beside if isinstance(value, int) and not isinstance(value, bool) and value >= 0]
    return whole[0] if whole else epoch_from_name(path)


def _check_size(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that repeat a few stored numbers over a huge shape, before anything of that shape is made."""
    claimed, size = sum(value.numel() * value.element_size() for value in state.values()), path.stat().st_size
    if claimed > size:
        raise CheckpointError(f"{path}: its tensors claim {claimed:,} bytes, but the file has {size:,}; save it again as a plain state dict")


def _infer(path: Path, state: Mapping[str, Tensor], told: _ToldSizes) -> Architecture:
    """Sizes from the shapes; heads, sampling, activation, pooling and stochastic depth as told."""
    _, tokens, width = _shape(path, state, "transformer.pos_embed", 3)
    patch = _shape(path, state, "transformer.patch_embed.proj.weight", 4)[-1]
    sizes = {
        "patch_size": patch,
        "width": width,
        "depth": len({key.split(".")[2] for key in state if key.startswith("transformer.blocks.")}),
        "parts": sum(bool(re.fullmatch(r"part_classifier\d+\.classifier\.0\.weight", key)) for key in state),
        "classes": _shape(path, state, "global_classifier.classifier.0.weight", 2)[0],
        "embedding": _shape(path, state, "global_classifier.add_block.0.weight", 2)[0],
        "loc_hidden": _shape(path, state, "loc_net.fc_loc.0.weight", 2)[0],
    }
    for key, size in sizes.items():
        if getattr(told, key) not in (None, size):
            raise CheckpointError(
                f"{path}: its metadata says {key} = {getattr(told, key)}, its tensors {size}; they belong to two networks. Save the checkpoint again"
            )
    untold = {"heads": _UPSTREAM_HEADS, "image_size": patch * round((tokens - 1) ** 0.5)}
    untold |= told.model_dump(include=_NO_SHAPE_TELLS, exclude_none=True)
    mlp_ratio = _shape(path, state, "transformer.blocks.0.mlp.fc1.weight", 2)[0] / width
    try:
        return Architecture(**{**sizes, **untold, "mlp_ratio": mlp_ratio})
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _shape(path: Path, state: Mapping[str, Tensor], key: str, dims: int) -> tuple[int, ...]:
    if key not in state:
        raise CheckpointError(f"{path}: not a whole Safe-Net checkpoint: {key} is missing")
    shape = tuple(state[key].shape)
    if len(shape) != dims or 0 in shape:
        raise CheckpointError(f"{path}: does not fit Safe-Net: {key} has shape {shape}, expected {dims} sizes above 0")
    return shape


# ---- comparing it with the network


@lru_cache(maxsize=4)
def _expected_shapes(architecture: Architecture) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {key: value.shape for key, value in SafeNet(architecture).state_dict().items()}


def _check_keys(path: Path, state: Mapping[str, Tensor], own: Mapping[str, torch.Size]) -> None:
    faults = [f"{key} is missing" for key in own if key not in state]
    faults += [f"{key} is unknown" for key in state if key not in own]
    faults += [
        f"{key} has shape {tuple(state[key].shape)}, expected {tuple(shape)}"
        for key, shape in own.items()
        if key in state and state[key].shape != shape
    ]
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise CheckpointError(f"{path}: does not fit Safe-Net: {'; '.join(faults[:3])}{more}")


def _check_values(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse weights of which no number can come; integers as the BatchNorms' counters pass."""
    for key, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.device.type != "cpu":
            raise CheckpointError(f"{path}: {key} is {value.type()}; expected plain real numbers. Save it again as a plain state dict")
        low, high = value.float().aminmax()  # NaN if one is; many times faster than isfinite on every weight
        if not (low.isfinite() and high.isfinite()):
            count = value.numel() - int(value.float().isfinite().sum())
            of_how_many = f"{count:,} of {value.numel():,} weights"
            raise CheckpointError(f"{path}: {key} has {of_how_many} NaN or infinite; train it again, or take an earlier epoch")
