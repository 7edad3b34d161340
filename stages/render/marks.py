"""Cells marked on a photo: a box that is visible on bright and dark ground, and a number beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.render.drawing import check_photo
from stages.render.lettering import blend_ink, line_height, text_mask, text_width

LIME = (90, 255, 60)  # in neither of the default colour maps
_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class CellMark:
    """A cell to mark.

    Parameters
    ----------
    y, x
        Row and column of the cell, on the grid that the marks are drawn with.
    text
        Written beside it, such as its number.
    colour
        Of the box, RGB, between two black lines.
    """

    y: int
    x: int
    text: str = ""
    colour: tuple[int, int, int] = LIME


def draw_marks(photo: np.ndarray, marks: Sequence[CellMark], grid: tuple[int, int]) -> np.ndarray:
    """Return `photo` with boxes around cells: uint8 [H, W, 3]. The boxes lie around the cells, so that what is in them can be seen.

    Parameters
    ----------
    photo
        uint8 [H, W, 3].
    marks
        Drawn in their order.
    grid
        Cells (h, w) of the photo.

    Raises
    ------
    ValueError
        If a cell lies outside of the grid.
    """
    check_photo(photo)
    picture = photo.copy()
    line = max(1, round(max(photo.shape[:2]) / 80))
    for mark in marks:
        if not (0 <= mark.y < grid[0] and 0 <= mark.x < grid[1]):
            raise ValueError(f"mark: cell ({mark.y}, {mark.x}); expected one of the grid of {grid[0]} x {grid[1]} cells.")
        box = _cell_box(mark, grid, (photo.shape[0], photo.shape[1]))
        edge = max(1, line // 2)
        for grown, ink in ((line + edge, (0, 0, 0)), (line, mark.colour)):
            _fill_frame(picture, box, grown, ink)
        _fill_frame(picture, box, 0, (0, 0, 0), inward=edge)
        if mark.text:
            _write_beside(picture, box, line + edge, mark.text)
    return picture


def _cell_box(mark: CellMark, grid: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return top, left, bottom, right in pixels, the last two exclusive."""
    top, bottom = (round((mark.y + step) * size[0] / grid[0]) for step in (0, 1))
    left, right = (round((mark.x + step) * size[1] / grid[1]) for step in (0, 1))
    return top, left, bottom, right


def _fill_frame(picture: np.ndarray, box: tuple[int, int, int, int], grown: int, ink: tuple[int, int, int], inward: int = 0) -> None:
    """Paint the frame between the box grown outwards and the box shrunk inwards, cut off at the photo's edge."""
    top, left, bottom, right = box
    outside = np.zeros(picture.shape[:2], bool)
    outside[max(0, top - grown) : bottom + grown, max(0, left - grown) : right + grown] = True
    outside[top + inward : bottom - inward, left + inward : right - inward] = False
    picture[outside] = ink


def _write_beside(picture: np.ndarray, box: tuple[int, int, int, int], clear: int, text: str) -> None:
    """Write white on a black tag at the upper right of the box, or wherever there is room."""
    size_px = max(9, round(max(picture.shape[:2]) * 0.075))
    height, width = line_height(size_px), text_width(text, size_px, bold=True) + 4
    top, left, _, right = box
    tag_left = right + clear if right + clear + width <= picture.shape[1] else left - clear - width
    tag_top = min(max(0, top - clear), picture.shape[0] - height)
    tag_left = min(max(0, tag_left), picture.shape[1] - width)
    mask = text_mask([text], width, size_px, "centre", bold=True)
    black = np.zeros((height, width, 3), np.uint8)
    picture[tag_top : tag_top + height, tag_left : tag_left + width] = blend_ink(black, mask, _WHITE)
