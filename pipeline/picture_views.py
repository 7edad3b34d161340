"""What a picture is drawn of: an image's photo, and its maps in the photo's frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from pipeline.photo_copies import photo_file, stored_photo
from pipeline.run import Run
from safenet.preprocess import open_photo, to_rgb
from stages.frames import to_photo_frame
from stages.mosaics import SampleView
from stages.positions import ON_ALIGNED_GRID
from stages.products import Product
from stages.target_names import NO_TARGET, parse_target
from stages.warp_figures import ROUNDING, moved_share

_LONGEST_SIDE_PX = 512
_WHY_ABSENT = {"label": "its place was not trained", "match": "no image of this place in the other view", "best": "no gallery of the other view"}


def read_view(run: Run, row: pd.Series, name: str, products: Sequence[Product], target: str) -> SampleView:
    """Read one image, its maps in the photo's frame, and what FAM and FPM did to it."""
    store, sample = run.features(name), slice(int(row["sample"]), int(row["sample"]) + 1)
    features = store.read(["theta", "source_cell", "boundary", "fam_change"], sample)
    sampling = store.attributes["architecture"]["sampling"]
    theta, source = features["theta"].values, features["source_cell"].values
    raw = run.cams(name).read([product.key for product in products], sample)
    maps, reasons = {}, {}
    for product in products:
        found = raw[product.key].values
        if product.position in ON_ALIGNED_GRID:
            found = to_photo_frame(found, theta, source, sampling, product.additive)
        if np.isnan(found).all():
            who = "" if target == NO_TARGET else parse_target(target).row.who
            reasons[product.position] = _WHY_ABSENT.get(who, "the image is void")
        else:
            maps[product.position] = found[0]
    moved = _moved_cells(source, float(features["fam_change"].values[0]))
    grid = (source.shape[1], source.shape[2])
    return SampleView(read_photo(run, row, name), image_label(row), maps, reasons, features["boundary"].values[0], theta[0], grid, moved)


def image_label(row: pd.Series) -> str:
    """Return an image's view, its flight height where its file name does not begin with it, and its file name, on two lines."""
    stem, variant = Path(row["path"]).stem, row["variant"]
    view = row["view"] if stem.startswith(variant) else f"{row['view']} {variant}"
    return f"{view}\n{stem}"


def read_photo(run: Run, row: pd.Series, name: str) -> NDArray[np.uint8]:
    """Read the photo's file, which keeps its aspect; the stored 1:1 copy where the file is not at hand, or not the same any more."""
    path = photo_file(run, int(row["sample"]))
    if path is None:
        return stored_photo(run, name, int(row["sample"]))
    with path.open("rb") as file, open_photo(file) as image:
        photo = to_rgb(image)
        photo.thumbnail((_LONGEST_SIDE_PX, _LONGEST_SIDE_PX), Image.Resampling.BICUBIC)
        return np.array(photo)


def _moved_cells(source: NDArray[np.integer], change: float) -> int | None:
    """Count them; None where bilinear sampling blends the cells without moving one, so that the map is not the same."""
    moved = round(float(moved_share(source)[0]) * source[0].size)
    return None if moved == 0 and change > ROUNDING else moved
