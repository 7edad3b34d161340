"""Pixels from maps: upsampling, overlays, partition boundaries, aligned photos and colour bars."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator

from stages.render.colour_maps import check_colour_map
from stages.render.lettering import GREY, blend_ink, line_height, text_mask, text_picture, text_width
from stages.render.scales import Scale, check_map, format_numbers


def upsample(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a map [h, w] to `size` (H, W): bilinear with half-pixel centres, NaN cells left out and left empty.

    Returns
    -------
    ndarray
        float32 [H, W]. A pixel nearest to a NaN cell is NaN; every other pixel is the weighted mean of the finite cells around it.

    Notes
    -----
    cv2.INTER_LINEAR, the same as torch's bilinear with align_corners=False. Normalise before: upsampling lowers a map's maximum.
    """
    check_map(heat)
    if np.isinf(heat).any():
        raise ValueError(f"heat: {int(np.isinf(heat).sum())} infinite cells; expected finite values, or NaN where there is no value.")
    height, width = size
    valid = np.isfinite(heat)
    values = cv2.resize(np.where(valid, heat, 0).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    if valid.all():
        return values
    weight = cv2.resize(valid.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    read = valid[np.ix_(_nearest_cells(heat.shape[0], height), _nearest_cells(heat.shape[1], width))]
    return np.where(read, values / np.where(read, weight, 1), np.float32(np.nan))


def overlay(photo: np.ndarray, heat: np.ndarray, colour_map: str = "inferno", alpha: float = 0.5) -> np.ndarray:
    """Return `photo` under the colours of a normalised map: (1 - alpha) photo + alpha colour, rounded.

    Parameters
    ----------
    photo
        uint8 [H, W, 3], RGB.
    heat
        [h, w] in 0..1 on its native grid, in the photo's frame; NaN where the photo shall stay as it is.
    colour_map
        A name in matplotlib.colormaps.
    alpha
        Weight of the colour, the same at every pixel that has one.

    Raises
    ------
    ValueError
        If `heat` leaves 0..1, a shape or dtype is wrong, alpha leaves 0..1, or the colour map is unknown.
    """
    check_photo(photo)
    check_map(heat)
    if not 0 <= alpha <= 1:
        raise ValueError(f"overlay: alpha = {alpha}; expected a number from 0 (photo only) to 1 (colour only).")
    if np.nanmin(heat, initial=0) < 0 or np.nanmax(heat, initial=0) > 1:
        raise ValueError(f"overlay: heat runs from {np.nanmin(heat)} to {np.nanmax(heat)}; expected 0..1. Apply Scale.normalise first.")
    large = np.clip(upsample(heat, (photo.shape[0], photo.shape[1])), 0, 1)
    drawn = np.isfinite(large)
    mixed = np.rint((1 - alpha) * photo + alpha * colours(np.where(drawn, large, 0), colour_map)).astype(np.uint8)
    return np.where(drawn[..., None], mixed, photo)


def greyed(photo: np.ndarray) -> np.ndarray:
    """Return `photo` without its colours, uint8 [H, W, 3]: under red and blue, a red roof would read as positive."""
    return np.repeat(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def colours(values: np.ndarray, colour_map: str) -> np.ndarray:
    """Return the colours of `values` (any shape, 0..1) as float64 0..255, one more axis of length 3."""
    check_colour_map(colour_map)
    return matplotlib.colormaps[colour_map](values)[..., :3] * 255.0


def check_photo(photo: np.ndarray) -> None:
    """Raise ValueError unless `photo` is uint8 [H, W, 3]."""
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or 0 in photo.shape:
        raise ValueError(f"photo: shape {photo.shape}, dtype {photo.dtype}; expected an RGB photo [H, W, 3] of uint8.")


def boundary_rectangles(boundary: Sequence[int] | np.ndarray, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Return the pixel rectangles of partition boundaries: int64 [P, 4], top, left, bottom, right, the last two exclusive.

    Parameters
    ----------
    boundary
        [P] half-widths in cells, each from 1 to R = floor(min(grid) / 2).
    grid
        Cells (h, w) of the aligned map.
    size
        Pixels (H, W) of the photo that shows the same frame.

    Raises
    ------
    ValueError
        If a boundary leaves 1..R.

    Notes
    -----
    The square of half-width b holds the rows and columns c - b ... c + b - 1 with c = floor(h / 2), hence the edges c - b and c + b.
    On an odd grid the last row and column lie outside every square. Rows and columns scale apart: the network saw a squashed photo.
    """
    half = _check_boundary(boundary, grid)
    (rows, columns), (height, width) = grid, size
    top, bottom = (rows // 2 - half) * height / rows, (rows // 2 + half) * height / rows
    left, right = (columns // 2 - half) * width / columns, (columns // 2 + half) * width / columns
    return np.rint(np.stack([top, left, bottom, right], axis=1)).astype(np.int64)


def draw_boundaries(photo: np.ndarray, boundary: Sequence[int] | np.ndarray, grid: tuple[int, int], theta: np.ndarray | None = None) -> np.ndarray:
    """Return `photo` with the partition's squares: a light line between two dark ones, legible on any ground.

    Parameters
    ----------
    photo
        uint8 [H, W, 3], in the aligned frame; or in the input frame where `theta` is given.
    boundary, grid
        As in `boundary_rectangles`.
    theta
        [2, 3]: the alignment that carries the squares, which live in the aligned frame, back to the input photo. They become
        parallelograms, cut off where the alignment reads beyond the photo. None: the frames are the same.
    """
    check_photo(photo)
    line = max(1, round(max(photo.shape[:2]) / 160))
    edge = max(1, line // 2)
    if theta is not None:
        return _draw_polygons(photo, boundary_polygons(boundary, grid, (photo.shape[0], photo.shape[1]), theta), line, edge)
    rectangles = boundary_rectangles(boundary, grid, (photo.shape[0], photo.shape[1]))
    dark = _frames(photo.shape, rectangles, line + 2 * edge, 0, line + 2 * edge)
    light = _frames(photo.shape, rectangles, line + 2 * edge, edge, line)
    return np.where(light[..., None], np.uint8(255), np.where(dark[..., None], np.uint8(0), photo))


def boundary_polygons(boundary: Sequence[int] | np.ndarray, grid: tuple[int, int], size: tuple[int, int], theta: np.ndarray) -> np.ndarray:
    """Return the squares' corners in the input photo: float64 [P, 4, 2], pixels (x, y), edges of the photo at 0 and W or H.

    `theta` [2, 3] maps output to input coordinates, -1 and 1 at the centres of the first and the last cell (align_corners=True).
    """
    half = _check_boundary(boundary, grid)
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    cells = np.array([grid[1], grid[0]])
    corners = cells // 2 + half[:, None, None] * signs
    aligned = (corners - 0.5) / (cells - 1) * 2 - 1
    source = aligned @ np.asarray(theta, np.float64)[:, :2].T + np.asarray(theta, np.float64)[:, 2]
    return ((source + 1) / 2 * (cells - 1) + 0.5) / cells * np.array([size[1], size[0]])


def warp_photo(photo: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Return the aligned photo: `photo` resampled with the network's own theta.

    Parameters
    ----------
    photo
        uint8 [H, W, 3].
    theta
        [2, 3], output to input coordinates, x first; -1 and 1 are the centres of the first and the last pixel (align_corners=True).

    Notes
    -----
    Bilinear, the border repeated, as torch's grid_sample(padding_mode="border"). Written out because cv2.remap before OpenCV 5
    rounds positions to 1/32 pixel, which costs up to four grey levels.
    """
    check_photo(photo)
    if np.shape(theta) != (2, 3):
        raise ValueError(f"theta: shape {np.shape(theta)}; expected [2, 3], one image's alignment.")
    height, width = photo.shape[:2]
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    source = np.tensordot(np.asarray(theta, np.float64), np.stack([x, y, np.ones_like(x)]), axes=1)
    column, column_share = _split((source[0] + 1) / 2 * (width - 1), width)
    row, row_share = _split((source[1] + 1) / 2 * (height - 1), height)
    below, right = np.minimum(row + 1, height - 1), np.minimum(column + 1, width - 1)
    upper = (1 - column_share) * photo[row, column] + column_share * photo[row, right]
    lower = (1 - column_share) * photo[below, column] + column_share * photo[below, right]
    return np.rint((1 - row_share) * upper + row_share * lower).astype(np.uint8)


def colour_bar(scale: Scale, colour_map: str, length: int, text_px: int = 12) -> np.ndarray:
    """Return an upright colour bar with numbers at its right: uint8 [length, width, 3] on white, vmax at the top.

    vmin and vmax are always written, round values between them where there is room.
    """
    thickness, tick, height = max(8, text_px), 4, line_height(text_px)
    values = bar_ticks(scale, (length - height) // (2 * height))
    texts = format_numbers(values)
    width = max(text_width(text, text_px) for text in texts)
    picture = np.full((length, thickness + 2 * tick + width, 3), 255, np.uint8)
    picture[:, :thickness] = _gradient(colour_map, length)[::-1, None]
    for value, text in zip(values, texts, strict=True):
        position = round((1 - _share(value, scale)) * (length - 1))
        top = min(max(position - height // 2, 0), length - height)
        picture[position, thickness : thickness + tick] = GREY
        picture[top : top + height, thickness + 2 * tick :] = text_picture([text], width, text_px)
    return _outline(picture, thickness, length)


def inline_bar(scale: Scale, colour_map: str, width: int, text_px: int = 11) -> np.ndarray:
    """Return a lying colour bar with vmin and vmax: uint8 [lines * line height, width, 3] on white.

    The numbers stand beside the bar where that leaves it room, else below it, else in a line each: they are never cut, and keep clear of what stands
    beside the bar.
    """
    height, gap = line_height(text_px), max(3, text_px // 3)
    low, high = (text_mask([text], text_width(text, text_px), text_px) for text in format_numbers([scale.vmin, scale.vmax]))
    lines = inline_bar_lines(scale, width, text_px)
    picture, mask = np.full((lines * height, width, 3), 255, np.uint8), np.zeros((lines * height, width), np.float32)
    beside = lines == 1
    left, right = (low.shape[1] + 2 * gap, high.shape[1] + 2 * gap) if beside else (gap, gap)
    first, second = (0, 0) if beside else (height, (lines - 1) * height)
    _put(mask, low, first, gap)
    _put(mask, high, second, width - gap - high.shape[1])
    edge = height // 5
    bar = np.broadcast_to(_gradient(colour_map, width - left - right), (height - 2 * edge, width - left - right, 3))
    picture[edge : height - edge, left : width - right] = _outline(bar, bar.shape[1], bar.shape[0])
    return blend_ink(picture, mask)


def inline_bar_lines(scale: Scale, width: int, text_px: int = 11) -> int:
    """Return how many lines of text an inline bar takes: 1 with the numbers beside it, 2 with them below, 3 with one below the other."""
    gap, numbers = max(3, text_px // 3), sum(text_width(text, text_px) for text in format_numbers([scale.vmin, scale.vmax]))
    if numbers + 4 * gap + width // 5 <= width:
        return 1
    return 2 if numbers + 4 * gap <= width else 3


def _put(mask: np.ndarray, text: np.ndarray, top: int, left: int) -> None:
    """Write a text's mask into a larger one; what would reach beyond its left edge begins there."""
    left = max(left, 0)
    shown = text[:, : mask.shape[1] - left]
    mask[top : top + shown.shape[0], left : left + shown.shape[1]] = shown


def bar_ticks(scale: Scale, most: int) -> list[float]:
    """Return the values written on a colour bar: vmin, vmax, and between them at most `most` round ones that keep clear of both."""
    if most < 1 or scale.vmin == scale.vmax:
        return [scale.vmin, scale.vmax]
    clear = 1 / (most + 2)
    rounds = MaxNLocator(nbins=min(most, 4), steps=[1, 2, 2.5, 5, 10]).tick_values(scale.vmin, scale.vmax)
    inner = [float(value) for value in rounds if clear < _share(value, scale) < 1 - clear]
    return [scale.vmin, *inner, scale.vmax]


def _nearest_cells(cells: int, pixels: int) -> np.ndarray:
    return ((np.arange(pixels) + 0.5) * cells / pixels).astype(np.int64)


def _check_boundary(boundary: Sequence[int] | np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    half, rings = np.asarray(boundary), min(grid) // 2
    if half.ndim != 1 or not np.issubdtype(half.dtype, np.integer) or half.min(initial=1) < 1 or half.max(initial=1) > rings:
        raise ValueError(f"boundary: {half.tolist()}; expected [P] whole half-widths from 1 to {rings} on a grid of {grid[0]} x {grid[1]} cells.")
    return half.astype(np.int64)


def _frames(shape: tuple[int, ...], rectangles: np.ndarray, stroke: int, inset: int, width: int) -> np.ndarray:
    """Return a bool mask [H, W] of frames `width` wide, `inset` pixels inside strokes centred on the rectangles and kept in the photo."""
    mask = np.zeros(shape[:2], bool)
    for rectangle in rectangles:
        outer = np.clip(rectangle + np.array([-1, -1, 1, 1]) * (stroke // 2), 0, [shape[0], shape[1]] * 2)
        top, left, bottom, right = outer + np.array([1, 1, -1, -1]) * inset
        for rows in (slice(top, top + width), slice(bottom - width, bottom)):
            mask[rows, left:right] = True
        for columns in (slice(left, left + width), slice(right - width, right)):
            mask[top:bottom, columns] = True
    return mask


def _draw_polygons(photo: np.ndarray, polygons: np.ndarray, line: int, edge: int) -> np.ndarray:
    """Return `photo` with smooth closed outlines; a corner just outside is drawn just inside, as the frame is."""
    inside = (line + 2 * edge) / 2
    size = np.array([photo.shape[1], photo.shape[0]])
    near = np.where(np.abs(polygons - np.clip(polygons, 0, size)) < inside, np.clip(polygons, inside, size - inside), polygons)
    points = np.rint((near - 0.5) * 16).astype(np.int32)
    picture = photo.copy()
    for ink, width in (((0, 0, 0), line + 2 * edge), ((255, 255, 255), line)):
        cv2.polylines(picture, list(points), isClosed=True, color=ink, thickness=width, lineType=cv2.LINE_AA, shift=4)
    return picture


def _split(position: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel at or before each position, the position kept in the photo, and the share [H, W, 1] of the pixel after it."""
    kept = np.clip(position, 0, pixels - 1)
    before = np.floor(kept).astype(np.int64)
    return before, (kept - before)[..., None]


def _gradient(colour_map: str, length: int) -> np.ndarray:
    return np.rint(colours(np.linspace(0, 1, length), colour_map)).astype(np.uint8)


def _share(value: float, scale: Scale) -> float:
    """Return where `value` stands on the bar: 0 at vmin, 1 at vmax; a scale without extent has its one value at the foot."""
    span = scale.vmax - scale.vmin
    return (value - scale.vmin) / span if span > 0 else 0.0


def _outline(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return `picture` with a one-pixel grey frame around its upper left `height` x `width` pixels."""
    mask = np.zeros(picture.shape[:2], bool)
    mask[:height, :width] = True
    mask[1 : height - 1, 1 : width - 1] = False
    return np.where(mask[..., None], np.uint8(GREY[0]), picture)
