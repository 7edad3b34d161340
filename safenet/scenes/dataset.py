"""Procedural aerial scenes: satellite and drone views of the same buildings, with masks, in University-1652's layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from safenet.scenes.buildings import Building, design_building
from safenet.scenes.canvas import TARGET_MARK, Canvas, on_plane, open_canvas, rotation, shifted
from safenet.scenes.layout import lay_out
from safenet.scenes.painting import cast_building, paint_building
from safenet.scenes.settings import SceneSettings
from safenet.scenes.surroundings import TREE_COLOURS, cast_props, paint_ground, paint_prop, split_by_target

MARKER = "scenes.json"
_VERSION = 1  # raised when the same settings give other pictures
_FINER = 2  # pictures are painted this many times larger and averaged down
_MARGIN = 0.03  # of the side, kept free around the building
_ON_ROOF_M = 3.5  # what stands on the roofs may be that high


@dataclass(frozen=True)
class View:
    """One photo to be taken of a place.

    Attributes
    ----------
    kind : "satellite" or "drone"
        What takes it.
    azimuth_deg : float
        Compass direction that is up in the picture.
    tilt_deg : float
        Angle of the camera from straight down.
    height_m : float
        Height of the camera over the ground.
    span_m : float
        Metres that the picture's side covers at the building.
    offset : tuple of float
        Where the building's middle is wanted, from the picture's middle, as shares of the side (right, down); less where it would be cut.
    sun_azimuth_deg, sun_elevation_deg : float
        Where the sun stands.
    ambient : float
        Share of sky light: 0.35 is a clear day, 0.8 an overcast one.
    season : str
        Of the plants.
    surroundings_seed, photo_seed : tuple of int
        What is around the building; exposure, colour cast, haze, blur and noise.
    """

    kind: Literal["satellite", "drone"]
    azimuth_deg: float
    tilt_deg: float
    height_m: float
    span_m: float
    offset: tuple[float, float]
    sun_azimuth_deg: float
    sun_elevation_deg: float
    ambient: float
    season: str
    surroundings_seed: tuple[int, ...]
    photo_seed: tuple[int, ...]


def plan_views(place: int, settings: SceneSettings) -> tuple[View, ...]:
    """Return the views of a place: the satellite's, then the drone's, spread over the full circle."""
    first = float(np.random.default_rng([settings.seed, place, 0, 2]).uniform(0, 360))
    return tuple(_plan_view(place, index, first, settings) for index in range(1 + settings.drone_views))


def draw_view(place: int, view: View, settings: SceneSettings) -> tuple[np.ndarray, np.ndarray]:
    """Take one photo.

    Returns
    -------
    photo : uint8 [S, S, 3]
        Red, green, blue.
    mask : uint8 [S, S]
        1 where the place's building, its roof or its walls, is seen; 0 elsewhere.
    """
    building = _building(place, settings.seed)
    canvas = _aim(building, view, settings)
    own = canvas.moved((0.0, 0.0), building.heading_deg)
    scene = lay_out(canvas, _hull(building), view.season, view.surroundings_seed)
    paint_ground(canvas, scene)
    cast_props(canvas, scene)
    cast_building(own, building)
    canvas.settle_shadows()
    behind, before = split_by_target(canvas, scene)
    for prop in behind:
        paint_prop(canvas, prop, view.season)
    paint_building(own, building, TARGET_MARK)
    for prop in before:
        paint_prop(canvas, prop, view.season)
    canvas.apply_texture(np.random.default_rng([*view.photo_seed, 1]).uniform(-500, 500, 2))
    return _develop(canvas.pixels, view, settings.size_px)


def write_scenes(root: Path, settings: SceneSettings, each: Callable[..., Iterable[None]] = map) -> None:
    """Write all views and their masks under `root`, or do nothing where these settings' scenes already are.

    Parameters
    ----------
    root : Path
        Becomes a folder with `train/{satellite,drone}` and `test/{query,gallery}_{drone,satellite}`, one folder per place below, and
        under `masks` the same names ending in .png, 255 on the building. `scenes.json` holds the settings.
    settings : SceneSettings
        What is drawn.
    each : callable
        Does what `map` does with the places, which do not depend on each other; such as the `map` of a pool of processes.

    Raises
    ------
    ValueError
        If `root` holds scenes of other settings.
    FileExistsError
        If `root` holds something else.
    """
    if _already_written(root, settings):
        return
    unfinished = root.with_name(f".{root.name}.partial")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    for _ in each(partial(_write_place, unfinished, settings), range(settings.places)):
        pass
    (unfinished / MARKER).write_text(_marker_text(settings))
    unfinished.replace(root)


@lru_cache(maxsize=64)
def _building(place: int, seed: int) -> Building:
    return design_building(place, seed)


def _hull(building: Building) -> np.ndarray:
    """Return the convex outline of the footprint, counterclockwise in the world's frame, float [N, 2]."""
    corners = np.concatenate([wing.polygon for wing in building.wings]) @ rotation(building.heading_deg).T
    return cv2.convexHull(corners.astype(np.float32), clockwise=False)[:, 0].astype(np.float64)


