"""The paper's training recipe, sized by its settings, so that there are real epochs to look at even from a CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from safenet.architecture import Architecture
from safenet.checkpoint import load_imagenet_backbone, save_atomically, save_checkpoint
from safenet.devices import pick_device
from safenet.model import SafeNet, SafeNetOutput, descriptor
from safenet.photos import MEAN, STD, open_photo, to_rgb
from safenet.timm_parts import transforms
from safenet.training.settings import TrainSettings

UNTRAINED_EPOCH = -1
KEPT_PHOTOS = 4096  # decoded: 0.8 GB at 256 px
_RESUME_FILE = "resume.pt"
_FREE_TO_CHANGE = ("device", "workers")  # settings that do not change what is computed


@dataclass(frozen=True)
class TrainingPlace:
    """A class: its name and the photos of either view."""

    name: str
    satellite: tuple[Path, ...]
    drone: tuple[Path, ...]


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch; `checkpoint` is None where none was written."""

    epoch: int
    metrics: dict[str, float]
    checkpoint: Path | None


def train(
    places: Sequence[TrainingPlace], architecture: Architecture, settings: TrainSettings, directory: Path, *, progress: bool = True
) -> Iterator[EpochResult]:
    """Train epoch by epoch, writing `net_init.pth` (untrained, epoch -1), then `net_000.pth`, ...; go on where a former call stopped.

    Each epoch is seeded by (seed, epoch), so that an interrupted run ends with the weights of an undisturbed one.

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
        metrics = _run_epoch(model, optimizer, pairs, epoch, settings, device, progress)
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


def pair_loss(satellite: SafeNetOutput, drone: SafeNetOutput, label: Tensor, settings: TrainSettings) -> Tensor:
    """Sum over the views of the mean cross-entropy of the heads, plus the optional cross-view terms."""
    heads = satellite.logit.shape[2]
    loss = sum(F.cross_entropy(view.logit, label[:, None].expand(-1, heads)) for view in (satellite, drone))
    if settings.triplet_weight or settings.contrastive_weight:
        cosine = descriptor(satellite.embedding) @ descriptor(drone.embedding).T
        same = label[:, None] == label[None, :]
        if settings.triplet_weight:
            loss = loss + settings.triplet_weight * _hardest_triplet(cosine, same, settings.triplet_margin)
        if settings.contrastive_weight:
            loss = loss + settings.contrastive_weight * _contrastive(cosine / settings.temperature, same)
    assert isinstance(loss, Tensor)
    return loss


class PairDataset(Dataset[tuple[Tensor, Tensor, int]]):
    """Item (place, draw) -> one random satellite and one random drone image of the place, augmented, and its class.

    Photos are kept decoded at the network's size, the first `KEPT_PHOTOS` of them; the augmentation is redone at every draw.
    """

    def __init__(self, places: Sequence[TrainingPlace], size_px: int, settings: TrainSettings) -> None:
        self.places = places
        self.size_px = size_px
        self.augment = {"satellite": _augmentation("satellite", size_px, settings), "drone": _augmentation("drone", size_px, settings)}
        self._decoded: dict[Path, Image.Image] = {}

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Draw by torch's generator, which the loader seeds."""
        place = self.places[index]
        return self._draw(place.satellite, "satellite"), self._draw(place.drone, "drone"), index

    def _draw(self, paths: Sequence[Path], view: str) -> Tensor:
        path = paths[int(torch.randint(len(paths), ()))]
        decoded = self._decoded.get(path)
        if decoded is None:
            with path.open("rb") as file, open_photo(file) as photo:
                decoded = to_rgb(photo).resize((self.size_px, self.size_px), Image.Resampling.BICUBIC)
            if len(self._decoded) < KEPT_PHOTOS:
                self._decoded[path] = decoded
        image: Tensor = self.augment[view](decoded)
        return image


def _augmentation(view: str, size_px: int, settings: TrainSettings) -> transforms.Compose:
    """Upstream's order: pad by the edge, (satellite) rotate, crop, flip, then to a normalised tensor."""
    rotation = settings.rotate_satellite_deg if view == "satellite" else settings.rotate_drone_deg
    crop = transforms.RandomResizedCrop(size_px, scale=(settings.crop_scale, 1.0), ratio=(0.8, 1.25), antialias=True)
    steps: list[Any] = [
        (settings.pad_px > 0, transforms.Pad(settings.pad_px, padding_mode="edge")),
        (rotation > 0, transforms.RandomAffine(rotation)),
        (settings.pad_px > 0, transforms.RandomCrop(size_px)),
        (settings.crop_scale < 1, crop),
        (settings.flip > 0, transforms.RandomHorizontalFlip(settings.flip)),
        (settings.colour_jitter, transforms.ColorJitter(0.1, 0.1, 0.1, 0.0)),
        (True, transforms.ToTensor()),
        (True, transforms.Normalize(MEAN, STD)),
        (view == "drone" and settings.erase > 0, transforms.RandomErasing(settings.erase)),
    ]
    return transforms.Compose([step for wanted, step in steps if wanted])


def _run_epoch(
    model: SafeNet, optimizer: torch.optim.Optimizer, pairs: PairDataset, epoch: int, settings: TrainSettings, device: torch.device, progress: bool
) -> dict[str, float]:
    started = time.monotonic()
    torch.manual_seed(_epoch_seed(settings.seed, epoch))
    loader = _loader(pairs, epoch, settings)
    model.train()
    totals = np.zeros(3)
    bar = tqdm(loader, desc=f"epoch {epoch}", unit="batch", leave=False, disable=not progress)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    for step, batch in enumerate(bar):
        rate = learning_rate(epoch + step / len(loader), settings)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        totals += _step(model, optimizer, scaler, [value.to(device, non_blocking=True) for value in batch], settings)
        bar.set_postfix(loss=f"{totals[0] / (step + 1):.3f}")
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


def _loader(pairs: PairDataset, epoch: int, settings: TrainSettings) -> DataLoader[tuple[Tensor, Tensor, int]]:
    """Shuffled classes, each repeated in a row; whole batches only."""
    generator = torch.Generator().manual_seed(_epoch_seed(settings.seed, epoch))
    order = torch.randperm(len(pairs), generator=generator).repeat_interleave(settings.draws_per_place).tolist()
    return DataLoader(
        pairs,
        batch_size=settings.batch_size,
        sampler=order,
        drop_last=True,
        num_workers=settings.workers,
        multiprocessing_context="forkserver" if settings.workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=generator,
    )


def _hardest_triplet(cosine: Tensor, same: Tensor, margin: float) -> Tensor:
    """Hermans et al. 2017 (arXiv:1703.07737) across views: Euclidean distance of unit descriptors, both directions."""
    distance = (2 - 2 * cosine).clamp_min(1e-12).sqrt()
    losses = []
    for table, mask in ((distance, same), (distance.T, same.T)):
        positive = table.masked_fill(~mask, -torch.inf).amax(dim=1)
        negative = table.masked_fill(mask, torch.inf).amin(dim=1)
        losses.append(F.relu(positive - negative + margin).mean())
    return (losses[0] + losses[1]) / 2


def _contrastive(score: Tensor, same: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, arXiv:1807.03748) in both directions; several positives share the target."""
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(score, target) + F.cross_entropy(score.T, target.T)) / 2


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


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
