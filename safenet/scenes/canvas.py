"""The canvas of a procedural scene: a pinhole camera, a sun, and filled polygons given in metres."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

TARGET_MARK = 255  # the fourth channel says how strongly a surface is textured (0-127), or that it is the target building
SHADOW_TINT = np.array([0.92, 0.97, 1.1])  # shadows are lit by the sky alone
_SHIFT = 4  # cv2 takes polygon corners in sixteenths of a pixel
_TEXTURE_PX = 512
_TEXTURE_PX_PER_M = 4.0


@dataclass(frozen=True)
class Canvas:
    """A picture being painted, the camera that sees it and the sun that lights it.

    World frame: metres, x east, y north, z up, the ground at z = 0. `moved` gives the same picture in another frame.

    Attributes
    ----------
    pixels : uint8 [S, S, 4]
        Red, green, blue and the surface's mark. Shared by every moved canvas, painted in place.
    shadow : uint8 [S, S]
        255 where the ground lies in shadow; shared likewise.
    matrix : float64 [3, 4]
        World metres to homogeneous pixels.
    eye : float64 [3]
        The camera, in metres.
    sun : float64 [3]
        Unit vector towards the sun.
    ambient : float
        Share of the light on level ground that comes from the sky, 0 to 1.
    focal_px : float
        Pixels that a metre covers at a distance of one metre.
    """

    pixels: np.ndarray
    shadow: np.ndarray
    matrix: np.ndarray
    eye: np.ndarray
    sun: np.ndarray
    ambient: float
    focal_px: float

    @property
    def size_px(self) -> int:
        """Side of the picture in pixels."""
        return self.pixels.shape[0]

    def moved(self, origin_m: tuple[float, float], heading_deg: float) -> Canvas:
        """Return this canvas in the frame of an object: its own x axis points `heading_deg` counterclockwise of east."""
        turn = rotation(heading_deg)
        frame = np.eye(4)
        frame[:2, :2], frame[:2, 3] = turn, origin_m
        eye, sun = self.eye.copy(), self.sun.copy()
        eye[:2] = (eye[:2] - origin_m) @ turn
        sun[:2] = sun[:2] @ turn
        return replace(self, matrix=self.matrix @ frame, eye=eye, sun=sun)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return where points float [..., 3] in metres fall, float [..., 2] pixels (x, y); pixel centres are whole numbers."""
        seen = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        return seen[..., :2] / np.maximum(seen[..., 2:], 1e-3)

    def light(self, normal: np.ndarray) -> float:
        """Return the light on a surface of unit normal float [3]; level ground in the sun has 1."""
        direct = max(0.0, float(normal @ self.sun)) / float(self.sun[2])
        return min(self.ambient * (0.8 + 0.2 * float(normal[2])) + (1 - self.ambient) * direct, 1.35)

    def fill(self, polygons: np.ndarray, colour: np.ndarray, mark: int) -> None:
        """Paint polygons float [N, K, 3]; where two of one call overlap, neither is painted."""
        cv2.fillPoly(self.pixels, list(_fixed_point(self.project(polygons))), _paint(colour, mark), shift=_SHIFT)

    def fill_each(self, polygons: np.ndarray, colour: np.ndarray, mark: int) -> None:
        """Paint convex polygons float [N, K, 3] one over the other."""
        for corners in _fixed_point(self.project(polygons)):
            cv2.fillConvexPoly(self.pixels, corners, _paint(colour, mark), shift=_SHIFT)

    def fill_around(self, points: np.ndarray, colour: np.ndarray, mark: int) -> None:
        """Paint the outline that a small convex body of corners float [N, 3] has in the picture."""
        outline = cv2.convexHull(_fixed_point(self.project(points)))
        cv2.fillConvexPoly(self.pixels, outline, _paint(colour, mark), shift=_SHIFT)

    def balls(self, centres: np.ndarray, radii_m: np.ndarray, colours: np.ndarray, mark: int) -> None:
        """Paint balls one over the other: centres float [N, 3], radii float [N], colours float [N, 3]."""
        depth = np.maximum(centres @ self.matrix[2, :3] + self.matrix[2, 3], 1e-3)
        radii = np.rint(radii_m * self.focal_px / depth * (1 << _SHIFT)).astype(int).tolist()
        spots = _fixed_point(self.project(centres)).tolist()
        for (x, y), radius, colour in zip(spots, radii, np.minimum(colours, 255).tolist(), strict=True):
            cv2.circle(self.pixels, (x, y), radius, (*colour, mark), -1, shift=_SHIFT)

    def cast(self, polygon: np.ndarray, top_m: float) -> None:
        """Darken the ground behind an upright prism over a convex polygon float [K, 2] that reaches `top_m`."""
        corners = self.project(on_plane(sweep(polygon, self.sun, top_m), 0.0))
        cv2.fillConvexPoly(self.shadow, _fixed_point(corners), 255, shift=_SHIFT)

    def darken_roof(self, roofs: list[np.ndarray], roof_m: float, casters: list[tuple[np.ndarray, float]]) -> None:
        """Shade the roofs, convex polygons [K, 2] at `roof_m`, where the casters (polygon, top in metres) hide the sun."""
        lit, hidden = (np.zeros(self.shadow.shape, np.uint8) for _ in range(2))
        for polygon in roofs:
            cv2.fillConvexPoly(lit, _fixed_point(self.project(on_plane(polygon, roof_m))), 1, shift=_SHIFT)
        for polygon, top_m in casters:
            corners = self.project(on_plane(sweep(polygon, self.sun, top_m - roof_m), roof_m))
            cv2.fillConvexPoly(hidden, _fixed_point(corners), 1, shift=_SHIFT)
        where = (lit & hidden).astype(bool)
        self.pixels[where, :3] = np.clip(self.pixels[where, :3] * (self.ambient * SHADOW_TINT), 0, 255).astype(np.uint8)

    def settle_shadows(self) -> None:
        """Multiply the cast shadows, with a soft edge, into what is painted so far."""
        depth = cv2.blur(self.shadow, (3, 3))[..., None].astype(np.float32) / 255
        factor = 1 - depth * (1 - self.ambient * SHADOW_TINT).astype(np.float32)
        self.pixels[..., :3] = np.clip(self.pixels[..., :3] * factor, 0, 255).astype(np.uint8)

    def apply_texture(self, offset_m: np.ndarray) -> None:
        """Roughen every surface by its mark, with the ground's noise shifted by float [2] metres."""
        ground = self.matrix[:, [0, 1, 3]] @ np.array([[1 / _TEXTURE_PX_PER_M, 0, offset_m[0]], [0, 1 / _TEXTURE_PX_PER_M, offset_m[1]], [0, 0, 1]])
        side = (self.size_px, self.size_px)
        noise = cv2.warpPerspective(_ground_noise(), ground, side, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        strength = _TEXTURE_OF_MARK[self.pixels[..., 3]]
        factor = (1 + noise * strength)[..., None]
        self.pixels[..., :3] = np.clip(self.pixels[..., :3] * factor, 0, 255).astype(np.uint8)


def open_canvas(size_px: int, *, azimuth_deg: float, tilt_deg: float, distance_m: float, span_m: float, sun: np.ndarray, ambient: float) -> Canvas:
    """Return an empty canvas whose camera looks at the world's origin.

    Parameters
    ----------
    size_px : int
        Side of the picture.
    azimuth_deg : float
        Compass direction that is up in the picture, clockwise of north.
    tilt_deg : float
        Angle between the view and straight down.
    distance_m : float
        From the camera to the origin.
    span_m : float
        How many metres the picture's side covers at the origin.
    sun : float64 [3]
        Unit vector towards the sun.
    ambient : float
        Share of sky light.
    """
    azimuth, tilt = np.deg2rad([azimuth_deg, tilt_deg])
    forward = np.array([np.sin(tilt) * np.sin(azimuth), np.sin(tilt) * np.cos(azimuth), -np.cos(tilt)])
    right = np.array([np.cos(azimuth), -np.sin(azimuth), 0.0])
    axes = np.stack([right, np.cross(forward, right), forward])
    eye = -distance_m * forward
    focal, middle = size_px * distance_m / span_m, size_px / 2 - 0.5
    inner = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    matrix = inner @ np.column_stack([axes, -axes @ eye])
    pixels = np.zeros((size_px, size_px, 4), np.uint8)
    return Canvas(pixels, np.zeros((size_px, size_px), np.uint8), matrix, eye, sun, ambient, focal)


def shifted(canvas: Canvas, shift_px: np.ndarray) -> Canvas:
    """Return the canvas with the whole picture moved by float [2] pixels (right, down)."""
    move = np.eye(3)
    move[:2, 2] = shift_px
    return replace(canvas, matrix=move @ canvas.matrix)


def rotation(heading_deg: float) -> np.ndarray:
    """Return the matrix float [2, 2] that turns columns counterclockwise."""
    cosine, sine = np.cos(np.deg2rad(heading_deg)), np.sin(np.deg2rad(heading_deg))
    return np.array([[cosine, -sine], [sine, cosine]])


def on_plane(polygon: np.ndarray, z_m: float) -> np.ndarray:
    """Return plan points float [..., 2] as points [..., 3] at the height `z_m`."""
    return np.concatenate([polygon, np.full((*polygon.shape[:-1], 1), z_m)], axis=-1)


def sweep(polygon: np.ndarray, sun: np.ndarray, height_m: float) -> np.ndarray:
    """Return the shadow, convex float [N, 2], of a convex polygon [K, 2] extruded `height_m` above the plane it stands on."""
    fallen = polygon - sun[:2] / sun[2] * height_m
    return cv2.convexHull(np.concatenate([polygon, fallen]).astype(np.float32))[:, 0].astype(np.float64)


def _fixed_point(corners: np.ndarray) -> np.ndarray:
    return np.rint(np.minimum(np.maximum(corners, -20000), 20000) * (1 << _SHIFT)).astype(np.int32)


def _paint(colour: np.ndarray, mark: int) -> tuple[float, float, float, float]:
    red, green, blue = np.minimum(colour, 255.0).tolist()
    return red, green, blue, float(mark)


@lru_cache(maxsize=1)
def _ground_noise() -> np.ndarray:
    """Return the noise all surfaces share, float32 [512, 512] in about -1 to 1: the same in every place, so it names none."""
    rng = np.random.default_rng(1652)
    noise = np.zeros((_TEXTURE_PX, _TEXTURE_PX), np.float32)
    for cells, weight in ((8, 0.3), (32, 0.28), (128, 0.26), (512, 0.16)):
        coarse = rng.standard_normal((cells, cells), dtype=np.float32)
        noise += weight * cv2.resize(coarse, noise.shape, interpolation=cv2.INTER_CUBIC)
    return np.clip(noise, -1, 1)


_TEXTURE_OF_MARK = np.concatenate([np.arange(128) / 127, np.full(128, 0.09)]).astype(np.float32)
