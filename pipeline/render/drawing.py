"""How each kind of picture is drawn: one function and one row per kind of mosaic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from types import MappingProxyType

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pipeline.cam.explain import Explainer
from pipeline.cam.wanted import wanted_map_keys
from pipeline.features.overflow import overflow_of_sample
from pipeline.render.best_images import BestImages
from pipeline.render.captions import image_label, scope_of
from pipeline.render.catalogue import Picture, content_of
from pipeline.render.opened_run import OpenedRun
from pipeline.render.views import read_photo, read_view, why_no_pair, why_undefined
from pipeline.run.directory import Run
from pipeline.stats.staleness import open_stats
from stages.cam.map_keys import MapKey
from stages.cam.methods import METHODS
from stages.cam.names import block_number
from stages.cam.pairs import query_cells
from stages.render.change_mosaic import ChangeRow, change_mosaic
from stages.render.method_mosaics import MethodRow, depth_mosaic, methods_mosaic
from stages.render.mosaics import EpochMap, EpochRow, MapStyle, SampleView, epochs_mosaic, paper_mosaic, positions_mosaic
from stages.render.pair_mosaic import PairSide, pair_mosaic
from stages.render.panels import DrawSettings
from stages.render.scales import MapKind, Scale, Scope
from stages.render.settings import MosaicKind
from stages.targets.names import NO_TARGET

_APART = 3  # least distance, in cells, of the cells that a pair's picture asks about


def draw_picture(picture: Picture, shared: Shared) -> NDArray[np.uint8]:
    """Return a picture, uint8 [H, W, 3]."""
    return _DRAW[picture.kind](shared.run, picture, shared)


class Scales:
    """Scales that reach beyond a picture, from the figures; read when the first is asked for."""

    def __init__(self, run: OpenedRun) -> None:
        self._run = run
        self._stats: xr.Dataset | None = None

    def find(self, scope: Scope, checkpoint: str, map_key: MapKey, kind: str) -> Scale | None:
        """Return the scale of a map, None where the picture itself sets it."""
        if scope in ("image", "percentile", "image-over-checkpoints"):
            return None
        if scope == "fixed" and (fixed := self._run.settings.render.fixed) is not None:  # the settings refuse the one without the other
            return _scale_of(*fixed, "fixed", kind)
        if self._stats is None:
            self._stats = open_stats(self._run)
        ranges = self._stats[["range_low", "range_high"]].sel(product=map_key.key)
        if scope == "checkpoint":
            ranges = ranges.sel(checkpoint=checkpoint)
        return _scale_of(float(ranges["range_low"].min()), float(ranges["range_high"].max()), scope, kind)


class Shared:
    """What the pictures of a run share: read, or made, when the first of them asks for it.

    Parameters
    ----------
    run : Run
    """

    def __init__(self, run: Run) -> None:
        self.run = OpenedRun.of(run)
        self.scales = Scales(self.run)
        self.best = BestImages(self.run)
        self.explainer = Explainer(self.run)
        self.content = cache(partial(content_of, self.run))  # digests of blocks: many pictures show the same images


def _scale_of(low: float, high: float, scope: Scope, kind: str) -> Scale:
    if kind == "relu":
        return Scale(0.0, max(high, 0.0), scope)
    if kind == "signed":
        extent = max(abs(low), abs(high))
        return Scale(-extent, extent, scope, signed=True)
    return Scale(low, high, scope)


def _views(run: OpenedRun, picture: Picture, name: str, map_keys: Sequence[MapKey], shared: Shared) -> list[SampleView]:
    """The picture's images as one checkpoint sees them, with the image that ranks first where a map explains that."""
    images = _images(picture)
    notes = shared.best.words(name, picture.target, [int(row["sample"]) for row in images])
    return [read_view(run, row, name, map_keys, note) for row, note in zip(images, notes, strict=True)]


def _style(run: OpenedRun, picture: Picture) -> MapStyle:
    return _style_of(run, picture.method, picture.target)


def _style_of(run: OpenedRun, method: str, target: str) -> MapStyle:
    return MapStyle(method, target, _kind(run, method), METHODS[method].drawn)


def _kind(run: OpenedRun, method: str) -> MapKind:
    if METHODS[method].kind == "statistic":
        return "statistic"
    return "signed" if run.settings.render.signed else "relu"


