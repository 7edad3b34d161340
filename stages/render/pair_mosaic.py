"""A pair of images from both sides: what makes it similar, and what in one image is similar to a cell of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.render.marks import CellMark
from stages.render.mosaics import KIND_WORDS, describe_colours
from stages.render.panels import DrawSettings, Panel, draw_mosaic
from stages.render.scales import MapKind, Scale, check_map, find_scale, format_numbers

WHITE = (255, 255, 255)


@dataclass(frozen=True)
class PairSide:
    """One image of a pair, and what it asks of the other.

    Parameters
    ----------
    photo
        uint8 [H, W, 3], RGB.
    label
        Which image it is.
    heat
        [h, w] of this image, in its photo's frame: what each cell adds to the pair's cosine; raw and signed, NaN where there is no value.
    cells
        (y, x) of the cells that are asked about, the most important first.
    answers
        For each of them, [h', w'] over the *other* photo: how like this cell each of its cells is; NaN where there is no value.
    reason
        What is written in the place of a map without any value.
    """

    photo: np.ndarray
    label: str
    heat: np.ndarray
    cells: Sequence[tuple[int, int]]
    answers: Sequence[np.ndarray]
    reason: str = ""

    def __post_init__(self) -> None:
        check_map(self.heat, f"{self.label!r}: heat")
        if len(self.cells) != len(self.answers):
            raise ValueError(f"{self.label!r}: {len(self.cells)} cells and {len(self.answers)} answers; expected one answer per cell.")


def pair_mosaic(
    first: PairSide,
    second: PairSide,
    kind: MapKind = "relu",
    settings: DrawSettings | None = None,
    title: str = "",
    cosine: float | None = None,
) -> np.ndarray:
    """Return a pair from both sides, uint8 [H, W, 3]: two columns in which the first image asks, two in which the second one does.

    The first row shows each image's map of the cosine, its cells numbered, beside the other photo. Each further row marks one cell of the asking
    photo, and shows over the other photo how like it each cell is; a white box marks the most alike one.

    Parameters
    ----------
    first, second
        The images.
    kind
        How the maps of the cosine are read.
    settings, title
        As in `positions_mosaic`.
    cosine
        Of the pair, the mean over the parts; written beside what the cells add up to.

    Notes
    -----
    Both maps of the cosine share one scale: their unit is the same. Each similarity has its own, from its minimum to its maximum, with the numbers
    below: those of a trained network lie close together, far above 0, so that a scale from 0, or one for all, would show single colours. One that
    hardly varies says so, as any statistic.
    """
    settings = settings or DrawSettings()
    sides = ((first, second), (second, first))
    drawn = [side.heat for side in (first, second) if np.isfinite(side.heat).any() and not np.isinf(side.heat).any()]
    shares = find_scale(drawn, kind, "picture") if drawn else None
    rows: list[list[Panel | None]] = [[panel for side, other in sides for panel in _whole(side, other, kind, shares)]]
    for number in range(max(len(first.cells), len(second.cells))):
        rows.append([panel for side, other in sides for panel in _asked(side, other, number)])
    labels = ["what makes\nthe pair alike", *(f"cell {number}\nof each" for number in range(1, len(rows)))]
    heads = [head for side, other in sides for head in (f"{side.label}:\nasked cells", f"{other.label}:\nwhat is like them")]
    return draw_mosaic(rows, labels, heads, title, _footer(rows, kind, settings, cosine), settings, bars="panel")


def _whole(side: PairSide, other: PairSide, kind: MapKind, scale: Scale | None) -> list[Panel | None]:
    """Return the map of one side with its cells numbered, and the other photo."""
    marks = [CellMark(y, x, str(number)) for number, (y, x) in enumerate(side.cells, start=1)]
    known = side.heat[np.isfinite(side.heat)]
    total = f"cells add up to {format_numbers([float(known.sum())])[0]}" if known.size else ""
    return [Panel(side.photo, side.heat, scale, kind, marks=marks, caption=total, reason=side.reason), Panel(other.photo)]


def _asked(side: PairSide, other: PairSide, number: int) -> list[Panel | None]:
    """Return one side's photo with a cell marked, and the other photo under what is like it; nothing where the side has no such cell."""
    if number >= len(side.cells):
        return [None, None]
    (y, x), answer = side.cells[number], side.answers[number]
    marks = [CellMark(*_hottest(answer), colour=WHITE)] if np.isfinite(answer).any() else []
    asked = Panel(side.photo, grid=(side.heat.shape[0], side.heat.shape[1]), marks=[CellMark(y, x, str(number + 1))])
    return [asked, Panel(other.photo, answer, kind="statistic", marks=marks)]


def _hottest(heat: np.ndarray) -> tuple[int, int]:
    y, x = divmod(int(np.nanargmax(heat)), heat.shape[1])
    return y, x


def _footer(rows: Sequence[Sequence[Panel | None]], kind: MapKind, settings: DrawSettings, cosine: float | None) -> str:
    rest = "" if cosine is None else f"; the cosine is {format_numbers([cosine])[0]}, and what the cells do not add up to is the heads' constants"
    parts = [
        f"first row, on one scale: hires_cam of the cosine at fixed norms{rest}; {KIND_WORDS[kind]}",
        "cells, each on its own scale: cosine of embeddings through the head of the asked cell's ring, from minimum to maximum",
        "white box: the most alike cell",
    ]
    return " | ".join([*parts, *(fact for fact in describe_colours(rows, settings) if not fact.startswith("scale:"))])
