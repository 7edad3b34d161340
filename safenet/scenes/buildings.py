"""The target buildings of the procedural scenes: what tells a place apart, their footprints, heights and colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

ROOF_COLOURS = MappingProxyType({
    "terracotta": (188, 92, 58), "slate": (84, 96, 116), "copper green": (104, 168, 142), "white membrane": (226, 226, 220),
    "blue metal": (60, 108, 176), "ochre": (206, 158, 62), "dark red": (128, 40, 44), "black gravel": (48, 46, 48),
    "tan": (194, 170, 134), "teal": (40, 124, 130), "rust": (150, 78, 40), "mauve tile": (138, 104, 130),
    "moss": (98, 116, 62), "pink granite": (206, 150, 142), "steel": (150, 164, 176), "navy": (42, 54, 104),
})  # fmt: skip
WALL_COLOURS = ((196, 180, 156), (168, 96, 76), (206, 204, 198), (134, 140, 148), (214, 196, 150), (120, 92, 78), (176, 190, 200))
WINDOW_STYLES = ("punched", "ribbon", "vertical")
ROOF_PATTERNS = ("pitched", "plant", "solar", "stripes", "sawtooth", "skylights", "panel", "penthouse", "dome", "helipad", "plain")


@dataclass(frozen=True)
class Wing:
    """An upright prism of a building, in the building's frame, metres; `sides` of 4 is the box itself, more are inscribed in it."""

    west: float
    south: float
    east: float
    north: float
    top: float
    colour: int = 0
    sides: int = 4

    @cached_property
    def polygon(self) -> np.ndarray:
        """Footprint, convex, counterclockwise, float [sides, 2]."""
        if self.sides == 4:
            return np.array([[self.west, self.south], [self.east, self.south], [self.east, self.north], [self.west, self.north]])
        angle = (np.arange(self.sides) + 0.5) * 2 * np.pi / self.sides
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) / np.cos(np.pi / self.sides) / 2
        return np.clip(circle, -0.5, 0.5) * self.size + self.centre

    @property
    def centre(self) -> np.ndarray:
        """Middle of the box, float [2]."""
        return np.array([(self.west + self.east) / 2, (self.south + self.north) / 2])

    @property
    def size(self) -> np.ndarray:
        """Width and depth of the box, float [2]."""
        return np.array([self.east - self.west, self.north - self.south])

    def inset(self, margin_m: float) -> Wing:
        """Return the wing with its walls moved inwards."""
        return replace(self, west=self.west + margin_m, south=self.south + margin_m, east=self.east - margin_m, north=self.north - margin_m)


@dataclass(frozen=True)
class Building:
    """What all views of a place share.

    Attributes
    ----------
    wings : tuple of Wing
        Boxes that touch but do not overlap, except a higher one that stands on a lower one.
    heading_deg : float
        Direction of the building's x axis, counterclockwise of east.
    roofs : float [2, 3]
        The colours a wing's `colour` counts in.
    wall : float [3]
        Colour of the walls.
    windows : str
        One of `WINDOW_STYLES`, or "none".
    pattern : str
        One of `ROOF_PATTERNS`.
    detail_seed : tuple of int
        Where the small things stand on the roof.
    """

    wings: tuple[Wing, ...]
    heading_deg: float
    roofs: np.ndarray
    wall: np.ndarray
    windows: str
    pattern: str
    detail_seed: tuple[int, ...]

    @property
    def top(self) -> float:
        """Height of the highest flat roof, metres."""
        return max(wing.top for wing in self.wings)

    @cached_property
    def levels(self) -> tuple[tuple[float, float, tuple[Wing, ...], np.ndarray], ...]:
        """Slices from the ground up: bottom, top, the wings that reach it, their outer walls float [N, 2, 2]."""
        tops = sorted({wing.top for wing in self.wings})
        slices = []
        for bottom, top in zip([0.0, *tops[:-1]], tops, strict=True):
            wings = tuple(wing for wing in self.wings if wing.top >= top)
            slices.append((bottom, top, wings, outer_walls(wings)))
        return tuple(slices)


