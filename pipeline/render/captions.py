"""What a picture's footer and its file tell of it: labels of images, scopes of scales, colour maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipeline.render.catalogue import Picture
from pipeline.run.directory import Run
from stages.cam.methods import METHODS
from stages.render.scales import Scope
from stages.render.settings import MosaicKind


def image_label(row: pd.Series) -> str:
    """Return an image's view, its flight height where its file name does not begin with it, and its file name, on two lines."""
    stem, variant = Path(row["path"]).stem, row["variant"]
    view = row["view"] if stem.startswith(variant) else f"{row['view']} {variant}"
    return f"{view}\n{stem}"


def scope_of(run: Run, kind: MosaicKind) -> Scope:
    """Return what the scales of a kind of mosaic are taken over; those of one image alone have no choice."""
    asked = run.settings.render
    own: Scope = "percentile" if asked.scope == "percentile" else "image"
    scopes: Mapping[str, Scope] = {
        "positions": asked.scope, "paper": asked.scope, "epochs": asked.epochs_scope, "methods": own, "depth": own, "change": "row",
    }  # fmt: skip
    return scopes.get(kind, "image")


def drawn_colour_maps(run: Run, picture: Picture) -> list[str]:
    """Name the colour maps of a picture: that of magnitudes, that of signed maps, or both."""
    asked, signed = run.settings.render, run.settings.render.signed
    both = [asked.colour_map, asked.signed_colour_map]
    if picture.kind == "change":
        return both[1:]
    if picture.method not in METHODS:  # several methods, or cells of a pair: class-free rows, and rows of a target
        return both if signed else both[:1]
    return both[1:] if signed and METHODS[picture.method].kind == "gradient" else both[:1]
