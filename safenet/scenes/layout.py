"""What stands where around a building of the procedural scenes: roads, car parks, houses, cars and trees, new in every view."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from safenet.scenes.buildings import Wing
from safenet.scenes.canvas import Canvas, on_plane, rotation

REACH_M = 170  # nothing farther than this from the target is seen


@dataclass(frozen=True)
class Prop:
    """A small thing on the ground: kind ("tree", "house" or "car"), plan position and radius in metres, heading, its own seed."""

    kind: str
    x: float
    y: float
    radius_m: float
    heading_deg: float
    seed: tuple[int, ...]

    @property
    def spot(self) -> tuple[float, float]:
        """Plan position."""
        return self.x, self.y


@dataclass(frozen=True)
class Streets:
    """Two families of parallel roads: `offsets_m[axis]` along the turned x (0) and y (1) axes, half widths, the whole's heading."""

    heading_deg: float
    offsets_m: tuple[np.ndarray, np.ndarray]
    half_width_m: float


@dataclass(frozen=True)
class Surroundings:
    """One view's surroundings, laid out around the hull of the target, float [N, 2] counterclockwise metres."""

    hull: np.ndarray
    season: str
    streets: Streets
    lots: tuple[tuple[float, float, float, float], ...]
    props: tuple[Prop, ...]
    seed: tuple[int, ...]


def lay_out(canvas: Canvas, hull: np.ndarray, season: str, seed: tuple[int, ...]) -> Surroundings:
    """Draw surroundings at random for what the canvas sees; nothing is put where the hull is.

    Parameters
    ----------
    canvas : Canvas
        In the world's frame.
    hull : float [N, 2]
        Convex outline of the target's footprint, counterclockwise, metres.
    season : str
        A key of `TREE_COLOURS`.
    seed : tuple of int
        Fixes everything drawn.
    """
    rng = np.random.default_rng(seed)
    streets = _plan_streets(hull, rng)
    free = _Free(hull, streets)
    lots = tuple(lot for _ in range(2) if (lot := _place_lot(free, streets, rng)) is not None)
    props = [prop for lot in lots for prop in _park(lot, streets.heading_deg, rng)]
    props += _drive(streets, rng)
    props += _scatter(canvas, free, "house", rng, count=int(rng.integers(60, 360)), radii=(5.5, 8.0))
    props += _scatter(canvas, free, "tree", rng, count=int(rng.integers(300, 1300)), radii=(1.4, 3.6))
    return Surroundings(hull, season, streets, lots, tuple(_in_sight(canvas, props)), seed)


class _Free:
    """Which square metres of the ground are still free; lives while one view is laid out."""

    def __init__(self, hull: np.ndarray, streets: Streets) -> None:
        self._map = np.full((2 * REACH_M, 2 * REACH_M), 255, np.uint8)
        cv2.fillConvexPoly(self._map, self._cells(hull), 0)
        turn = rotation(streets.heading_deg)
        for axis, offsets in enumerate(streets.offsets_m):
            for offset in offsets:
                ends = np.array([[-300.0, offset], [300.0, offset]])
                line = self._cells((ends if axis == 0 else ends[:, ::-1]) @ turn.T)
                cv2.line(self._map, line[0].tolist(), line[1].tolist(), 0, round(2 * streets.half_width_m + 4))
        self._distance = cv2.distanceTransform(self._map, cv2.DIST_L2, 3)

    def room(self, spots: np.ndarray) -> np.ndarray:
        """Return the metres from spots float [N, 2] to the next thing, float [N]."""
        x, y = np.clip(self._cells(spots), 0, 2 * REACH_M - 1).T
        return self._distance[y, x]

    def take(self, polygon: np.ndarray) -> None:
        """Mark a convex polygon float [N, 2] as taken."""
        cv2.fillConvexPoly(self._map, self._cells(polygon), 0)

    def settle(self) -> None:
        """Make `room` know what was taken."""
        self._distance = cv2.distanceTransform(self._map, cv2.DIST_L2, 3)

    @staticmethod
    def _cells(points: np.ndarray) -> np.ndarray:
        return np.rint(points + REACH_M).astype(np.int32)


def _plan_streets(hull: np.ndarray, rng: np.random.Generator) -> Streets:
    heading, half_width = float(rng.uniform(0, 90)), float(rng.uniform(2.6, 5.0))
    local = hull @ rotation(heading)
    offsets = []
    for axis in (1, 0):  # roads along x keep clear of the hull in y, and the other way round
        low, high = local[:, axis].min() - half_width - 3, local[:, axis].max() + half_width + 3
        below = low - rng.uniform(1, 22) - np.cumsum([0.0, *rng.uniform(45, 90, 2)])
        above = high + rng.uniform(1, 22) + np.cumsum([0.0, *rng.uniform(45, 90, 2)])
        lines = np.concatenate([below[rng.random() < 0.4 :], above[rng.random() < 0.4 :]])
        offsets.append(lines[np.abs(lines) < REACH_M])
    return Streets(heading, (offsets[0], offsets[1]), half_width)