def outer_walls(wings: tuple[Wing, ...]) -> np.ndarray:
    """Return the outline of the wings' union as pieces float [N, 2, 2], the inside on the left; wings that are not boxes keep all edges."""
    if len(wings) == 1 or any(wing.sides != 4 for wing in wings):
        return np.concatenate([np.stack([wing.polygon, np.roll(wing.polygon, -1, axis=0)], axis=1) for wing in wings])
    xs = np.unique([[wing.west, wing.east] for wing in wings])
    ys = np.unique([[wing.south, wing.north] for wing in wings])
    middle_x, middle_y = (xs[:-1] + xs[1:]) / 2, (ys[:-1] + ys[1:]) / 2
    inside = np.zeros((len(ys) + 1, len(xs) + 1), dtype=bool)
    for wing in wings:
        covered = ((middle_y > wing.south) & (middle_y < wing.north))[:, None] & ((middle_x > wing.west) & (middle_x < wing.east))
        inside[1:-1, 1:-1] |= covered
    pieces = [[[xs[x], ys[y]], [xs[x + 1], ys[y]]] for y, x in np.argwhere(inside[1:, 1:-1] & ~inside[:-1, 1:-1])]
    pieces += [[[xs[x + 1], ys[y]], [xs[x], ys[y]]] for y, x in np.argwhere(~inside[1:, 1:-1] & inside[:-1, 1:-1])]
    pieces += [[[xs[x], ys[y + 1]], [xs[x], ys[y]]] for y, x in np.argwhere(inside[1:-1, 1:] & ~inside[1:-1, :-1])]
    pieces += [[[xs[x], ys[y]], [xs[x], ys[y + 1]]] for y, x in np.argwhere(~inside[1:-1, 1:] & inside[1:-1, :-1])]
    return np.array(pieces)


def design_building(place: int, seed: int) -> Building:
    """Return the building of a place.

    Roof colour, footprint and roof pattern are dealt like cards, so that neighbours in number differ in all three.
    """
    rng = np.random.default_rng([seed, place, 0, 0])
    shape, pattern = _dealt(tuple(FOOTPRINTS), place, seed, 1), _dealt(ROOF_PATTERNS, place, seed, 2)
    if pattern == "pitched" and shape in ("octagon", "round"):
        pattern = "penthouse"
    wings = _scaled(FOOTPRINTS[shape](rng), rng.uniform(21.0, 27.0))
    main = _dealt(tuple(ROOF_COLOURS), place, seed, 3)
    contrast = {name: np.linalg.norm(np.subtract(colour, ROOF_COLOURS[main])) for name, colour in ROOF_COLOURS.items()}
    second = str(rng.choice([name for name in ROOF_COLOURS if contrast[name] > 90]))
    return Building(
        wings=_raised(wings, rng, level=pattern == "pitched"),
        heading_deg=float(rng.uniform(0, 180)),
        roofs=np.array([ROOF_COLOURS[main], ROOF_COLOURS[second]], dtype=float),
        wall=np.array(WALL_COLOURS[rng.integers(len(WALL_COLOURS))], dtype=float),
        windows=str(rng.choice(WINDOW_STYLES)),
        pattern=pattern,
        detail_seed=(seed, place, 0, 1),
    )


def _dealt(cards: tuple[str, ...], place: int, seed: int, purpose: int) -> str:
    """Return the card of a place when shuffled decks are dealt one after the other."""
    deck, card = divmod(place, len(cards))
    return cards[np.random.default_rng([seed, deck, 1, purpose]).permutation(len(cards))[card]]


def _scaled(wings: list[Wing], radius_m: float) -> list[Wing]:
    """Return the wings, drawn for a length of about 1, centred and with their far corner `radius_m` from the origin."""
    corners = np.concatenate([wing.polygon for wing in wings])
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    scale = radius_m / float(np.linalg.norm(corners - middle, axis=1).max())
    x, y = middle.tolist()
    return [
        replace(wing, west=(wing.west - x) * scale, south=(wing.south - y) * scale, east=(wing.east - x) * scale, north=(wing.north - y) * scale)
        for wing in wings
    ]


def _raised(wings: list[Wing], rng: np.random.Generator, *, level: bool) -> tuple[Wing, ...]:
    """Return the wings, whose `top` is a share, in metres; unless all are level one may be higher and of the second colour."""
    storeys = rng.uniform(7.0, 11.0) if level else rng.uniform(9.0, 17.0)
    raised = [replace(wing, top=storeys if level else storeys * wing.top) for wing in wings]
    if not level and rng.random() < 0.5:
        chosen = int(rng.integers(len(raised)))
        colour = int(len(wings) > 1 and rng.random() < 0.7)
        raised[chosen] = replace(raised[chosen], top=raised[chosen].top * rng.uniform(1.3, 1.7), colour=colour)
    return tuple(raised)


def _rectangle(rng: np.random.Generator) -> list[Wing]:
    return [Wing(0, 0, 1, rng.uniform(0.4, 0.8), 1)]


