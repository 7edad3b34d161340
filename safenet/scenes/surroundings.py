"""How the surroundings of the procedural scenes are painted: ground, roads, car parks, houses, cars and trees."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from safenet.scenes.buildings import Building, Wing
from safenet.scenes.canvas import Canvas, on_plane, rotation
from safenet.scenes.layout import REACH_M, Prop, Streets, Surroundings
from safenet.scenes.painting import cast_building, paint_building

GROUND_COLOURS = MappingProxyType({
    "lawn": (98, 116, 74), "meadow": (116, 122, 84), "dry grass": (150, 142, 104), "soil": (134, 114, 92), "gravel": (156, 150, 140),
    "asphalt": (128, 128, 128), "paving": (166, 162, 156), "scrub": (84, 96, 66), "crop": (124, 130, 78), "sand": (176, 164, 138),
})  # fmt: skip
GREEN = ("lawn", "meadow", "dry grass", "scrub", "crop")
TREE_COLOURS = MappingProxyType({
    "spring": ((98, 122, 70), (116, 136, 82), (84, 106, 62)),
    "summer": ((64, 88, 54), (76, 98, 58), (54, 76, 52)),
    "autumn": ((142, 106, 58), (156, 126, 68), (92, 92, 56)),
    "winter": ((104, 96, 86), (90, 86, 78), (66, 78, 60)),
})  # fmt: skip
SEASON_TINT = MappingProxyType({"spring": (0.97, 1.06, 0.92), "summer": (0.94, 1.0, 0.92), "autumn": (1.12, 1.0, 0.9), "winter": (1.08, 0.98, 1.02)})
HOUSE_ROOFS = ((122, 96, 84), (110, 108, 108), (134, 120, 104), (92, 88, 88), (126, 102, 92), (140, 134, 126))
CAR_COLOURS = ((208, 208, 208), (60, 62, 66), (120, 124, 128), (150, 44, 40), (48, 66, 110), (228, 226, 220), (30, 30, 32))


def paint_ground(canvas: Canvas, scene: Surroundings) -> None:
    """Paint fields, the target's yard, roads and car parks."""
    rng = np.random.default_rng([*scene.seed, 1])
    turned = canvas.moved((0.0, 0.0), scene.streets.heading_deg)
    _paint_fields(turned, scene, rng)
    _paint_apron(canvas, scene, rng)
    _paint_streets(turned, scene.streets, rng)
    for lot in scene.lots:
        _paint_lot(turned, lot, rng)


def cast_props(canvas: Canvas, scene: Surroundings) -> None:
    """Lay the shadows of houses, trees and cars on the ground."""
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for prop in scene.props:
        if prop.kind == "house":
            cast_building(canvas.moved(prop.spot, prop.heading_deg), _house(prop))
        elif prop.kind == "car":
            canvas.moved(prop.spot, prop.heading_deg).cast(_CAR.polygon, 1.2)
        else:
            canvas.cast(circle * prop.radius_m * 0.9 + prop.spot, prop.radius_m * 2.2)


def split_by_target(canvas: Canvas, scene: Surroundings) -> tuple[list[Prop], list[Prop]]:
    """Return the props behind the target and those before it, each the farthest first.

    Notes
    -----
    A prop outside the convex hull has a hull edge's line between it and the target. It is before the target just when the
    camera is on the prop's side of that line.
    """
    spots = np.array([prop.spot for prop in scene.props]).reshape(-1, 2)
    edge = np.argmax(_beyond(scene.hull, spots), axis=1)
    before = _beyond(scene.hull, canvas.eye[None, :2])[0, edge] > 0
    far_first = np.argsort(-np.linalg.norm(spots - canvas.eye[:2], axis=1)).tolist()
    return [scene.props[i] for i in far_first if not before[i]], [scene.props[i] for i in far_first if before[i]]


def paint_prop(canvas: Canvas, prop: Prop, season: str) -> None:
    """Paint one small thing."""
    dark = canvas.ambient * 1.25 if _in_shadow(canvas, prop) else 1.0
    if prop.kind == "tree":
        _paint_tree(canvas, prop, season, dark)
        return
    own = canvas.moved(prop.spot, prop.heading_deg)
    if prop.kind == "house":
        paint_building(own, _house(prop), mark=10)
        return
    colour = np.array(CAR_COLOURS[prop.seed[-1] % len(CAR_COLOURS)]) * dark
    for body, bottom, sides in ((_CAR, 0.1, colour * 0.6), (_CABIN, _CAR.top, np.array([40.0, 48.0, 56.0]) * dark)):
        own.fill_around(np.concatenate([on_plane(body.polygon, bottom), on_plane(body.polygon, body.top)]), sides, 4)
        own.fill_each(on_plane(body.inset(0.1).polygon[None], body.top), colour, 4)


