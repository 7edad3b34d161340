"""What a picture is drawn from: the photo of an image, and its maps in the frame of the photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from pipeline.features.overflow import overflow_of_sample, remedy
from pipeline.features.photo_copies import photo_file, stored_photo
from pipeline.render.captions import image_label
from pipeline.render.opened_run import OpenedRun
from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore
from safenet.photos import open_photo, to_rgb
from stages.cam.compute import needed_finite
from stages.cam.facts import FACTS, STATUS
from stages.cam.frames import to_photo_frame
from stages.cam.map_keys import MapKey
from stages.cam.names import ON_ALIGNED_GRID
from stages.render.mosaics import SampleView
from stages.stats.modules import ROUNDING, moved_share
from stages.targets.names import NO_TARGET, parse_target

_LONGEST_SIDE_PX = 512
_VOID = "no map: the image is void"
_WHY_ABSENT = {
    "label": "its place was not trained",
    "match": "no image of this place in the other view",
    "best": "no gallery of the other view",
    "pair": "the image that the target names is not finite",
}


def read_view(run: OpenedRun, row: pd.Series, name: str, map_keys: Sequence[MapKey], note: str = "") -> SampleView:
    """Read one image, its maps in the photo's frame, and what FAM and FPM did to it.

    Parameters
    ----------
    run : Run
    row : Series
        Of the manifest.
    name : str
        Checkpoint.
    map_keys : sequence of MapKey
        One a position at most.
    note : str
        Text under the photo.
    """
    number = int(row["sample"])
    store = run.features(name)
    features = store.arrays(["theta", "source_cell", "boundary", "fam_change", "valid"], slice(number, number + 1))
    theta, source = features["theta"], features["source_cell"]
    maps, reasons, rounding = {}, {}, {}
    for map_key, (heat, facts) in _maps_of(run, name, number, map_keys).items():
        status, is_void = STATUS[int(facts["status"])].name, not bool(features["valid"][0])
        found = _on_photo(map_key, heat, features, store) if status not in ("absent", "not finite") else np.full_like(heat, np.nan)
        if not np.isnan(found).all():
            maps[map_key.position], rounding[map_key.position] = found[0], float(np.nan_to_num(facts["rounding"]))
        else:  # or a map on the aligned grid, whose warp is not finite
            absent = status == "absent"
            reasons[map_key.position] = _why_absent(run, row, map_key, facts, is_void) if absent else _why_not_finite(store, number, map_key)
    return SampleView(
        read_photo(run, row, name),
        image_label(row),
        maps,
        reasons,
        features["boundary"][0],
        theta[0],
        (source.shape[1], source.shape[2]),
        _moved_cells(source, float(features["fam_change"][0])),
        "" if np.isfinite(theta).all() else _not_finite(store, ["theta"]),
        rounding,
        note,
    )


def _maps_of(run: OpenedRun, name: str, number: int, map_keys: Sequence[MapKey]) -> dict[MapKey, tuple[NDArray[np.float32], dict[str, float]]]:
    """Stored maps [1, y, x] of a sample, and their facts by name."""
    raw = run.cams(name).arrays([key for map_key in map_keys for key in (map_key.key, map_key.facts_key)], slice(number, number + 1))
    return {p: (raw[p.key], dict(zip(FACTS, raw[p.facts_key][0].tolist(), strict=True))) for p in map_keys}


def _on_photo(map_key: MapKey, heat: NDArray[np.float32], features: Mapping[str, NDArray[Any]], store: GroupStore) -> NDArray[np.float32]:
    if map_key.position not in ON_ALIGNED_GRID:
        return heat
    sampling = store.attributes["architecture"]["sampling"]
    return to_photo_frame(heat, features["theta"], features["source_cell"], sampling, map_key.additive)


def _why_absent(run: OpenedRun, row: pd.Series, map_key: MapKey, facts: Mapping[str, float], is_void: bool) -> str:
    """What is written in the place of a map whose image is void, or has no such target, or nothing to compare it with."""
    who = "" if map_key.target == NO_TARGET else parse_target(map_key.target).row.who
    if is_void or not who:
        return _VOID
    if np.isfinite(facts["score"]):
        return "no map: there is no other class or place to compare with"
    if who == "match" and _has_other_view(run.manifest, row):
        return "no map: the images of this place in the other view are void or not finite"
    return f"no map: {_WHY_ABSENT.get(who, 'it has no such target')}"


def why_undefined(run: OpenedRun, row: pd.Series, name: str) -> str:
    """What is written in the place of maps that are made when they are drawn, where an image has none."""
    store = run.features(name)
    is_void = not bool(store.values("valid", slice(int(row["sample"]), int(row["sample"]) + 1))[0])
    return _VOID if is_void else _why_not_finite(store, int(row["sample"]))


def why_no_pair(run: OpenedRun, row: pd.Series, other: pd.Series, name: str) -> str:
    """The same of an image whose map is of its likeness to another one."""
    if overflow_of_sample(run.features(name), int(row["sample"])):
        return why_undefined(run, row, name)
    reason = why_undefined(run, other, name)
    return "no map: the other image is void" if reason == _VOID else f"the other image is {reason}"


def _has_other_view(manifest: pd.DataFrame, row: pd.Series) -> bool:
    """Whether the dataset has what the image would be compared with: other views of its place that serve as references."""
    serves = (manifest["split"] == "train") if row["split"] == "train" else manifest["roles"].str.contains("gallery")
    return bool(((manifest["place"] == row["place"]) & (manifest["view"] != row["view"]) & serves).any())


def _why_not_finite(store: GroupStore, sample: int, map_key: MapKey | None = None) -> str:
    """What is written in the place of a map that is not finite: which variables of those that it is made of are not, and the remedy."""
    variables = overflow_of_sample(store, sample)
    if map_key is not None:
        read = needed_finite(map_key) | ({"theta"} if map_key.position in ON_ALIGNED_GRID else set())
        variables = [name for name in variables if name in read] or (["block_cam"] if map_key.is_stored_gradient else [])
    if not variables:
        return "not finite: the method divides by zero, or overflows, on this image"
    return _not_finite(store, variables)


def _not_finite(store: GroupStore, variables: Sequence[str]) -> str:
    return f"not finite: {', '.join(variables[:2])}{' ...' if len(variables) > 2 else ''}; {remedy(store, variables)}"


def read_photo(run: OpenedRun, row: pd.Series, name: str) -> NDArray[np.uint8]:
    """Read the photo's file, which keeps its aspect; the stored 1:1 copy where the file is not at hand, or not the same any more."""
    sample = int(row["sample"])
    photo = run.photos.get(sample, lambda: _photo_of_file(run, sample))
    return stored_photo(run, name, sample) if photo is None else photo


def _photo_of_file(run: Run, sample: int) -> NDArray[np.uint8] | None:
    path = photo_file(run, sample)
    if path is None:
        return None
    with path.open("rb") as file, open_photo(file) as image:
        photo = to_rgb(image)
        photo.thumbnail((_LONGEST_SIDE_PX, _LONGEST_SIDE_PX), Image.Resampling.BICUBIC)
        return np.array(photo)


def _moved_cells(source: NDArray[np.integer], change: float) -> int | None:
    """Count them; None where bilinear sampling blends the cells without moving one, so that the map is not the same, or that is not known."""
    moved = round(float(moved_share(source)[0]) * source[0].size)
    return None if moved == 0 and not change <= ROUNDING else moved
