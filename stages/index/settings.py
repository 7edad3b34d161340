"""The [dataset] table: where the photos lie, and which of them are used."""

import difflib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages.index.layouts import LAYOUTS

View = Literal["drone", "satellite", "street", "google", "unknown"]
Split = Literal["train", "test"]


class DatasetSettings(BaseModel):
    """The ``[dataset]`` table of a config.

    Photos shared by all variants always stay. Without "train" in `splits`, training places that also lie in the gallery
    stay, as its distractors; so do the `train_places` of raw SUES-200, as its official split script lays them out.
    `limit_places` takes the places in natural order, those that are trained on or queried first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    root: Path = Field(description="folder of the dataset: the one that holds the marker folders of its layout")
    layout: str = Field("auto", description="auto, " + ", ".join(LAYOUTS) + "; folder is never guessed")
    views: tuple[View, ...] = Field((), description="views to keep; empty: all except street and google")
    variants: tuple[str, ...] = Field(
        (), description="flight heights to use, such as 150 (SUES-200) or H80 (DenseUAV); others that a run has stay stored; empty: all"
    )
    splits: tuple[Split, ...] = Field(("train", "test"), min_length=1, description="splits to read")
    train_places: tuple[str, ...] = Field(
        (), description="training places of SUES-200 as downloaded, which has no split on disk; empty: all places are test places"
    )
    pair_lists: Literal["cross-area", "same-area"] | None = Field(
        None, description="which pair lists of GTA-UAV to read, if both exist; default: the only ones"
    )
    limit_places: int | None = Field(None, ge=1, description="keep only this many places per split")

    @field_validator("layout")
    @classmethod
    def _layout_is_listed(cls, name: str) -> str:
        names = ("auto", *LAYOUTS)
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise ValueError(f"no dataset layout is called {name!r}; {hint}known are {', '.join(names)}")
        return name