def _plan_view(place: int, index: int, first_azimuth_deg: float, settings: SceneSettings) -> View:
    rng = np.random.default_rng([settings.seed, place, index, 3])
    satellite = index == 0
    tilt = 0.0 if satellite else float(rng.uniform(25, 48))
    distance = 4000.0 if satellite else float(rng.uniform(155, 195))
    return View(
        kind="satellite" if satellite else "drone",
        azimuth_deg=0.0 if satellite else (first_azimuth_deg + 360 * (index + rng.uniform(-0.3, 0.3)) / settings.drone_views) % 360,
        tilt_deg=tilt,
        height_m=distance * float(np.cos(np.deg2rad(tilt))),
        span_m=float(rng.uniform(78, 92)) if satellite else 0.5 * distance,
        offset=(float(rng.uniform(-1, 1)) * settings.max_offset, float(rng.uniform(-1, 1)) * settings.max_offset),
        sun_azimuth_deg=float(rng.uniform(95, 265)),
        sun_elevation_deg=float(rng.uniform(32, 62)),
        ambient=float(rng.uniform(0.38, 0.75)),
        season=str(rng.choice(list(TREE_COLOURS))),
        surroundings_seed=(settings.seed, place, index, 4),
        photo_seed=(settings.seed, place, index, 5),
    )


def _aim(building: Building, view: View, settings: SceneSettings) -> Canvas:
    """Return a canvas on which the building's middle falls where the view wants it, or as near as keeps the building in the picture."""
    azimuth, elevation = np.deg2rad([view.sun_azimuth_deg, view.sun_elevation_deg])
    sun = np.array([np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])
    size = settings.size_px * _FINER
    distance = view.height_m / np.cos(np.deg2rad(view.tilt_deg))
    canvas = open_canvas(
        size, azimuth_deg=view.azimuth_deg, tilt_deg=view.tilt_deg, distance_m=distance, span_m=view.span_m, sun=sun, ambient=view.ambient
    )
    hull = _hull(building)
    corners = canvas.project(np.concatenate([on_plane(hull, 0.0), on_plane(hull, building.top + _ON_ROOF_M)]))
    low, high = corners.min(axis=0), corners.max(axis=0)
    room = np.maximum((size * (1 - 2 * _MARGIN) - (high - low)) / 2, 0)
    return shifted(canvas, size / 2 - (low + high) / 2 + np.clip(np.array(view.offset) * size, -room, room))


def _develop(pixels: np.ndarray, view: View, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Average the painting down and make a photo of it: fading, haze, colour cast, exposure, contrast, blur, noise."""
    rng = np.random.default_rng(view.photo_seed)
    mask = (pixels[..., 3] == TARGET_MARK).astype(np.float32)
    side = (size_px, size_px)
    sharp = cv2.resize(pixels[..., :3].astype(np.float32), side, interpolation=cv2.INTER_AREA) / np.float32(255)
    photo = np.asarray(cv2.GaussianBlur(sharp, (0, 0), rng.uniform(0.25, 0.6) * size_px / 128))
    photo = photo + (photo.mean(axis=2, keepdims=True) - photo) * np.float32(rng.uniform(0.0, 0.3))
    haze = rng.uniform(0, 0.15)
    photo = photo * (1 - haze) + haze * np.array([0.74, 0.78, 0.84], np.float32)
    photo = photo * (rng.uniform(0.78, 1.18) * rng.uniform(0.94, 1.06, 3)).astype(np.float32)
    photo = np.clip(photo, 0, 1) ** np.float32(rng.uniform(0.8, 1.15))
    photo = photo + rng.standard_normal(photo.shape, dtype=np.float32) * np.float32(rng.uniform(0.004, 0.016))
    covered = cv2.resize(mask, side, interpolation=cv2.INTER_AREA) >= 0.5
    return np.rint(np.clip(photo, 0, 1) * 255).astype(np.uint8), covered.astype(np.uint8)


def _write_place(root: Path, settings: SceneSettings, place: int) -> None:
    name = f"{place:04d}"
    test = place >= settings.places - settings.test_places
    for index, view in enumerate(plan_views(place, settings)):
        photo, mask = draw_view(place, view, settings)
        jpeg = _encoded(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, settings.jpeg_quality])
        png = _encoded(".png", mask * np.uint8(255), [])
        file = f"{name}.jpg" if view.kind == "satellite" else f"image-{index:02d}.jpeg"
        for split in (f"test/query_{view.kind}", f"test/gallery_{view.kind}") if test else (f"train/{view.kind}",):
            _write_bytes(root / split / name / file, jpeg)
            _write_bytes((root / "masks" / split / name / file).with_suffix(".png"), png)


def _encoded(suffix: str, image: np.ndarray, options: list[int]) -> bytes:
    done, encoded = cv2.imencode(suffix, np.ascontiguousarray(image), options)
    if not done:
        raise OSError(f"cv2 could not encode a picture of shape {image.shape} as {suffix}; check the OpenCV build.")
    return encoded.tobytes()


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _marker_text(settings: SceneSettings) -> str:
    return json.dumps({"version": _VERSION, **asdict(settings)}, indent=2) + "\n"


def _already_written(root: Path, settings: SceneSettings) -> bool:
    marker = root / MARKER
    if not marker.exists():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise FileExistsError(f"{root}: holds files but no {MARKER}, so it was not written by write_scenes. Name an empty or new folder.")
        return False
    made, wanted = json.loads(marker.read_text()), json.loads(_marker_text(settings))
    for key, value in wanted.items():
        if made.get(key) != value:
            raise ValueError(
                f"{root}: holds scenes made with {key} = {made.get(key)!r}, but {value!r} is asked for. Name another folder or remove this one."
            )
    return True
