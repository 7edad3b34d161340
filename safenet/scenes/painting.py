"""How a building of the procedural scenes is painted: walls, windows, roofs and what stands on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from safenet.scenes.buildings import Building, Wing, outer_walls
from safenet.scenes.canvas import Canvas, on_plane

WINDOW_GRIDS = MappingProxyType(
    {  # metres from axis to axis along and up the wall, then the share of each that is glass
        "punched": (3.6, 3.8, 0.5, 0.5),
        "ribbon": (60.0, 3.8, 0.94, 0.42),
        "vertical": (3.2, 60.0, 0.45, 0.86),
    }
)


def cast_building(canvas: Canvas, building: Building) -> None:
    """Lay the building's shadow on the ground; the canvas is in the building's frame."""
    for wing in building.wings:
        rise = 0.25 * min(wing.size) if building.pattern == "pitched" else 0.0
        canvas.cast(wing.polygon, wing.top + rise / 2)


def paint_building(canvas: Canvas, building: Building, mark: int) -> None:
    """Paint walls and roofs from the ground up; the canvas is in the building's frame.

    Notes
    -----
    The camera is above every roof, so a ray meets the higher slice first: painting slices upwards, walls before roofs, hides
    exactly what is hidden.
    """
    for bottom, top, wings, walls in building.levels:
        _paint_walls(canvas, building, walls, (bottom, top), mark)
        roofs = [wing for wing in wings if wing.top == top] or list(wings)
        for wing in wings:
            canvas.fill_each(on_plane(wing.polygon[None], top), building.roofs[wing.colour], mark)
        _paint_parapet(canvas, building, walls, top, mark)
        PATTERNS[building.pattern](canvas, building, [wing for wing in roofs if wing.top == top], mark)
        higher = [(wing.polygon, wing.top) for wing in building.wings if wing.top > top]
        if higher:
            canvas.darken_roof([wing.polygon for wing in roofs], top, higher)


def _paint_walls(canvas: Canvas, building: Building, walls: np.ndarray, span: tuple[float, float], mark: int) -> None:
    along = walls[:, 1] - walls[:, 0]
    outward = np.stack([along[:, 1], -along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    to_eye = canvas.eye[:2] - walls.mean(axis=1)
    far_first = np.argsort(-np.linalg.norm(to_eye, axis=1))
    for index in far_first[(to_eye * outward).sum(axis=1)[far_first] > 0]:
        light = canvas.light(np.append(outward[index], 0.0))
        start, end = walls[index]
        face = np.array([[*start, span[0]], [*end, span[0]], [*end, span[1]], [*start, span[1]]])
        canvas.fill(face[None], building.wall * light, mark)
        glass = window_quads(start, end, span, building.windows)
        if len(glass):
            canvas.fill(glass, np.array([56.0, 66.0, 80.0]) * (0.6 + 0.5 * light), mark)


def window_quads(start: np.ndarray, end: np.ndarray, span: tuple[float, float], style: str) -> np.ndarray:
    """Return the windows float [N, 4, 3] of a wall between two plan points, over the heights `span`."""
    length = float(np.linalg.norm(end - start))
    if style == "none" or length < 2.5:
        return np.empty((0, 4, 3))
    bay, storey, width, height = WINDOW_GRIDS[style]
    columns, rows = max(1, round(length / bay)), max(1, round((span[1] - span[0]) / storey))
    across = ((np.arange(columns) + 0.5)[:, None] + np.array([-0.5, 0.5, 0.5, -0.5]) * width) / columns
    up = ((np.arange(rows) + 0.5)[:, None] + np.array([-0.5, -0.5, 0.5, 0.5]) * height) / rows
    quads = np.empty((rows, columns, 4, 3))
    quads[..., :2] = start + across[..., None] * (end - start)
    quads[..., 2] = (span[0] + up * (span[1] - span[0]))[:, None]
    return quads.reshape(-1, 4, 3)


def _paint_parapet(canvas: Canvas, building: Building, walls: np.ndarray, top: float, mark: int) -> None:
    along = walls[:, 1] - walls[:, 0]
    inward = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True) * 0.6
    strips = np.stack([walls[:, 0], walls[:, 1], walls[:, 1] + inward, walls[:, 0] + inward], axis=1)
    canvas.fill_each(on_plane(strips, top), 0.5 * building.roofs[0] + 0.5 * building.wall, mark)


def paint_box(canvas: Canvas, wing: Wing, bottom: float, colour: np.ndarray, mark: int) -> None:
    """Paint a plain box from `bottom` to the wing's top, with its shadow on the plane below it."""
    shade = canvas.ambient * 0.8
    fallen = wing.polygon - canvas.sun[:2] / canvas.sun[2] * (wing.top - bottom) * 0.8
    canvas.fill_each(on_plane(np.stack([fallen]), bottom), colour * 0.35 * shade + 20, mark)
    box = Building((wing,), 0.0, np.stack([colour] * 2), colour * 0.9, "none", "plain", ())
    _paint_walls(canvas, box, outer_walls((wing,)), (bottom, wing.top), mark)
    canvas.fill_each(on_plane(wing.polygon[None], wing.top), colour, mark)


