"""The paper's training recipe, sized by its settings, so that there are real epochs to look at even from a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from safenet.architecture import Architecture
from safenet.checkpoint import load_imagenet_backbone, save_atomically, save_checkpoint
from safenet.devices import pick_device
from safenet.model import SafeNet
from safenet.training.data import PairDataset, epoch_seed, pair_loader
from safenet.training.losses import pair_loss
from safenet.training.places import TrainingPlace
from safenet.training.settings import TrainSettings

UNTRAINED_EPOCH = -1
_RESUME_FILE = "resume.pt"
_FREE_TO_CHANGE = ("device", "workers")  # settings that do not change what is computed


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch; `checkpoint` is None where none was written."""

    epoch: int
    metrics: dict[str, float]
    checkpoint: Path | None


@dataclass(frozen=True)
class Step:
    """A batch that is done: its epoch, its number from 1, the number of all, and the mean loss of the epoch so far."""

    epoch: int
    batch: int
    batches: int
    loss: float


def train(
    places: Sequence[TrainingPlace],
    architecture: Architecture,
    settings: TrainSettings,
    directory: Path,
    *,
    watch: Callable[[Step], None] = lambda step: None,
) -> Iterator[EpochResult]:
    """Train epoch by epoch, writing `net_init.pth` (untrained, epoch -1), then `net_000.pth`, ...; go on where a former call stopped.

    Each epoch is seeded by (seed, epoch), so that an interrupted run ends with the weights of an undisturbed one. `watch` is
    told of each batch.

    Raises
    ------
    ValueError
        If a place lacks a view, there are fewer pairs than a batch, or the directory holds a run with other settings.
    """
    _check_places(places, settings)
    device = torch.device(pick_device(settings.device))
    names = [place.name for place in places]
    torch.manual_seed(settings.seed)
    model = SafeNet(replace(architecture, classes=len(places)))
    optimizer = build_optimizer(model, settings)
    first = _resume(directory, model, optimizer, settings)
    if first == 0:
        if settings.pretrained is not None:
            load_imagenet_backbone(model, settings.pretrained)
        save_checkpoint(directory / "net_init.pth", model, epoch=UNTRAINED_EPOCH, class_names=names)
    model.to(device)
    for state in optimizer.state.values():
        state.update({key: value.to(device) for key, value in state.items() if isinstance(value, Tensor)})
    pairs = PairDataset(places, model.architecture.image_size, settings)
    for epoch in range(first, settings.epochs):
        metrics = _run_epoch(model, optimizer, pairs, epoch, settings, device, watch)
        written = None
        if (epoch + 1) % settings.every == 0 or epoch + 1 == settings.epochs:
            written = directory / f"net_{epoch:03d}.pth"
            save_checkpoint(written, model, epoch=epoch, metrics=metrics, class_names=names)
        _save_resume(directory, model, optimizer, epoch, settings)
        yield EpochResult(epoch, metrics, written)


def build_optimizer(model: SafeNet, settings: TrainSettings) -> torch.optim.Optimizer:
    """Three groups, in upstream's order: Loc_Net, backbone, rest."""
    loc, backbone = list(model.loc_net.parameters()), list(model.transformer.parameters())
    listed = {id(parameter) for parameter in loc + backbone}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in listed]
    shares = ((loc, settings.loc_rate), (backbone, settings.backbone_rate), (rest, 1.0))
    groups = [{"params": parameters, "lr": settings.learning_rate * share, "share": share} for parameters, share in shares]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def learning_rate(epoch: float, settings: TrainSettings) -> float:
    """Rate of the heads at a (fractional) epoch: steps of 0.1 at the milestones, or a cosine to zero; linear warm-up first."""
    warmup = min(1.0, (epoch + 1e-3) / settings.warmup_epochs) if settings.warmup_epochs else 1.0
    if settings.schedule == "steps":
        return float(settings.learning_rate * warmup * 0.1 ** sum(epoch >= milestone for milestone in settings.milestones))
    return float(settings.learning_rate * warmup * 0.5 * (1 + np.cos(np.pi * epoch / settings.epochs)))


