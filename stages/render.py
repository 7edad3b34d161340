"""Which pictures are drawn: the [render] table, and the choice of images."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages.cam_methods import METHODS
from stages.naming import known
from stages.positions import check_position

MosaicKind = Literal["positions", "epochs", "paper"]
Scope = Literal["image", "image-over-checkpoints", "checkpoint", "dataset", "fixed"]


class RenderSettings(BaseModel):
    """The [render] table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mosaics: tuple[MosaicKind, ...] = ("positions", "epochs", "paper")
    methods: tuple[str, ...] = ("hires_cam", "grad_cam", "l2_norm")
    targets: tuple[str, ...] = ("match",)
    position: str = Field("aligned", description="position of the epochs and paper mosaics; positions shows them all")
    places: tuple[str, ...] = Field((), description="places to draw; default: the first few of the test split")
    place_count: int = Field(3, ge=1, description="how many places, where none are named")
    drone_views: int = Field(4, ge=1, description="drone images a place")
    checkpoints: tuple[str, ...] = Field((), description="checkpoints of positions and paper; default: the last")
    columns: int = Field(8, ge=2, description="checkpoints of an epoch strip, evenly spread, first and last included")
    scope: Scope = Field("image", description="scale of the positions and paper mosaics")
    epochs_scope: Scope = Field("image-over-checkpoints", description="scale of an epoch strip")
    fixed: tuple[float, float] | None = Field(None, description="the scale of scope fixed")
    signed: bool = Field(False, description="draw gradient maps with their negative cells")
    panel_px: int = Field(160, ge=32)
    alpha: float = Field(0.5, ge=0, le=1)
    colour_map: str = "inferno"
    signed_colour_map: str = "RdBu_r"
    stretch_flat: bool = Field(False, description="stretch flat maps all the same; the panel says so")

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(known(name, METHODS, "render.methods") for name in value)

    @field_validator("position")
    @classmethod
    def _known_position(cls, value: str) -> str:
        return check_position(value)


def choose_places(manifest: pd.DataFrame, settings: RenderSettings) -> list[str]:
    """Name the places to draw: those asked for, or the first test places (else any) that have both views.

    Raises
    ------
    ValueError
        If a named place is not in the manifest.
    """
    good = manifest[manifest["problem"] == ""]
    if settings.places:
        return [known(name, good["place"].unique(), "render.places") for name in settings.places]
    tested = good[good["split"] == "test"]
    pool = tested if len(tested) else good
    views = pool.groupby("place")["view"].nunique()
    complete = views[views == views.max()]
    return sorted(complete.index)[: settings.place_count]


def choose_images(manifest: pd.DataFrame, place: str, settings: RenderSettings) -> pd.DataFrame:
    """Rows of one place to draw: one satellite image and a few drone images, evenly spread; any others where there are neither."""
    rows = manifest[(manifest["place"] == place) & (manifest["problem"] == "")]
    satellite, drone = rows[rows["view"] == "satellite"].head(1), rows[rows["view"] == "drone"]
    chosen = pd.concat([satellite, drone.iloc[spread(len(drone), settings.drone_views)]])
    return chosen if len(chosen) else rows.iloc[spread(len(rows), settings.drone_views + 1)]


def spread(count: int, wanted: int) -> list[int]:
    """Choose `wanted` of 0 ... count-1, evenly, first and last included."""
    if count <= wanted:
        return list(range(count))
    return [round(step * (count - 1) / (wanted - 1)) for step in range(wanted)] if wanted > 1 else [0]
