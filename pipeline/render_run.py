"""The render stage: stored maps and photos -> mosaics as PNG, each with its settings inside; fresh pictures are left alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pipeline.cam_run import finished_stamps
from pipeline.completeness import block_content, check_same_images, finished_checkpoints
from pipeline.images import png_settings, write_png
from pipeline.interrupts import check_stop, telling_what_is_left
from pipeline.quarantine import bad_images
from pipeline.rates import note_rate
from pipeline.records import sweep
from pipeline.run import MissingProductError, Outcome, Run
from pipeline.seals import Seal
from pipeline.stamps import file_digest, stamp
from pipeline.stats_run import open_stats
from pipeline.stores import JOINED, group_attributes
from safenet.preprocess import open_photo, to_rgb
from stages.cam import Product, products_of
from stages.cam_methods import METHODS
from stages.frames import to_photo_frame
from stages.mosaics import EpochRow, MapStyle, SampleView, epochs_mosaic, paper_mosaic, positions_mosaic
from stages.naming import known
from stages.panels import DrawSettings
from stages.positions import ON_ALIGNED_GRID
from stages.render import MosaicKind, Scope, choose_drawn, choose_images, choose_places, spread
from stages.scales import Scale
from stages.targets import NEEDS_REFERENCE, NO_TARGET
from stages.warp_figures import ROUNDING, moved_share

VERSION = 2
INDEX = "index.json"
_LONGEST_SIDE_PX = 512
_WHY_ABSENT = {"label": "its place was not trained", **dict.fromkeys(NEEDS_REFERENCE, "no image of this place in the other view")}


@dataclass(frozen=True)
class Picture:
    """A mosaic to draw: what it shows, and the stamps of the maps it is made of."""

    kind: MosaicKind
    place: str
    method: str
    target: str
    checkpoints: tuple[str, ...]
    stamps: tuple[str, ...]
    images: pd.DataFrame = field(compare=False, repr=False)

    @property
    def path(self) -> Path:
        """Within the mosaics folder."""
        folder = Path(self.kind) / (self.checkpoints[0] if self.kind != "epochs" else "")
        place = self.place.replace("/", "_")
        target = "" if self.target == NO_TARGET else f"-{self.target.replace('/', '_')}"
        return folder / f"{place}-{self.method}{target}.png"

    @property
    def style(self) -> tuple[str, str]:
        """Method and target."""
        return self.method, self.target


def render(run: Run, *, partial: bool = False) -> Outcome:
    """Draw the configured mosaics that are missing or stale.

    Parameters
    ----------
    run : Run
    partial : bool
        Leave unfinished checkpoints out instead of refusing.

    Raises
    ------
    MissingProductError
        If heat maps (or, for scales over a checkpoint or the dataset, figures) are missing or stale.
    ValueError
        If a place, method, target or checkpoint is asked for that the run does not have.
    """
    pictures = planned_pictures(run, finished_checkpoints(run, partial))
    scales, started = _Scales(run), perf_counter()
    with run.locked("mosaics"):
        index_seal(run).sweep()
        sweep(run.mosaics_path)
        stale = stale_pictures(run, pictures)
        bar = tqdm(stale, unit="picture", disable=not run.progress)
        with telling_what_is_left(lambda: f"left: {len(stale) - bar.n} of {len(pictures)} pictures", run.directory):
            for picture in bar:
                check_stop()
                write_png(run.mosaics_path / picture.path, _DRAW[picture.kind](run, picture, scales), _text_chunks(run, picture))
            _write_index(run, pictures)
    note_rate(run.directory, "render", len(stale), perf_counter() - started)
    return Outcome("render", len(stale), len(pictures) - len(stale), "pictures", (f"in {run.mosaics_path}",))


def stale_pictures(run: Run, pictures: Sequence[Picture]) -> list[Picture]:
    """Those that are missing, damaged, or made of other maps, photos or settings."""
    return [picture for picture in pictures if png_settings(run.mosaics_path / picture.path).get("stamp") != _stamp(run, picture)]


def index_seal(run: Run) -> Seal:
    """Seal of the list of pictures; each picture carries its own checksums."""
    return Seal(run.directory / "ledger" / "mosaics.json", run.mosaics_path)


def _write_index(run: Run, pictures: Sequence[Picture]) -> None:
    index = [
        {
            "path": picture.path.as_posix(),
            "kind": picture.kind,
            "place": picture.place,
            "method": picture.method,
            "target": picture.target,
            "checkpoints": picture.checkpoints,
        }
        for picture in pictures
    ]
    content, path = json.dumps(index, indent=1).encode(), run.mosaics_path / INDEX
    if not index_seal(run).holds(INDEX) or path.read_bytes() != content:
        index_seal(run).replace(INDEX, content)


def planned_pictures(run: Run, names: Sequence[str]) -> list[Picture]:
    """List the pictures: positions and paper for the chosen checkpoints, one epoch strip over all."""
    settings, products = run.settings.render, products_of(run.settings.cam)
    strip = tuple(names[index] for index in spread(len(names), settings.columns))
    chosen = tuple(known(name, names, "render.checkpoints") for name in settings.checkpoints) or (names[-1],)
    stamps = {name: finished_stamps(run, name, products) for name in {*strip, *chosen}}
    for name in stamps:
        check_same_images(run, name)
    pictures = []
    usable = _usable_images(run)
    for place in choose_places(usable, settings):
        images = choose_images(usable, place, settings)
        for method, target in choose_drawn(products, settings):
            for kind in settings.mosaics:
                groups = [strip] if kind == "epochs" else [(name,) for name in chosen]
                if kind != "positions" and not _product(settings.position, method, target, products):
                    continue
                used = [
                    tuple(
                        stamps[name][key]
                        for name in group
                        for key in sorted(stamps[name])
                        if (Product.parse(key).target, Product.parse(key).method) == (target, method)
                    )
                    for group in groups
                ]
                pictures += [Picture(kind, place, method, target, group, marks, images) for group, marks in zip(groups, used, strict=True)]
    return pictures


def _product(position: str, method: str, target: str, products: Sequence[Product]) -> Product | None:
    return next((product for product in products if (product.position, product.method, product.target) == (position, method, target)), None)


def _stamp(run: Run, picture: Picture) -> str:
    """Digest of what the picture shows; the scale of a wider scope comes from the figures of all images."""
    chosen = {"mosaics", "methods", "targets", "places", "place_count", "checkpoints", "columns"}
    figures = group_attributes(run.stats_path, JOINED).get("stamp") if _scope(run, picture) in ("checkpoint", "dataset") else None
    ingredients = {
        "maps": picture.stamps,
        "checkpoints": picture.checkpoints,
        "settings": run.settings.render.model_dump(mode="json", exclude=chosen),
        "flat_below": run.settings.stats.flat_below,
        "images": picture.images["digest"].tolist(),
        "content": [_content_of(run, name, sample) for name in picture.checkpoints for sample in picture.images["sample"]],
        "figures": figures,
        "version": VERSION,
    }
    return stamp(ingredients)


def _content_of(run: Run, name: str, sample: int) -> str:
    """Digest of the block that a sample's features lie in."""
    store = run.features(name)
    return block_content(store, store.blocks[sample // len(store.blocks[0])])


def _scope(run: Run, picture: Picture) -> Scope:
    return run.settings.render.epochs_scope if picture.kind == "epochs" else run.settings.render.scope


def _text_chunks(run: Run, picture: Picture) -> dict[str, Any]:
    settings = run.settings.render
    return {
        "Software": f"safenet-atlas {version('safenet-atlas')}",
        "Title": f"{picture.kind} of place {picture.place}",
        "run": run.directory.name,
        "checkpoints": ", ".join(picture.checkpoints),
        "method": picture.method,
        "target": picture.target,
        "position": "all" if picture.kind == "positions" else settings.position,
        "scope": _scope(run, picture),
        "colour_map": settings.colour_map,
        "alpha": settings.alpha,
        "settings": settings.model_dump_json(),
        "stamp": _stamp(run, picture),
    }


class _Scales:
    """Scales that reach beyond a picture, from the figures; read when the first is asked for."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stats: xr.Dataset | None = None

    def find(self, scope: Scope, checkpoint: str, product: Product, kind: str) -> Scale | None:
        """Return the scale of a map, None where the picture itself sets it."""
        if scope in ("image", "image-over-checkpoints"):
            return None
        if scope == "fixed":
            if self._run.settings.render.fixed is None:
                raise ValueError("render.scope = 'fixed' needs render.fixed = [minimum, maximum]")
            return _scale_of(*self._run.settings.render.fixed, "fixed", kind)
        if self._stats is None:
            self._stats = open_stats(self._run)
        ranges = self._stats[["range_low", "range_high"]].sel(product=product.key)
        if scope == "checkpoint":
            ranges = ranges.sel(checkpoint=checkpoint)
        return _scale_of(float(ranges["range_low"].min()), float(ranges["range_high"].max()), scope, kind)


def _scale_of(low: float, high: float, scope: Scope, kind: str) -> Scale:
    if kind == "relu":
        return Scale(0.0, max(high, 0.0), scope)
    if kind == "signed":
        extent = max(abs(low), abs(high))
        return Scale(-extent, extent, scope, signed=True)
    return Scale(low, high, scope)


def _style(run: Run, picture: Picture) -> MapStyle:
    if METHODS[picture.method].kind == "statistic":
        return MapStyle(picture.method, picture.target, "statistic")
    return MapStyle(picture.method, picture.target, "signed" if run.settings.render.signed else "relu")


def _draw_settings(run: Run) -> DrawSettings:
    chosen = run.settings.render.model_dump(include={"panel_px", "alpha", "colour_map", "signed_colour_map", "stretch_flat"})
    return DrawSettings(**chosen, flat_below=run.settings.stats.flat_below)


def _draw_positions(run: Run, picture: Picture, scales: _Scales) -> NDArray[np.uint8]:
    name, style = picture.checkpoints[0], _style(run, picture)
    products = [p for p in products_of(run.settings.cam) if (p.method, p.target) == picture.style]
    views = [_view(run, row, name, products, picture) for row in _images(picture)]
    found = {p.position: scales.find(_scope(run, picture), name, p, style.kind) for p in products}
    return positions_mosaic(views, style, _draw_settings(run), _title(picture, f"checkpoint {name}"), _all_or_none(found))


def _draw_paper(run: Run, picture: Picture, scales: _Scales) -> NDArray[np.uint8]:
    name, style, position = picture.checkpoints[0], _style(run, picture), run.settings.render.position
    product = Product(position, picture.target, picture.method)
    views = [_view(run, row, name, [product], picture) for row in _images(picture)]
    scale = scales.find(_scope(run, picture), name, product, style.kind)
    return paper_mosaic(views, style, position, _draw_settings(run), _title(picture, f"checkpoint {name}"), scale)


def _draw_epochs(run: Run, picture: Picture, scales: _Scales) -> NDArray[np.uint8]:
    style, position = _style(run, picture), run.settings.render.position
    product = Product(position, picture.target, picture.method)
    rows = []
    for row in _images(picture):
        views = [_view(run, row, name, [product], picture) for name in picture.checkpoints]
        maps = [view.maps.get(position) for view in views]
        rows.append(EpochRow(views[0].label, views[0].photo, maps, [view.reasons.get(position, "") for view in views]))
    heads = [_head(run, name) for name in picture.checkpoints]
    found = {head: scales.find(_scope(run, picture), name, product, style.kind) for head, name in zip(heads, picture.checkpoints, strict=True)}
    return epochs_mosaic(rows, heads, style, _draw_settings(run), _title(picture, "by checkpoint"), position, _all_or_none(found))


_DRAW: Mapping[MosaicKind, Callable[[Run, Picture, _Scales], NDArray[np.uint8]]] = {
    "positions": _draw_positions,
    "epochs": _draw_epochs,
    "paper": _draw_paper,
}


def _title(picture: Picture, what: str) -> str:
    method = picture.method if picture.target == NO_TARGET else f"{picture.method} of {picture.target}"
    return f"Place {picture.place}, {what}: {method}"


def _all_or_none(found: Mapping[str, Scale | None]) -> dict[str, Scale] | None:
    given = {name: scale for name, scale in found.items() if scale is not None}
    return given or None


def _head(run: Run, name: str) -> str:
    epoch = run.features(name).attributes["epoch"]
    return name if epoch is None else "untrained" if epoch < 0 else f"epoch {epoch}"


def _images(picture: Picture) -> list[pd.Series]:
    return [row for _, row in picture.images.iterrows()]


def _view(run: Run, row: pd.Series, name: str, products: Sequence[Product], picture: Picture) -> SampleView:
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
            reasons[product.position] = _WHY_ABSENT.get(picture.target, "the image is void")
        else:
            maps[product.position] = found[0]
    moved = _moved_cells(source, float(features["fam_change"].values[0]))
    grid = (source.shape[1], source.shape[2])
    return SampleView(
        _photo(run, row, name), f"{row['view']}\n{Path(row['path']).stem}", maps, reasons, features["boundary"].values[0], theta[0], grid, moved
    )


def _moved_cells(source: NDArray[np.integer], change: float) -> int | None:
    """Count them; None where bilinear sampling blends the cells without moving one, so that the map is not the same."""
    moved = round(float(moved_share(source)[0]) * source[0].size)
    return None if moved == 0 and change > ROUNDING else moved


def _usable_images(run: Run) -> pd.DataFrame:
    """Return the manifest with the faults that extraction found; an image that is void in the stores is not drawn."""
    table, void = run.manifest.copy(), bad_images(run)
    table["problem"] = [str(void.get(name, "")) for name in table["id"]]
    return table


def _photo(run: Run, row: pd.Series, name: str) -> NDArray[np.uint8]:
    """Read the photo's file, which keeps its aspect; the stored 1:1 copy where the file is not at hand, or not the same any more."""
    path = Path(run.manifest.attrs["root"]) / row["path"]
    store = run.features(name)
    if path.is_file() and file_digest(path) == row["digest"]:
        with path.open("rb") as file, open_photo(file) as image:
            photo = to_rgb(image)
            photo.thumbnail((_LONGEST_SIDE_PX, _LONGEST_SIDE_PX), Image.Resampling.BICUBIC)
            return np.array(photo)
    if not store.has("image"):
        raise MissingProductError(
            f"{path}: the photo is not here, and {store} holds no copy. Bring the photos back, or extract with 'image' in extract.store"
        )
    sample = int(row["sample"])
    stored: NDArray[np.uint8] = store.read(["image"], slice(sample, sample + 1))["image"].values[0]
    return stored
