"""Text as coverage masks and pictures: measured before it is drawn, shortened in the middle, never cut."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages.render.fonts import Face, own_face, runs_of

Align = Literal["left", "centre", "right"]

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
BLACK = (0, 0, 0)
GREY = (90, 90, 90)


@lru_cache
def load_font(face: Face, size_px: int) -> ImageFont.FreeTypeFont:
    """Open a font at a size."""
    return ImageFont.truetype(face.file, size_px)


def line_height(size_px: int) -> int:
    """Return the height in pixels of one line of text, the same for every text of this size, whatever its font."""
    ascent, descent = load_font(own_face(), size_px).getmetrics()
    return ascent + descent


def text_width(text: str, size_px: int, bold: bool = False) -> int:
    """Return the width in pixels of one line of text."""
    return math.ceil(sum(load_font(face, size_px).getlength(run) for run, face in runs_of(text, bold)))


def shorten(text: str, width_px: int, size_px: int, bold: bool = False) -> str:
    """Return `text` if it fits into `width_px`, else its head and tail around an ellipsis, as long as fits."""
    if text_width(text, size_px, bold) <= width_px:
        return text
    for kept in range(len(text) - 1, 0, -1):
        tail = kept // 2
        candidate = text[: kept - tail].rstrip() + ELLIPSIS + text[len(text) - tail :].lstrip()
        if text_width(candidate, size_px, bold) <= width_px:
            return candidate
    return ELLIPSIS


def wrap(text: str, width_px: int, size_px: int, most_lines: int, bold: bool = False) -> list[str]:
    """Return `text` as at most `most_lines` lines that fit into `width_px`, broken at line ends and spaces; the last is shortened.

    A word wider than that, such as an image's id, is broken after its slashes.
    """
    lines: list[str] = []
    for paragraph in text.split("\n") if text else []:
        line = ""
        for before, piece in _pieces(paragraph, width_px, size_px, bold):
            longer = f"{line}{before}{piece}".strip()
            if line and text_width(longer, size_px, bold) > width_px:
                lines.append(line)
                line = piece
            else:
                line = longer
        lines.append(line)
    kept = [*lines[: most_lines - 1], " ".join(lines[most_lines - 1 :])] if len(lines) > most_lines else lines
    return [shorten(line, width_px, size_px, bold) for line in kept]


def _pieces(paragraph: str, width_px: int, size_px: int, bold: bool) -> Iterator[tuple[str, str]]:
    """What a line may be broken before, each with what stands between it and the piece before: words, and the parts of paths too wide for a line."""
    for word in paragraph.split(" "):
        parts = re.split("(?<=/)", word) if text_width(word, size_px, bold) > width_px else [word]
        yield from zip((" ", *[""] * (len(parts) - 1)), parts, strict=True)


def text_mask(lines: list[str], width_px: int, size_px: int, align: Align = "left", bold: bool = False) -> np.ndarray:
    """Return the ink of `lines`: float32 [len(lines) * line height, width_px], 0 no ink, 1 full."""
    height, baseline = line_height(size_px), load_font(own_face(bold), size_px).getmetrics()[0]
    sheet = Image.new("L", (width_px, height * len(lines)), 0)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        spare = width_px - text_width(line, size_px, bold)
        left: float = {"left": 0, "centre": spare // 2, "right": spare}[align]
        for run, face in runs_of(line, bold):
            font = load_font(face, size_px)
            pen.text((left, number * height + baseline), run, fill=255, font=font, anchor="ls")  # fonts differ in height
            left += font.getlength(run)
    return np.asarray(sheet, dtype=np.float32) / 255


def text_picture(
    lines: list[str], width_px: int, size_px: int, align: Align = "left", bold: bool = False, ink: tuple[int, int, int] = BLACK
) -> np.ndarray:
    """Return `lines` in `ink` on white: uint8 [len(lines) * line height, width_px, 3]."""
    mask = text_mask(lines, width_px, size_px, align, bold)
    white = np.full((*mask.shape, 3), 255, np.uint8)
    return blend_ink(white, mask, ink)


def blend_ink(picture: np.ndarray, mask: np.ndarray, ink: tuple[int, int, int] = BLACK) -> np.ndarray:
    """Return `picture` [H, W, 3] with `ink` where `mask` [H, W] is 1, and the mixture between."""
    cover = mask[..., None]
    return np.rint((1 - cover) * picture + cover * np.asarray(ink, np.float32)).astype(np.uint8)
