"""Checkpoint files: upstream's and ours -> a network; its architecture is read off the file, and every odd key is named."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from safenet.architecture import Architecture, Sampling
from safenet.model import SafeNet

METADATA_KEY = "safenet_atlas"
_WRAPPERS = ("state_dict", "model")
_UNUSED = "transformer.fc."  # upstream's 1000-class ImageNet head: saved, never called
_UNUSED_CLASSES = 1000
_UPSTREAM_HEADS = 8  # leaves no trace in the shapes of a file


class CheckpointError(ValueError):
    """A checkpoint file that cannot be used; the message is one line that names the file and the fault."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint file says of itself, and what its shapes tell."""

    path: Path
    architecture: Architecture
    epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


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
            If keys or shapes of the file do not match the network that its shapes describe.
        """
        self.check()
        with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten: leave the caller's seed alone
            model = SafeNet(self.info.architecture)
        model.load_state_dict(dict(self.state))
        return model.eval()

    def check(self) -> None:
        """Raise the CheckpointError that `build` would raise, without the cost of building."""
        _check_keys(self.info.path, self.state, _expected_shapes(self.info.architecture))


def load_checkpoint(path: str | Path, *, heads: int | None = None, sampling: Sampling | None = None) -> SafeNet:
    """Load a network: evaluation mode, float32, CPU.

    Parameters
    ----------
    path : path
        A published-code checkpoint (`net_119.pth`; with or without `loc_model.` and `module.` prefixes, plain or
        under a `state_dict` or `model` key) or one of `save_checkpoint`.
    heads, sampling
        What no shape tells: attention heads and FAM's sampling. Default: the file's metadata, else 8 and "nearest".

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If the file is damaged, is no Safe-Net checkpoint, holds pickled code, or has unmatched keys or shapes.
    """
    return read_checkpoint(path, heads=heads, sampling=sampling).build()


def read_checkpoint(path: str | Path, *, heads: int | None = None, sampling: Sampling | None = None) -> Checkpoint:
    """Read a file and infer its architecture; see `load_checkpoint` for the arguments and the errors."""
    path = Path(path)
    content = _read(path)
    metadata = content.get(METADATA_KEY, {})
    state = _unwrap(path, content)
    architecture = _infer(path, state, metadata.get("architecture", {}))
    if heads is not None:
        architecture = replace(architecture, heads=heads)
    if sampling is not None:
        architecture = replace(architecture, sampling=sampling)
    epoch = metadata.get("epoch")
    info = CheckpointInfo(
        path=path,
        architecture=architecture,
        epoch=epoch_from_name(path) if epoch is None else epoch,
        metrics=metadata.get("metrics", {}),
        class_names=tuple(metadata.get("class_names", ())),
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
    """Read the epoch off names such as net_119.pth, epoch-29.pt, 7.pth; None where the stem ends in no number."""
    found = re.search(r"(\d+)$", path.stem)
    return int(found.group(1)) if found else None


def load_imagenet_backbone(model: SafeNet, path: str | Path) -> list[str]:
    """Overwrite the transformer with ImageNet weights of timm's old `vit_small_patch16_224`, by upstream's rules.

    Unwraps `model` or `state_dict`; skips keys with "head" or "dist"; reshapes a flat patch kernel; resizes the
    position embedding bilinearly.

    Returns
    -------
    list of str
        Keys that were left out because the network has no such entry or another shape.
    """
    path = Path(path)
    content = _read(path)
    state = next((content[key] for key in ("model", "state_dict") if isinstance(content.get(key), Mapping)), content)
    own = model.transformer.state_dict()
    left_out = []
    for key, value in state.items():
        if "head" in key or "dist" in key:
            continue
        if key == "patch_embed.proj.weight" and value.ndim != 4:
            value = value.reshape(own[key].shape)
        if key == "pos_embed" and value.shape != own[key].shape:
            value = resize_position_embedding(value, model.architecture.grid)
        if key in own and own[key].shape == value.shape:
            own[key].copy_(value)
        else:
            left_out.append(key)
    return left_out


def resize_position_embedding(embedding: Tensor, grid: int) -> Tensor:
    """Resize the patch entries of `embedding` [1, 1+N, D] to [1, 1+grid*grid, D], bilinearly with half-pixel centres; CLS stays."""
    cls_entry, patches = embedding[:, :1], embedding[:, 1:]
    side = int(patches.shape[1] ** 0.5)
    plane = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, size=(grid, grid), mode="bilinear", align_corners=False)
    return torch.cat([cls_entry, plane.flatten(2).transpose(1, 2)], dim=1)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # a pickle of other making is refused below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if path.stat().st_size and "weights_only" in str(error).lower() and "GLOBAL" in str(error):
            advice = "they are never run. Save it again as a plain state dict"
            raise CheckpointError(f"{path}: holds pickled objects other than tensors; {advice}") from None
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or damaged ({path.stat().st_size:,} bytes); copy or train it again") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged or truncated ({path.stat().st_size:,} bytes): {reason}; copy or train it again") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a state dict")
    return content


def _unwrap(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    state: Mapping[str, Any] = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    named = {_own_name(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if "transformer.cls_token" not in named:
        example = ", ".join(list(map(str, state))[:3]) or "nothing"
        raise CheckpointError(f"{path}: not a Safe-Net checkpoint: no transformer.cls_token; it holds {example} ...")
    return {key: value for key, value in named.items() if not key.startswith(_UNUSED)}


def _own_name(key: str) -> str:
    return key.removeprefix("module.").removeprefix("loc_model.")


def _infer(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Architecture:
    """Sizes from the shapes; heads, sampling and stochastic depth from the metadata."""
    try:
        tokens, width = state["transformer.pos_embed"].shape[1:]
        patch = state["transformer.patch_embed.proj.weight"].shape[-1]
        sizes = {
            "image_size": patch * round((tokens - 1) ** 0.5),
            "patch_size": patch,
            "width": width,
            "depth": 1 + max(int(key.split(".")[2]) for key in state if key.startswith("transformer.blocks.")),
            "mlp_ratio": state["transformer.blocks.0.mlp.fc1.weight"].shape[0] / width,
            "parts": sum(bool(re.fullmatch(r"part_classifier\d+\.classifier\.0\.weight", key)) for key in state),
            "classes": state["global_classifier.classifier.0.weight"].shape[0],
            "embedding": state["global_classifier.add_block.0.weight"].shape[0],
            "loc_hidden": state["loc_net.fc_loc.0.weight"].shape[0],
        }
    except KeyError as error:
        raise CheckpointError(f"{path}: not a whole Safe-Net checkpoint: {error.args[0]} is missing") from None
    untold = {"heads": _UPSTREAM_HEADS, **{key: metadata[key] for key in ("heads", "sampling", "drop_path", "image_size") if key in metadata}}
    try:
        return Architecture(**{**sizes, **untold})
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


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