def _place_lot(free: _Free, streets: Streets, rng: np.random.Generator) -> tuple[float, float, float, float] | None:
    size = np.array([rng.uniform(20, 44), rng.choice([11.0, 17.0, 23.0])])
    size = size[:: rng.choice([1, -1])]
    spots = rng.uniform(-75, 75, (30, 2))
    fits = free.room(spots @ rotation(streets.heading_deg).T) > np.linalg.norm(size) / 2
    if not fits.any():
        return None
    west, south = spots[fits][0] - size / 2
    box = Wing(float(west), float(south), float(west + size[0]), float(south + size[1]), 0.0)
    free.take(box.inset(-1.0).polygon @ rotation(streets.heading_deg).T)
    free.settle()
    return box.west, box.south, box.east, box.north


def _park(lot: tuple[float, float, float, float], heading_deg: float, rng: np.random.Generator) -> list[Prop]:
    west, south, east, north = lot
    along_x = east - west > north - south
    length, depth = (east - west, north - south) if along_x else (north - south, east - west)
    rows = [2.8, depth - 2.8] if depth < 20 else [2.8, depth / 2 - 2.6, depth / 2 + 2.6, depth - 2.8]
    fullness, cars = rng.uniform(0.2, 0.85), []
    for row in rows:
        for slot in np.arange(1.5, length - 1.4, 2.7):
            if rng.random() < fullness:
                spot = np.array([west + slot, south + row] if along_x else [west + row, south + slot])
                x, y = rotation(heading_deg) @ spot
                cars.append(Prop("car", float(x), float(y), 2.5, heading_deg + (90.0 if along_x else 0.0), _own_seed(rng)))
    return cars


def _drive(streets: Streets, rng: np.random.Generator) -> list[Prop]:
    cars = []
    for axis, offsets in enumerate(streets.offsets_m):
        for offset in offsets:
            for place in rng.uniform(-120, 120, rng.integers(1, 7)):
                spot = np.array([place, offset + streets.half_width_m * rng.choice([-0.45, 0.45])])
                x, y = rotation(streets.heading_deg) @ (spot if axis == 0 else spot[::-1])
                cars.append(Prop("car", float(x), float(y), 2.5, streets.heading_deg + 90.0 * axis, _own_seed(rng)))
    return cars


def _scatter(canvas: Canvas, free: _Free, kind: str, rng: np.random.Generator, *, count: int, radii: tuple[float, float]) -> list[Prop]:
    """Put things where there is room; houses keep clear of each other, trees stand in loose groups."""
    spots = rng.uniform(-REACH_M, REACH_M, (count, 2))
    if kind == "tree":
        groups = rng.uniform(-REACH_M, REACH_M, (max(4, count // 18), 2))
        grouped = groups[rng.integers(len(groups), size=count)] + rng.normal(0, 7, (count, 2))
        spots = np.where(rng.random((count, 1)) < 0.75, grouped, spots)
    radius = rng.uniform(*radii, count)
    seeds = rng.integers(2**31, size=count)
    headings = rng.integers(4, size=count) * 90.0 + rng.uniform(0, 90)
    fits = (free.room(spots) > radius + (1.0 if kind == "tree" else 2.0)) & (np.abs(spots) < REACH_M - 8).all(axis=1)
    chosen: list[int] = []
    for index in np.flatnonzero(fits & _visible(canvas, spots)):
        apart = np.linalg.norm(spots[chosen] - spots[index], axis=1)
        if kind == "tree" or (apart > radius[chosen] + radius[index] + 2).all():
            chosen.append(int(index))
    if kind == "house":
        for house in chosen:
            free.take(np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * radius[house] * 0.8 + spots[house])
        free.settle()
    rows = np.column_stack([spots, radius, headings])[chosen].tolist()
    return [Prop(kind, x, y, size, heading, (int(seeds[i]),)) for (x, y, size, heading), i in zip(rows, chosen, strict=True)]


def _in_sight(canvas: Canvas, props: list[Prop]) -> list[Prop]:
    seen = _visible(canvas, np.array([prop.spot for prop in props]).reshape(-1, 2))
    return [prop for prop, visible in zip(props, seen, strict=True) if visible]


def _visible(canvas: Canvas, spots: np.ndarray) -> np.ndarray:
    margin = canvas.size_px * 0.08
    pixels = canvas.project(on_plane(spots, 1.0))
    return np.all((pixels > -margin) & (pixels < canvas.size_px + margin), axis=-1)


def _own_seed(rng: np.random.Generator) -> tuple[int, ...]:
    return (int(rng.integers(2**31)),)