_CAR = Wing(-2.3, -0.95, 2.3, 0.95, 1.2)
_CABIN = Wing(-1.6, -0.85, 1.0, 0.85, 1.45)
_LUMPS, _TREE_SHAPES = 10, 101


def _beyond(hull: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return how far points [P, 2] are outside each of the hull's edges, float [P, N]."""
    along = np.roll(hull, -1, axis=0) - hull
    outward = np.stack([along[:, 1], -along[:, 0]], axis=1) / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    return ((points[:, None] - hull) * outward).sum(axis=-1)


def _in_shadow(canvas: Canvas, prop: Prop) -> bool:
    x, y = np.rint(canvas.project(np.array([prop.x, prop.y, 0.0]))).astype(int)
    inside = 0 <= x < canvas.size_px and 0 <= y < canvas.size_px
    return prop.kind == "car" and inside and bool(canvas.shadow[y, x])


def _house(prop: Prop) -> Building:
    rng = np.random.default_rng(prop.seed)
    half = prop.radius_m * np.array([0.85, rng.uniform(0.5, 0.62)])
    wings = [Wing(-half[0], -half[1], half[0], half[1], float(rng.uniform(3.0, 5.0)))]
    roof = np.array(HOUSE_ROOFS[rng.integers(len(HOUSE_ROOFS))], float) * rng.uniform(0.8, 1.2)
    wall = np.array([186.0, 178.0, 166.0]) * rng.uniform(0.75, 1.15)
    return Building(tuple(wings), 0.0, np.stack([roof, roof]), wall, "punched", str(rng.choice(["pitched", "pitched", "plain"])), ())


def _paint_tree(canvas: Canvas, prop: Prop, season: str, dark: float) -> None:
    lumps, lump_radii, brightness = (values[prop.seed[0] % _TREE_SHAPES] for values in _tree_shapes())
    colours = TREE_COLOURS[season]
    colour = np.array(colours[prop.seed[0] % len(colours)]) * (brightness * dark)
    order = np.argsort(lumps @ canvas.sun)  # the sunny lumps last, on top
    light = np.append(0.55, 0.86 + 0.42 * lumps[order] @ canvas.sun)
    radii = np.append(0.92, lump_radii) * prop.radius_m
    centres = np.vstack([np.zeros(3), lumps[order]]) * prop.radius_m + [prop.x, prop.y, prop.radius_m * 1.4]
    canvas.balls(centres, radii, light[:, None] * colour, mark=60)


@lru_cache(maxsize=1)
def _tree_shapes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the crowns trees are picked from: lumps [shape, lump, 3] and their radii, in crown radii, and brightness [shape]."""
    rng = np.random.default_rng(1652)
    lumps = rng.uniform(-0.68, 0.68, (_TREE_SHAPES, _LUMPS, 3))
    return lumps, rng.uniform(0.2, 0.42, (_TREE_SHAPES, _LUMPS)), rng.uniform(0.8, 1.15, _TREE_SHAPES)


def _paint_fields(turned: Canvas, scene: Surroundings, rng: np.random.Generator) -> None:
    """Fill every block between the roads with plots."""
    tint = np.array(SEASON_TINT[scene.season])
    kinds = tuple(GROUND_COLOURS)
    weights = np.cumsum(rng.dirichlet([0.25 if kind == "asphalt" else 0.7 for kind in kinds]))
    edges = [np.sort(np.concatenate([[-420.0, 420.0], offsets])) for offsets in scene.streets.offsets_m[::-1]]
    for west, east in pairwise(edges[0]):
        for south, north in pairwise(edges[1]):
            for plot in _divided(Wing(west, south, east, north, 0.0), rng):
                _paint_plot(turned, plot, kinds[int(np.searchsorted(weights, rng.random() * weights[-1]))], tint, rng)


def _divided(block: Wing, rng: np.random.Generator) -> list[Wing]:
    """Return the block cut twice, now across and now along."""
    plots = []
    for west, east in pairwise(_cuts(block.west, block.east, rng)):
        plots += [Wing(west, south, east, north, 0.0) for south, north in pairwise(_cuts(block.south, block.north, rng))]
    return plots


def _cuts(low: float, high: float, rng: np.random.Generator) -> list[float]:
    """Return the ends of a stretch and up to three places between them, near enough to the target to be seen."""
    between = rng.uniform(-100, 100, rng.integers(0, 4))
    return [low, *np.sort(between[(between > low) & (between < high)]).tolist(), high]


def _paint_plot(turned: Canvas, plot: Wing, kind: str, tint: np.ndarray, rng: np.random.Generator) -> None:
    colour = np.array(GROUND_COLOURS[kind], float) * rng.uniform(0.85, 1.15) * (tint if kind in GREEN else 1.0)
    mark = 14 if kind in ("asphalt", "paving") else 34
    turned.fill(on_plane(plot.polygon[None], 0.0), colour, mark)
    seen = turned.project(on_plane(plot.polygon, 0.0))
    if kind not in ("crop", "soil") or np.any(seen.max(axis=0) < 0) or np.any(seen.min(axis=0) > turned.size_px):
        return
    rows = np.arange(max(plot.west, -REACH_M) + 1, min(plot.east, REACH_M) - 1, 2.6)
    strips = _strips(rows, rows + 1.1, max(plot.south, -REACH_M), min(plot.north, REACH_M), 1)
    turned.fill(strips, colour * 0.88, mark)


def _paint_apron(canvas: Canvas, scene: Surroundings, rng: np.random.Generator) -> None:
    """Paint a yard around the target, of a random ground, so that the plot it stands on says nothing."""
    if rng.random() < 0.25:
        return
    kind = str(rng.choice(["lawn", "asphalt", "paving", "gravel", "meadow"]))
    colour = np.array(GROUND_COLOURS[kind], float) * rng.uniform(0.85, 1.15)
    colour = colour * SEASON_TINT[scene.season] if kind in GREEN else colour
    turn = rotation(scene.streets.heading_deg)
    local = scene.hull @ turn
    low, high = local.min(axis=0) - rng.uniform(1, 9, 2), local.max(axis=0) + rng.uniform(1, 9, 2)
    yard = Wing(low[0], low[1], high[0], high[1], 0.0).polygon @ turn.T
    canvas.fill(on_plane(yard[None], 0.0), colour, 14 if kind in ("asphalt", "paving") else 34)


def _paint_streets(turned: Canvas, streets: Streets, rng: np.random.Generator) -> None:
    """Paint pavements first, then carriageways, then markings, so that crossings are open."""
    asphalt = np.full(3, 88.0) * rng.uniform(0.75, 1.1) + rng.uniform(-5, 5, 3)
    half, walk = streets.half_width_m, rng.choice([0.0, 1.6, 2.4])
    for width, colour in ((half + walk, np.array([172.0, 166.0, 158.0])), (half, asphalt)):
        for axis, offsets in enumerate(streets.offsets_m):
            turned.fill_each(_strips(offsets - width, offsets + width, -420.0, 420.0, axis), colour, 12)
    paint = np.array([[232.0, 232.0, 226.0], [226.0, 192.0, 84.0]][rng.integers(2)])
    dashes = np.arange(-160.0, 160.0, 7.0)
    for axis, offsets in enumerate(streets.offsets_m):
        open_road = np.all(np.abs(dashes[:, None] + 1.7 - streets.offsets_m[1 - axis]) > half + 3, axis=1)
        for offset in offsets:
            turned.fill(_strips(offset - 0.22, offset + 0.22, dashes[open_road], dashes[open_road] + 3.4, axis), paint, 8)


def _paint_lot(turned: Canvas, lot: tuple[float, float, float, float], rng: np.random.Generator) -> None:
    west, south, east, north = lot
    turned.fill(on_plane(Wing(*lot, 0.0).polygon[None], 0.0), np.full(3, 104.0) * rng.uniform(0.8, 1.25), 12)
    along_x = east - west > north - south
    start, length, side, depth = (west, east - west, south, north - south) if along_x else (south, north - south, west, east - west)
    rows = [(0.2, 5.2), (depth - 5.2, depth - 0.2)] + ([(depth / 2 - 5.0, depth / 2 + 5.0)] if depth >= 20 else [])
    slots = start + np.arange(0.15, length, 2.7)
    for low, high in rows:
        lines = _strips(side + low, side + high, slots - 0.1, slots + 0.1, 0 if along_x else 1)
        turned.fill(lines, np.array([214.0, 214.0, 210.0]), 8)


def _strips(low: float | np.ndarray, high: float | np.ndarray, start: float | np.ndarray, stop: float | np.ndarray, axis: int) -> np.ndarray:
    """Return rectangles on the ground, float [N, 4, 3], that run from `start` to `stop` along x (axis 0) or y (axis 1)."""
    along = np.broadcast_arrays(start, stop, stop, start, low, low, high, high)
    first, second = np.stack(along[:4], axis=-1).reshape(-1, 4), np.stack(along[4:], axis=-1).reshape(-1, 4)
    return np.stack([first, second, np.zeros_like(first)] if axis == 0 else [second, first, np.zeros_like(first)], axis=-1)
