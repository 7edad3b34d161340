"""The tables [stats] and [pixels]: what is counted of heat maps, and what the network is asked again."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages.cam.settings import LOW_CONTRAST_BELOW
from stages.targets.names import parse_target

Baseline = Literal["blur", "mean"]


class StatsSettings(BaseModel):
    """The [stats] table."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    low_contrast_below: float = Field(
        LOW_CONTRAST_BELOW, ge=0, description="a class-free map whose coefficient of variation is below this has low contrast; its panel says so"
    )
    top_share: float = Field(0.1, gt=0, le=1, description="share of the cells that `top` looks at")
    overlap_share: float = Field(0.2, gt=0, le=1, description="share of the cells that drift's `overlap` looks at")
    sanity_samples: int = Field(64, ge=0, description="images that the head-randomisation check looks at, evenly spread; 0: none")


class PixelSettings(BaseModel):
    """The [pixels] table, of the optional stage of that name."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    target: str = Field("", description="score that is looked at, and whose maps at aligned give the orders; default: the first of cam.targets")
    samples: int = Field(
        32, ge=1, description="images, evenly spread over those that have the target; those whose maps are not finite are left out, and named"
    )
    steps: int = Field(16, ge=1, description="steps from the whole photo to none of it; each is a forward pass an image, map and curve")
    baseline: Baseline = Field("blur", description="what is shown in place of a cell: the photo blurred by two cells, or the mean colour")

    @field_validator("target")
    @classmethod
    def _known_target(cls, value: str) -> str:
        return str(parse_target(value, "pixels.target")) if value else value
