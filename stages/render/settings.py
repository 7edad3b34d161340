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
    methods: tuple[str, ...] = Field((), description="methods to draw; empty: all of cam.methods")
    targets: tuple[str, ...] = Field((), description="targets to draw; empty: all of cam.targets")
    position: str = Field("aligned", description="position of the epochs and paper mosaics; the other kinds show all positions")
    places: tuple[str, ...] = Field((), description="places to draw; empty: the first few of the test split")
    place_count: int = Field(3, ge=1, description="number of places, if places is empty")
    drone_views: int = Field(4, ge=1, description="drone images per place")
    pair_cells: int = Field(4, ge=1, le=9, description="number of cells that a pair mosaic marks in each image")
    checkpoints: tuple[str, ...] = Field((), description="checkpoints of all kinds except epochs; empty: the last")
    columns: int = Field(8, ge=2, description="number of checkpoints in an epoch strip, evenly spread, including the first and the last")
    scope: Scope = Field(
        "image", description="scale of the positions and paper mosaics: image, percentile (for skewed maps), checkpoint, dataset, fixed"
    )
    epochs_scope: Scope = Field("image-over-checkpoints", description="scale of an epoch strip: image-over-checkpoints, or one of the others")
    percentiles: tuple[float, float] = Field((1, 99), description="lower and upper end of a scale with scope percentile, in percent of the cells")
    fixed: tuple[float, float] | None = Field(None, description="minimum and maximum of the scale with scope fixed")
    signed: bool = Field(False, description="draw the negative cells of gradient maps, too")
    panel_px: int = Field(160, ge=64, description="longer side of a panel, pixels")
    alpha: float = Field(0.5, ge=0, le=1, description="opacity of the colours over the photo")
    colour_map: str = Field("inferno", description="a colour map of Matplotlib, for magnitudes")
    signed_colour_map: str = Field("RdBu_r", description="a colour map of Matplotlib, centred on zero, for signed maps")
    low_contrast: Literal["draw", "grey"] = Field(
        "draw", description="maps of low contrast: draw them from minimum to maximum, with contrast and range (draw), or leave their panels grey"
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
