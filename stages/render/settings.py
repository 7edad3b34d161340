"""The [render] table: which pictures are drawn, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stages.cam.names import METHOD_NAMES, check_position
from stages.naming import known
from stages.render.colour_maps import check_colour_map

MosaicKind = Literal["positions", "epochs", "paper", "methods", "depth", "pair", "change"]
Scope = Literal["image", "percentile", "image-over-checkpoints", "checkpoint", "dataset", "fixed"]


class RenderSettings(BaseModel):
    """The [render] table."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    mosaics: tuple[MosaicKind, ...] = Field(
        ("positions", "epochs", "paper"),
        description=(
            "kinds to draw: positions, epochs, paper; on request methods (all of an image), depth (block by block), pair (from both sides), "
            "change (first to last checkpoint, split; of label and class_NAME)"
        ),
    )
    methods: tuple[str, ...] = Field((), description="methods to draw; default: all of cam.methods")
    targets: tuple[str, ...] = Field((), description="targets to draw; default: all of cam.targets")
    position: str = Field("aligned", description="position of the epochs and paper mosaics; the others show them all")
    places: tuple[str, ...] = Field((), description="places to draw; default: the first few of the test split")
    place_count: int = Field(3, ge=1, description="how many places, where none are named")
    drone_views: int = Field(4, ge=1, description="drone images a place")
    pair_cells: int = Field(4, ge=1, le=9, description="cells of each image that a pair mosaic asks about")
    checkpoints: tuple[str, ...] = Field((), description="checkpoints of all kinds but epochs; default: the last")
    columns: int = Field(8, ge=2, description="checkpoints of an epoch strip, evenly spread, first and last included")
    scope: Scope = Field(
        "image", description="scale of the positions and paper mosaics: image, percentile (for skewed maps), checkpoint, dataset, fixed"
    )
    epochs_scope: Scope = Field("image-over-checkpoints", description="scale of an epoch strip: image-over-checkpoints, or one of the others")
    percentiles: tuple[float, float] = Field((1, 99), description="lower and upper end of the scales of scope percentile, in percent of the cells")
    fixed: tuple[float, float] | None = Field(None, description="the scale of scope fixed")
    signed: bool = Field(False, description="draw gradient maps with their negative cells")
    panel_px: int = Field(160, ge=64, description="longer side of a panel")
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the colour over the photo")
    colour_map: str = Field("inferno", description="any of matplotlib's, for magnitudes")
    signed_colour_map: str = Field("RdBu_r", description="any of matplotlib's, zero-centred, for signed maps")
    low_contrast: Literal["draw", "grey"] = Field(
        "draw", description="maps of low contrast: draw them from minimum to maximum, with their contrast and range, or leave their panels grey"
    )

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(known(name, METHOD_NAMES, "render.methods") for name in value)

    @field_validator("colour_map", "signed_colour_map")
    @classmethod
    def _known_colour_map(cls, value: str) -> str:
        check_colour_map(value)
        return value

    @field_validator("fixed")
    @classmethod
    def _ascending_scale(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError(f"render.fixed = {list(value)}: expected [minimum, maximum]")
        return value

    @field_validator("percentiles")
    @classmethod
    def _ascending_percentiles(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 100:
            raise ValueError(f"render.percentiles = {list(value)}: expected [lower, upper], lower below upper, both from 0 to 100")
        return value

    @model_validator(mode="after")
    def _fixed_scope_has_a_scale(self) -> RenderSettings:
        for name in ("scope", "epochs_scope"):
            if getattr(self, name) == "fixed" and self.fixed is None:
                raise ValueError(f"render.{name} = 'fixed' needs render.fixed = [minimum, maximum]")
        return self

    @field_validator("position")
    @classmethod
    def _known_position(cls, value: str) -> str:
        return check_position(value, "render.position")