def _ell(rng: np.random.Generator) -> list[Wing]:
    thick = rng.uniform(0.26, 0.38)
    return [Wing(0, 0, 1, thick, 1), Wing(0, thick, thick, rng.uniform(0.65, 1.0), 1)]


def _tee(rng: np.random.Generator) -> list[Wing]:
    thick = rng.uniform(0.26, 0.36)
    return [Wing(0, 0, 1, thick, 1), Wing(0.5 - thick / 2, thick, 0.5 + thick / 2, rng.uniform(0.65, 0.9), 1)]


def _horseshoe(rng: np.random.Generator) -> list[Wing]:
    thick = rng.uniform(0.22, 0.3)
    left, right = rng.uniform(0.55, 0.95, 2)
    return [Wing(0, 0, 1, thick, 1), Wing(0, thick, thick, left, 1), Wing(1 - thick, thick, 1, right, 1)]


def _plus(rng: np.random.Generator) -> list[Wing]:
    thick, arm = rng.uniform(0.28, 0.4), rng.uniform(0.25, 0.36)
    return [Wing(0, 0, 1, thick, 1), Wing(0.5 - thick / 2, thick, 0.5 + thick / 2, thick + arm, 1),
            Wing(0.5 - thick / 2, -arm, 0.5 + thick / 2, 0, 1)]  # fmt: skip


def _courtyard(rng: np.random.Generator) -> list[Wing]:
    thick, depth = rng.uniform(0.2, 0.27), rng.uniform(0.75, 1.0)
    return [Wing(0, 0, 1, thick, 1), Wing(0, depth - thick, 1, depth, 1), Wing(0, thick, thick, depth - thick, 1),
            Wing(1 - thick, thick, 1, depth - thick, 1)]  # fmt: skip


def _aitch(rng: np.random.Generator) -> list[Wing]:
    thick, depth = rng.uniform(0.24, 0.32), rng.uniform(0.75, 1.0)
    low = rng.uniform(0.2, 0.8) * (depth - thick)
    return [Wing(0, 0, thick, depth, 1), Wing(1 - thick, 0, 1, depth, 1), Wing(thick, low, 1 - thick, low + thick * 0.9, 1)]


def _comb(rng: np.random.Generator) -> list[Wing]:
    thick, depth = rng.uniform(0.18, 0.22), rng.uniform(0.6, 0.8)
    teeth = [Wing(west, thick, west + thick, depth, 1) for west in (0.0, 0.5 - thick / 2, 1 - thick)]
    return [Wing(0, 0, 1, thick * 1.2, 1), *[replace(tooth, south=thick * 1.2) for tooth in teeth]]


def _zigzag(rng: np.random.Generator) -> list[Wing]:
    thick, depth = rng.uniform(0.24, 0.3), rng.uniform(0.75, 0.9)
    return [Wing(0, 0, 0.62, thick, 1), Wing(0.62 - thick, thick, 0.62, depth - thick, 1), Wing(0.62 - thick, depth - thick, 1, depth, 1)]


def _slabs(rng: np.random.Generator) -> list[Wing]:
    thick, gap, slide = rng.uniform(0.26, 0.34), rng.uniform(0.16, 0.24), rng.uniform(-0.2, 0.2)
    return [Wing(0, 0, 1, thick, 1), Wing(slide, thick + gap, 1 + slide, 2 * thick + gap, 1),
            Wing(0.4, thick, 0.6, thick + gap, 0.6, 1)]  # fmt: skip


def _steps(rng: np.random.Generator) -> list[Wing]:
    first, second, depth = rng.uniform(0.25, 0.4), rng.uniform(0.6, 0.72), rng.uniform(0.4, 0.6)
    return [Wing(0, 0, first, depth, 1), Wing(first, 0, second, depth, 1.4), Wing(second, 0, 1, depth, 0.75, 1)]


def _octagon(rng: np.random.Generator) -> list[Wing]:
    return [Wing(0, 0, 1, rng.uniform(0.75, 1.0), 1, sides=8)]


def _round(rng: np.random.Generator) -> list[Wing]:
    return [Wing(0, 0, 1, rng.uniform(0.7, 1.0), 1, sides=28)]


FOOTPRINTS: MappingProxyType[str, Callable[[np.random.Generator], list[Wing]]] = MappingProxyType({
    "rectangle": _rectangle, "ell": _ell, "tee": _tee, "horseshoe": _horseshoe, "plus": _plus, "courtyard": _courtyard,
    "aitch": _aitch, "comb": _comb, "zigzag": _zigzag, "slabs": _slabs, "steps": _steps, "octagon": _octagon, "round": _round,
})  # fmt: skip