def _draw_settings(run: OpenedRun, kind: MosaicKind) -> DrawSettings:
    asked = run.settings.render
    chosen = asked.model_dump(include={"panel_px", "alpha", "colour_map", "signed_colour_map"})
    return DrawSettings(
        **chosen,
        low_contrast_below=run.settings.stats.low_contrast_below,
        grey_low_contrast=asked.low_contrast == "grey",
        percentiles=asked.percentiles if scope_of(run, kind) == "percentile" else None,
    )


def _draw_positions(run: OpenedRun, picture: Picture, shared: Shared) -> NDArray[np.uint8]:
    name, style = picture.checkpoints[0], _style(run, picture)
    map_keys = [p for p in wanted_map_keys(run, name) if (p.method, p.target) == picture.style]
    views = _views(run, picture, name, map_keys, shared)
    found = {p.position: shared.scales.find(scope_of(run, picture.kind), name, p, style.kind) for p in map_keys}
    return positions_mosaic(views, style, _draw_settings(run, picture.kind), _title(picture, f"checkpoint {name}"), _all_or_none(found))


def _draw_paper(run: OpenedRun, picture: Picture, shared: Shared) -> NDArray[np.uint8]:
    name, style, position = picture.checkpoints[0], _style(run, picture), run.settings.render.position
    map_key = MapKey(position, picture.target, picture.method)
    views = _views(run, picture, name, [map_key], shared)
    scale = shared.scales.find(scope_of(run, picture.kind), name, map_key, style.kind)
    return paper_mosaic(views, style, position, _draw_settings(run, picture.kind), _title(picture, f"checkpoint {name}"), scale)


def _draw_epochs(run: OpenedRun, picture: Picture, shared: Shared) -> NDArray[np.uint8]:
    style, position = _style(run, picture), run.settings.render.position
    map_key = MapKey(position, picture.target, picture.method)
    columns = [_views(run, picture, name, [map_key], shared) for name in picture.checkpoints]
    rows = [EpochRow(views[0].label, views[0].photo, [_epoch_map(view, position) for view in views]) for views in zip(*columns, strict=True)]
    found = {name: shared.scales.find(scope_of(run, picture.kind), name, map_key, style.kind) for name in picture.checkpoints}
    given = _all_or_none(found)
    column_scales = [given[name] for name in picture.checkpoints] if given else None
    shown = len(picture.checkpoints)
    counted = f"{shown} of {shown + picture.left_out} checkpoints" if picture.left_out else "by checkpoint"
    title = _title(picture, _of_series(picture, counted))
    return epochs_mosaic(rows, picture.heads, style, _draw_settings(run, picture.kind), title, position, column_scales)


def _epoch_map(view: SampleView, position: str) -> EpochMap:
    return EpochMap(view.maps.get(position), view.reasons.get(position, ""), view.rounding.get(position, 0.0), view.note)


def _draw_methods(run: OpenedRun, picture: Picture, shared: Shared) -> NDArray[np.uint8]:
    name, image = picture.checkpoints[0], _images(picture)[0]
    (note,) = shared.best.words(name, picture.target, [int(image["sample"])])
    chosen = [map_key for map_key in wanted_map_keys(run, name) if map_key.target in (picture.target, NO_TARGET)]
    chosen = [map_key for map_key in chosen if block_number(map_key.position) is None] or chosen  # depth strips show the blocks
    rows = []
    for method in METHODS:
        map_keys = [map_key for map_key in chosen if map_key.method == method]
        if map_keys:
            style = _style_of(run, method, map_keys[0].target)
            rows.append(MethodRow(style, read_view(run, image, name, map_keys, "" if style.target == NO_TARGET else note)))
    what = "all methods" if picture.target == NO_TARGET else f"all methods, target {picture.target}"
    title = f"Place {picture.place}, {_one_line(image)}, checkpoint {name}: {what}"
    return methods_mosaic(rows, _draw_settings(run, picture.kind), title, picture.target)


