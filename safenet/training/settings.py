"""The [train] table: how long, how fast and on what pictures a network learns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainSettings(BaseModel):
    """The [train] table. The defaults are the published recipe (batch 8, SGD, 120 epochs)."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    epochs: int = Field(120, ge=1, description="number of passes over the places")
    batch_size: int = Field(8, ge=2, description="pairs per step")
    draws_per_place: int = Field(2, ge=1, description="satellite-drone pairs drawn from each place in an epoch")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd (Nesterov, momentum 0.9) or adamw")
    learning_rate: float = Field(0.01, gt=0, description="learning rate of the heads")
    backbone_rate: float = Field(0.3, ge=0, description="learning rate of the transformer, as a share of learning_rate")
    loc_rate: float = Field(0.01, ge=0, description="learning rate of the localisation network, as a share of learning_rate")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay of all weights")
    schedule: Literal["steps", "cosine"] = Field("steps", description="steps: a tenth at each milestone; cosine: a cosine to zero")
    milestones: tuple[int, ...] = Field((70, 110), description="epochs at which schedule = 'steps' lowers the learning rate")
    warmup_epochs: int = Field(0, ge=0, description="epochs of linear warm-up")
    triplet_weight: float = Field(0.0, ge=0, description="weight of the cross-view hardest triplet loss")
    triplet_margin: float = Field(0.3, description="margin of that loss")
    contrastive_weight: float = Field(
        0.0, ge=0, description="weight of a symmetric InfoNCE loss between the descriptors of the views; not in the published code"
    )
    temperature: float = Field(0.1, gt=0, description="temperature of that loss")
    pad_px: int = Field(0, ge=0, description="edge padding before the random crop, pixels")
    crop_scale: float = Field(1.0, gt=0, le=1, description="smallest share of the area in a random resized crop; 1: off")
    rotate_satellite_deg: float = Field(90.0, ge=0, description="largest random rotation of satellite images, in either direction, degrees")
    rotate_drone_deg: float = Field(0.0, ge=0, description="largest random rotation of drone images, in either direction, degrees")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    erase: float = Field(0.0, ge=0, le=1, description="probability of random erasing of drone images")
    colour_jitter: bool = Field(False, description="change brightness, contrast and saturation by up to 0.1")
    pretrained: Path | None = Field(None, description="file with the ImageNet weights of timm's old vit_small_patch16_224")
    every: int = Field(1, ge=1, description="write a checkpoint every this many epochs; the last epoch is always written")
    seed: int = Field(0, description="seed of everything random")
    workers: int = Field(0, ge=0, description="number of decoding processes")
    device: str = Field("auto", description="cpu, cuda, ...; auto: cuda if there is one, else cpu")