def paint_pitched(canvas: Canvas, building: Building, wings: list[Wing], mark: int) -> None:
    """Cover each box with a hipped roof; a ridge that meets another wing runs on into that wing's slope."""
    for wing in wings:
        half = float(min(wing.size)) / 2
        swap = wing.size[1] > wing.size[0]
        ends = [half, half]
        for side, sign in enumerate((-1, 1)):
            probe = wing.centre + np.array([0.0, 1.0] if swap else [1.0, 0.0]) * sign * (max(wing.size) / 2 + 0.3)
            if any(np.all(np.abs(probe - other.centre) < other.size / 2) for other in building.wings if other is not wing):
                ends[side] = -half
        _paint_hip(canvas, wing, swap, ends, building.roofs[wing.colour], mark)


def _paint_hip(canvas: Canvas, wing: Wing, swap: bool, ends: list[float], colour: np.ndarray, mark: int) -> None:
    half, rise = float(min(wing.size)) / 2, float(min(wing.size)) * 0.25
    length = max(wing.size) / 2
    low = np.array([[-length, -half, 0], [length, -half, 0], [length, half, 0], [-length, half, 0]])
    ridge = np.array([[-length + ends[0], 0, rise], [length - ends[1], 0, rise]])
    faces = [[low[0], low[1], ridge[1], ridge[0]], [low[2], low[3], ridge[0], ridge[1]]]
    faces += [[low[3], low[0], ridge[0], ridge[0]]] * (ends[0] > 0) + [[low[1], low[2], ridge[1], ridge[1]]] * (ends[1] > 0)
    for face in np.array(faces):
        if swap:
            face = np.stack([-face[:, 1], face[:, 0], face[:, 2]], axis=1)
        normal = np.cross(face[1] - face[0], face[2] - face[0])
        canvas.fill_each((face + np.append(wing.centre, wing.top))[None], colour * canvas.light(normal / np.linalg.norm(normal)), mark)


def _paint_plain(canvas: Canvas, building: Building, wings: list[Wing], mark: int) -> None:
    """Leave the roof as it is."""


def _paint_plant(canvas: Canvas, building: Building, wings: list[Wing], mark: int) -> None:
    """Air handlers: grey boxes where the place's seed puts them."""
    rng = np.random.default_rng(building.detail_seed)
    for wing in building.wings:  # drawn for every wing, so that those of one level do not depend on the others
        sizes = rng.uniform(2.0, 4.6, (max(2, round(wing.size.prod() / 80)), 2))
        middles = wing.centre + rng.uniform(-0.5, 0.5, sizes.shape) * np.maximum(_floor(wing).size - sizes - 2.5, 0)
        greys = rng.uniform(130, 220, len(sizes))
        boxes: list[tuple[Wing, float]] = []
        for (x, y), (width, depth), grey in zip(middles.tolist(), sizes.tolist(), greys.tolist(), strict=True):
            box = Wing(x - width / 2, y - depth / 2, x + width / 2, y + depth / 2, wing.top + 2.0)
            if all(np.any(np.abs(box.centre - other.centre) > (box.size + other.size) / 2 + 0.8) for other, _ in boxes):
                boxes.append((box, grey))
        for box, grey in sorted(boxes, key=lambda each: -float(np.linalg.norm(each[0].centre - canvas.eye[:2]))):
            if wing in wings:
                paint_box(canvas, box, wing.top, np.array([0.98, 1.0, 1.02]) * grey, mark)


def _floor(wing: Wing) -> Wing:
    """Return the box that the wing's roof holds: the wing itself, or what fits into its circle."""
    return wing if wing.sides == 4 else replace(wing.inset(float(min(wing.size)) * 0.16), sides=4)


def _bands(wing: Wing, period_m: float, share: float, margin_m: float) -> np.ndarray:
    """Return strips across the wing's longer side, float [N, 4, 2]."""
    inner = _floor(wing).inset(margin_m)
    swap = wing.size[1] > wing.size[0]
    length, depth = (inner.size[::-1] if swap else inner.size) / 2
    count = max(2, round(2 * length / period_m))
    start = -length + np.arange(count) * 2 * length / count
    stop = start + 2 * length / count * share
    low, high = np.full(count, -depth), np.full(count, depth)
    strips = np.stack([np.stack([start, low], 1), np.stack([stop, low], 1), np.stack([stop, high], 1), np.stack([start, high], 1)], axis=1)
    return (strips[..., ::-1] if swap else strips) + wing.centre