def _run_epoch(
    model: SafeNet,
    optimizer: torch.optim.Optimizer,
    pairs: PairDataset,
    epoch: int,
    settings: TrainSettings,
    device: torch.device,
    watch: Callable[[Step], None],
) -> dict[str, float]:
    started = time.monotonic()
    torch.manual_seed(epoch_seed(settings.seed, epoch))
    loader = pair_loader(pairs, epoch, settings)
    model.train()
    totals = np.zeros(3)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    for step, batch in enumerate(loader):
        rate = learning_rate(epoch + step / len(loader), settings)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        totals += _step(model, optimizer, scaler, [value.to(device, non_blocking=True) for value in batch], settings)
        watch(Step(epoch, step + 1, len(loader), float(totals[0]) / (step + 1)))
    loss, satellite, drone = totals / max(len(loader), 1)
    metrics = {"loss": loss, "accuracy_satellite": satellite, "accuracy_drone": drone, "elapsed_s": time.monotonic() - started}
    return {name: float(value) for name, value in metrics.items()}


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, batch: Sequence[Tensor], settings: TrainSettings
) -> tuple[float, float, float]:
    satellite_images, drone_images, label = batch
    with torch.autocast(label.device.type, enabled=scaler.is_enabled()):
        satellite, drone = model(satellite_images), model(drone_images)
        loss = pair_loss(satellite, drone, label, settings)
    if not torch.isfinite(loss) and not scaler.is_enabled():
        raise FloatingPointError(f"the training loss is {loss.item()}: lower train.learning_rate ({settings.learning_rate})")
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    hits = [(view.logit.mean(dim=2).argmax(dim=1) == label).float().mean().item() for view in (satellite, drone)]
    return loss.item(), hits[0], hits[1]


def _check_places(places: Sequence[TrainingPlace], settings: TrainSettings) -> None:
    for place in places:
        if not place.satellite or not place.drone:
            missing = "satellite" if not place.satellite else "drone"
            raise ValueError(f"training place {place.name} has no {missing} image; every training place needs both views")
    pairs = len(places) * settings.draws_per_place
    if pairs < settings.batch_size:
        raise ValueError(
            f"{len(places)} training places give {pairs} pairs an epoch; train.batch_size = {settings.batch_size} needs at least as many"
        )


def _comparable(settings: TrainSettings) -> dict[str, Any]:
    values = settings.model_dump(mode="json", exclude=set(_FREE_TO_CHANGE))
    if settings.schedule == "steps":
        del values["epochs"]  # more epochs of the same steps go on where the fewer ended
    return values


def _save_resume(directory: Path, model: SafeNet, optimizer: torch.optim.Optimizer, epoch: int, settings: TrainSettings) -> None:
    content = {
        "epoch": epoch,
        "settings": _comparable(settings),
        "architecture": model.architecture.as_dict(),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    save_atomically(directory / _RESUME_FILE, content)


def _resume(directory: Path, model: SafeNet, optimizer: torch.optim.Optimizer, settings: TrainSettings) -> int:
    """Load a former call's state; return the first epoch still to run."""
    path = directory / _RESUME_FILE
    if not path.exists():
        return 0
    found = torch.load(path, map_location="cpu", weights_only=True)
    made = {**found["settings"], **Architecture(**found["architecture"]).as_dict()}  # of an earlier version, it lacks what was not told then
    wanted = {**_comparable(settings), **model.architecture.as_dict()}
    differing = [key for key in wanted if made.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        raise ValueError(
            f"{directory}: trained with {key} = {made.get(key)!r}, but {wanted[key]!r} is asked for. "
            f"Name another directory, or remove this one to start again"
        )
    model.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])
    return int(found["epoch"]) + 1
