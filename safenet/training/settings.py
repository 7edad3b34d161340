"""The [train] table: how long, how fast and on what pictures a network learns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainSettings(BaseModel):
    """The [train] table. The defaults are the published recipe (batch 8, SGD, 120 epochs)."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    epochs: int = Field(120, ge=1, description="passes over the places")
    batch_size: int = Field(8, ge=2, description="pairs a step")
    draws_per_place: int = Field(2, ge=1, description="satellite-drone pairs drawn of each place in an epoch")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd (Nesterov, momentum 0.9) or adamw")
    learning_rate: float = Field(0.01, gt=0, description="of the heads")
    backbone_rate: float = Field(0.3, ge=0, description="the transformer's share of the learning rate")
    loc_rate: float = Field(0.01, ge=0, description="the localisation network's share")
    weight_decay: float = Field(5e-4, ge=0, description="of all weights")
    schedule: Literal["steps", "cosine"] = Field("steps", description="a tenth at each milestone, or a cosine to zero")
    milestones: tuple[int, ...] = Field((70, 110), description="epochs of the steps")
    warmup_epochs: int = Field(0, ge=0, description="linear warm-up")
    triplet_weight: float = Field(0.0, ge=0, description="cross-view hardest triplet, margin below")
    triplet_margin: float = Field(0.3, description="its margin")
    contrastive_weight: float = Field(0.0, ge=0, description="symmetric InfoNCE between the views' descriptors; not upstream's")
    temperature: float = Field(0.1, gt=0, description="of the contrastive term")
    pad_px: int = Field(0, ge=0, description="edge padding before the random crop")
    crop_scale: float = Field(1.0, gt=0, le=1, description="smallest area share of a random resized crop; 1 is off")
    rotate_satellite_deg: float = Field(90.0, ge=0, description="random rotation of satellite images, either way")
    rotate_drone_deg: float = Field(0.0, ge=0, description="random rotation of drone images, either way")
    flip: float = Field(0.5, ge=0, le=1, description="chance of a horizontal flip")
    erase: float = Field(0.0, ge=0, le=1, description="random erasing of drone images")
    colour_jitter: bool = Field(False, description="brightness, contrast and saturation by up to 0.1")
    pretrained: Path | None = Field(None, description="ImageNet weights of timm's old vit_small_patch16_224")
    every: int = Field(1, ge=1, description="write a checkpoint every so many epochs; the last is always written")
    seed: int = Field(0, description="of everything random")
    workers: int = Field(0, ge=0, description="decoding processes")
    device: str = Field("auto", description="cpu, cuda, ...; auto: cuda where there is one")
