"""The tables [stats] and [pixels]: which figures are computed from heat maps, and how deletion and insertion are measured."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages.cam.settings import LOW_CONTRAST_BELOW
from stages.naming import known
from stages.stats.compared import COMPARED, LAST, PREVIOUS
from stages.targets.names import parse_target

Baseline = Literal["blur", "mean"]


class StatsSettings(BaseModel):
    """The [stats] table."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    low_contrast_below: float = Field(
        LOW_CONTRAST_BELOW,
        ge=0,
        description="a map without a target has low contrast if its coefficient of variation is below this; its panel says so",
    )
    top_share: float = Field(0.1, gt=0, le=1, description="share of the cells that the figure `top` uses")
    overlap_share: float = Field(0.2, gt=0, le=1, description="share of the cells that the drift figure `overlap` uses")
    drift: tuple[str, ...] = Field(
        (PREVIOUS, LAST),
        description="checkpoints of its series that each is compared with: previous, first, last. A new checkpoint makes drift to the last anew",
    )
    sanity_samples: int = Field(64, ge=0, description="number of images that the head-randomisation check uses, evenly spread; 0: none")

    @field_validator("drift")
    @classmethod
    def _known_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        asked = {known(name, COMPARED, "stats.drift") for name in value}
        return tuple(kind for kind in COMPARED if kind in asked)


class PixelSettings(BaseModel):
    """The [pixels] table, of the optional stage of that name."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    target: str = Field("", description="target whose score is measured, and whose aligned maps order the cells; default: the first of cam.targets")
    samples: int = Field(
        32, ge=1, description="number of images, evenly spread over those with the target; images whose maps are not finite are left out"
    )
    steps: int = Field(16, ge=1, description="steps from the whole photo to none of it; each is one forward pass per image, map and curve")
    baseline: Baseline = Field("blur", description="what replaces a cell: the photo blurred by two cells (blur), or the mean colour")

    @field_validator("target")
    @classmethod
    def _known_target(cls, value: str) -> str:
        return str(parse_target(value, "pixels.target")) if value else value