def _paint_solar(canvas: Canvas, building: Building, wings: list[Wing], mark: int) -> None:
    """Rows of dark panels."""
    for wing in wings:
        canvas.fill(on_plane(_bands(wing, 3.6, 0.62, 1.8), wing.top), np.array([28.0, 40.0, 78.0]), mark)


def _paint_stripes(canvas: Canvas, building: Building, wings: list[Wing], mark: int) -> None:
    """Broad bands of the other roof colour."""
    for wing in wings:
        canvas.fill(on_plane(_bands(wing, 9.0, 0.45, 0.8), wing.top), building.roofs[1 - wing.colour], mark)


def _paint_sawtooth(canvas: Canvas, building: Building, wings: list[Wing], mark: int) -> None:
    """A factory's north lights: each bay has a lit and a shaded slope."""
    for wing in wings:
        canvas.fill(on_plane(_bands(wing, 5.5, 0.4, 0.6), wing.top), building.roofs[wing.colour] * 0.55, mark)
        canvas.fill(on_plane(_bands(wing, 5.5, 0.12, 0.6), wing.top), np.array([196.0, 214.0, 224.0]), mark)


def _paint_skylights(canvas: Canvas, building: Building, wings: list[Wing], mark: int) -> None:
    """A row of bright panes along the middle."""
    for wing in wings:
        canvas.fill(on_plane(_bands(wing, 5.0, 0.55, min(wing.size) * 0.34), wing.top), np.array([206.0, 226.0, 236.0]), mark)


def _paint_panel(canvas: Canvas, building: Building, wings: list[Wing], mark: int) -> None:
    """An inner field of the other roof colour."""
    for wing in wings:
        canvas.fill_each(on_plane(wing.inset(min(wing.size) * 0.22).polygon[None], wing.top), building.roofs[1 - wing.colour], mark)


def _paint_penthouse(canvas: Canvas, building: Building, wings: list[Wing], mark: int) -> None:
    """A set-back storey of the other roof colour."""
    for wing in wings:
        storey = replace(wing.inset(min(wing.size) * 0.28), top=wing.top + 3.5)
        paint_box(canvas, storey, wing.top, building.roofs[1 - wing.colour], mark)


def _paint_dome(canvas: Canvas, building: Building, wings: list[Wing], mark: int) -> None:
    """A dome of the other roof colour on the largest wing, as rings of rising discs."""
    wing = max(building.wings, key=lambda each: float(min(each.size)))
    if wing not in wings:
        return
    radius = min(wing.size) * 0.46
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for step in np.linspace(0, 0.95, 9):
        ring = circle * radius * np.sqrt(1 - step**2) + wing.centre + canvas.sun[:2] * radius * 0.12 * step
        light = 0.72 + 0.42 * step
        canvas.fill(on_plane(ring, wing.top + radius * 0.75 * step)[None], building.roofs[1 - wing.colour] * light, mark)


def _paint_helipad(canvas: Canvas, building: Building, wings: list[Wing], mark: int) -> None:
    """A landing circle with its letter on the largest wing."""
    wing = max(building.wings, key=lambda each: float(min(each.size)))
    if wing not in wings:
        return
    radius = min(wing.size) * 0.42
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for share, colour in ((1.0, (232, 232, 228)), (0.84, (86, 92, 98))):
        canvas.fill(on_plane(circle * radius * share + wing.centre, wing.top)[None], np.array(colour, float), mark)
    bars = ((-0.4, -0.5, -0.2, 0.5), (0.2, -0.5, 0.4, 0.5), (-0.2, -0.1, 0.2, 0.1))
    for bar in bars:
        letter = np.array([[bar[0], bar[1]], [bar[2], bar[1]], [bar[2], bar[3]], [bar[0], bar[3]]]) * radius + wing.centre
        canvas.fill(on_plane(letter, wing.top)[None], np.array([238.0, 222.0, 120.0]), mark)


PATTERNS: MappingProxyType[str, Callable[[Canvas, Building, list[Wing], int], None]] = MappingProxyType({
    "pitched": paint_pitched,
    "plant": _paint_plant,
    "solar": _paint_solar,
    "stripes": _paint_stripes,
    "sawtooth": _paint_sawtooth,
    "skylights": _paint_skylights,
    "panel": _paint_panel,
    "penthouse": _paint_penthouse,
    "dome": _paint_dome,
    "helipad": _paint_helipad,
    "plain": _paint_plain,
})  # fmt: skip