def _draw_depth(run: OpenedRun, picture: Picture, shared: Shared) -> NDArray[np.uint8]:
    name = picture.checkpoints[0]
    map_keys = [map_key for map_key in wanted_map_keys(run, name) if (map_key.method, map_key.target) == picture.style]
    views = _views(run, picture, name, map_keys, shared)
    return depth_mosaic(views, _style(run, picture), _draw_settings(run, picture.kind), _title(picture, f"checkpoint {name}, by depth"))


def _draw_pair(run: OpenedRun, picture: Picture, shared: Shared) -> NDArray[np.uint8]:
    name, images = picture.checkpoints[0], _images(picture)
    found = shared.explainer.pair(name, *(int(row["sample"]) for row in images))
    sides = []
    for row, partner, own, other in zip(images, images[::-1], ("first", "second"), ("second", "first"), strict=True):
        heat, alike = found[f"{own}_map"].values, found[f"{other}_like_{own}"].values
        cells = query_cells(heat, run.settings.render.pair_cells, _APART)
        reason = why_no_pair(run, row, partner, name) if np.isnan(heat).all() else ""
        sides.append(PairSide(read_photo(run, row, name), _one_line(row), heat, cells, [alike[cell] for cell in cells], reason))
    title = f"Place {picture.place}, checkpoint {name}: a pair from both sides"
    return pair_mosaic(sides[0], sides[1], _kind(run, "hires_cam"), _draw_settings(run, picture.kind), title, _cosine(run, name, images))


def _draw_change(run: OpenedRun, picture: Picture, shared: Shared) -> NDArray[np.uint8]:
    """Split at the patch map, whose cells are the photo's for every checkpoint, however its FAM warps."""
    images, (before, after) = _images(picture), picture.checkpoints
    key = MapKey("patch", picture.target, picture.method).key
    split = shared.explainer.split_change(before, after, key, [int(row["sample"]) for row in images])
    rows = []
    for number, row in enumerate(images):
        maps = {str(name): found.values[number] for name, found in split.data_vars.items()}
        reason = _why_no_change(run, row, (before, after)) if any(np.isnan(heat).all() for heat in maps.values()) else ""
        rows.append(ChangeRow(image_label(row), read_photo(run, row, after), **maps, reason=reason))
    first, last = picture.heads
    title = _title(picture, _of_series(picture, f"from {before} to {after}"))
    return change_mosaic(rows, (first, last), _style(run, picture), _draw_settings(run, picture.kind), title, "patch")


def _why_no_change(run: OpenedRun, row: pd.Series, checkpoints: Sequence[str]) -> str:
    odd = [name for name in checkpoints if overflow_of_sample(run.features(name), int(row["sample"]))]
    return why_undefined(run, row, (*odd, checkpoints[-1])[0])


def _cosine(run: OpenedRun, name: str, images: Sequence[pd.Series]) -> float | None:
    """Return the mean over the parts of the cosine of a pair; None where it is not defined."""
    read = [run.features(name).read(["embedding"], slice(int(row["sample"]), int(row["sample"]) + 1)) for row in images]
    parts = [found["embedding"].values[0, :-1].astype(np.float64) for found in read]
    if not all(np.isfinite(values).all() and values.any(axis=1).all() for values in parts):
        return None
    one, other = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in parts)
    return float((one * other).sum(axis=1).mean())


_DRAW: Mapping[MosaicKind, Callable[[OpenedRun, Picture, Shared], NDArray[np.uint8]]] = MappingProxyType(
    {
        "positions": _draw_positions,
        "epochs": _draw_epochs,
        "paper": _draw_paper,
        "methods": _draw_methods,
        "depth": _draw_depth,
        "pair": _draw_pair,
        "change": _draw_change,
    }
)


def _title(picture: Picture, what: str) -> str:
    method = picture.method if picture.target == NO_TARGET else f"{picture.method} of {picture.target}"
    return f"Place {picture.place}, {what}: {method}"


def _all_or_none(found: Mapping[str, Scale | None]) -> dict[str, Scale] | None:
    given = {name: scale for name, scale in found.items() if scale is not None}
    return given or None


def _of_series(picture: Picture, what: str) -> str:
    return what if picture.series is None else f"{f'series {picture.series}' if picture.series else 'no series'}, {what}"


def _one_line(row: pd.Series) -> str:
    return image_label(row).replace("\n", " ")


def _images(picture: Picture) -> list[pd.Series]:
    return [row for _, row in picture.images.iterrows()]
