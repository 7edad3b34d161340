"""The layout engine: rows of panels, labels and colour bars become one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from stages.cam.settings import LOW_CONTRAST_BELOW
from stages.render.colour_maps import check_colour_map
from stages.render.drawing import check_photo, colour_bar, draw_boundaries, greyed, inline_bar, inline_bar_lines, overlay
from stages.render.lettering import ELLIPSIS, GREY, blend_ink, line_height, text_mask, text_picture, text_width, wrap
from stages.render.marks import CellMark, draw_marks
from stages.render.scales import MapKind, MapStatus, Percentiles, Scale, check_map, describe_map, find_scale, map_status, rectify

Bars = Literal["row", "column", "panel"]
_CAPTION_LINES = 16  # narrow panels: a map's contrast and range, why it is not drawn, or which images are compared, are never cut
_TITLE_LINES = 8  # of narrow pictures: the method and the target stand at the end


@dataclass(frozen=True)
class DrawSettings:
    """How mosaics look.

    Parameters
    ----------
    panel_px
        Length in pixels of a panel's longer side; type, gaps and margins follow it.
    alpha
        Weight of the colour over the photo.
    colour_map, signed_colour_map
        Names in matplotlib.colormaps, for magnitudes and for signed maps.
    low_contrast_below
        A statistic whose coefficient of variation lies below this says so, with its contrast and its range.
    grey_low_contrast
        Leave it out: the dimmed photo with those words.
    percentiles
        Lower and upper percentile that a map's own scale runs between; None: its minimum and maximum.
    """

    panel_px: int = 160
    alpha: float = 0.5
    colour_map: str = "inferno"
    signed_colour_map: str = "RdBu_r"
    low_contrast_below: float = LOW_CONTRAST_BELOW
    grey_low_contrast: bool = False
    percentiles: Percentiles | None = None

    def __post_init__(self) -> None:
        check_colour_map(self.colour_map)
        check_colour_map(self.signed_colour_map)
        if self.panel_px < 64:
            raise ValueError(f"panel_px = {self.panel_px}; expected at least 64, below which no caption is legible.")

    @property
    def text_px(self) -> int:
        """Size of heads and row labels."""
        return max(11, round(self.panel_px * 0.08))

    @property
    def caption_px(self) -> int:
        """Size of captions, numbers and the footer."""
        return max(10, round(self.panel_px * 0.07))

    @property
    def title_px(self) -> int:
        """Size of the title."""
        return round(self.text_px * 1.25)

    @property
    def gap_px(self) -> int:
        """Space between panels; the margin is twice this."""
        return max(4, self.panel_px // 20)


@dataclass(frozen=True)
class Panel:
    """One picture of a mosaic.

    Parameters
    ----------
    photo
        uint8 [H, W, 3], RGB.
    heat
        Raw map [h, w] on its native grid, in the photo's frame, NaN where it has no value. None: the photo alone.
    rounding
        Standard deviation of a cell's value from rounding, in the map's unit: what tells a constant map. 0: not known.
    scale
        What its colours stand for; None: its own range, scope "image".
    kind
        "relu", "statistic" or "signed": see `find_scale`.
    boundary, grid, theta
        Partition boundaries drawn over it, and their frame: see `draw_boundaries`. `grid` defaults to the heat's.
    marks
        Cells that are marked, on `grid`.
    caption
        Text under the panel.
    reason
        What is written in the place of a map that is not there, such as "no map: not computed".
    """

    photo: np.ndarray
    heat: np.ndarray | None = None
    scale: Scale | None = None
    kind: MapKind = "relu"
    boundary: Sequence[int] | np.ndarray | None = None
    grid: tuple[int, int] | None = None
    theta: np.ndarray | None = None
    marks: Sequence[CellMark] = ()
    caption: str = ""
    reason: str = ""
    rounding: float = 0.0
    verdicts: dict[DrawSettings, Verdict] = field(default_factory=dict, init=False, compare=False, repr=False)  # what `judge_panel` found before

    def __post_init__(self) -> None:
        check_photo(self.photo)
        if self.heat is not None:
            check_map(self.heat, "panel heat")
        if (self.boundary is not None or self.marks) and self.grid is None and self.heat is None:
            what = "marks" if self.boundary is None else "a boundary"
            raise ValueError(f"panel: {what} without a grid or a heat map has no unit. Pass grid = (cells down, cells across).")
        if self.scale is not None and self.scale.signed != (self.kind == "signed"):
            found = f"a {self.kind!r} map on a scale with signed = {self.scale.signed}"
            raise ValueError(f"panel: {found}; expected signed scales for signed maps only. Make it with find_scale(maps, {self.kind!r}, ...).")
        if self.scale is not None and self.kind == "relu" and self.scale.vmin != 0:
            raise ValueError(f"panel: a 'relu' map on a scale from {self.scale.vmin}; expected from 0: the minimum is never subtracted.")


@dataclass(frozen=True)
class Verdict:
    """What becomes of a panel's map: `status` ("photo" where none is asked for), the `text` that says so, and whether heat is `drawn`."""

    status: MapStatus | Literal["photo"]
    text: str
    drawn: bool


def judge_panel(panel: Panel, settings: DrawSettings) -> Verdict:
    """Return whether the panel's map is drawn. One that is not leaves the dimmed photo with `text` on it; one of low contrast says so below."""
    if settings not in panel.verdicts:
        panel.verdicts[settings] = _judge(panel, settings)
    return panel.verdicts[settings]


def _judge(panel: Panel, settings: DrawSettings) -> Verdict:
    if panel.heat is None and not panel.reason:
        return Verdict("photo", "", False)
    status = map_status(panel.heat, panel.kind, settings.low_contrast_below, panel.rounding)
    text = describe_map(panel.heat, panel.kind, status, panel.reason)
    drawn = status == "ok" or (status == "low contrast" and not settings.grey_low_contrast)
    return Verdict(status, "" if status == "ok" else text, drawn)


def panel_scale(panel: Panel, settings: DrawSettings) -> Scale | None:
    """Return the scale of the panel's colours, or None where it shows none."""
    if panel.heat is None or not judge_panel(panel, settings).drawn:
        return None
    return panel.scale or find_scale([panel.heat], panel.kind, "image", settings.percentiles)


def draw_panel(panel: Panel, settings: DrawSettings) -> np.ndarray:
    """Return the panel without its caption: uint8 [h, w, 3], the longer side `settings.panel_px`, the photo's aspect kept.

    Under a signed map, whose colours are two hues, the photo is grey.
    """
    height, width = fit_size(panel.photo, settings)
    shrinks = panel.photo.shape[0] > height
    picture = cv2.resize(panel.photo, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    scale, verdict = panel_scale(panel, settings), judge_panel(panel, settings)
    if panel.heat is not None and scale is not None:
        picture = greyed(picture) if scale.signed else picture
        picture = overlay(picture, scale.normalise(rectify(panel.heat, panel.kind)), _colour_map(scale, settings), settings.alpha)
    elif verdict.text:
        text = verdict.text if _fits(verdict.text, (height, width), settings) else verdict.text.partition(":")[0]
        return _write_over(picture, text, settings)  # without the boundaries: they would cross the words
    grid = panel.grid or (panel.heat.shape if panel.heat is not None else None)
    if grid is None:
        return picture
    if panel.boundary is not None:
        picture = draw_boundaries(picture, panel.boundary, (grid[0], grid[1]), panel.theta)
    return draw_marks(picture, panel.marks, (grid[0], grid[1]))


def fit_size(photo: np.ndarray, settings: DrawSettings) -> tuple[int, int]:
    """Return the (height, width) in pixels at which a photo is shown: the longer side is `panel_px`."""
    factor = settings.panel_px / max(photo.shape[:2])
    return max(1, round(photo.shape[0] * factor)), max(1, round(photo.shape[1] * factor))


def choose_bars(rows: Sequence[Sequence[Panel | None]], settings: DrawSettings) -> Bars:
    """Return where colour bars stand: at the end of rows that share a scale, else under columns that do, else under each panel."""
    scales = [[panel_scale(panel, settings) if panel else None for panel in row] for row in rows]
    if all(len({scale for scale in row if scale}) <= 1 for row in scales):
        return "row"
    if all(len({scale for scale in column if scale}) <= 1 for column in zip(*scales, strict=True)):
        return "column"
    return "panel"


@dataclass(frozen=True)
class Layout:
    """Where everything stands, in pixels from the upper left corner.

    `tops` and `heights` are the photos' band of each row, `lefts` the columns' left edges (all `panel_px` wide); `inline` is the
    height of a bar under a panel or a column (0: bars stand at the rows' ends), `captions` each row's caption lines, `foot` the
    first line below the last row.
    """

    size: tuple[int, int]
    bars: Bars
    tops: tuple[int, ...]
    heights: tuple[int, ...]
    lefts: tuple[int, ...]
    inline: int
    captions: tuple[tuple[tuple[str, ...], ...], ...]
    row_labels: tuple[tuple[str, ...], ...]
    heads: tuple[tuple[str, ...], ...]
    title: tuple[str, ...]
    footer: tuple[str, ...]
    foot: int


@dataclass(frozen=True)
class Piece:
    """A picture and the place of its upper left corner."""

    top: int
    left: int
    picture: np.ndarray


def draw_mosaic(
    rows: Sequence[Sequence[Panel | None]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str,
    footer: str,
    settings: DrawSettings,
    bars: Bars | None = None,
) -> np.ndarray:
    """Return a mosaic on white: uint8 [H, W, 3].

    Parameters
    ----------
    rows
        Panels, all rows of one length; None leaves a place empty.
    row_labels, column_labels
        One a row and one a column; lines end at spaces and line ends, and what is too long is shortened in its middle.
    title, footer
        Text above and below.
    settings
        Sizes, colours, and what counts as low contrast.
    bars
        Where colour bars stand; None: wherever the fewest say it all, see `choose_bars`.

    Raises
    ------
    ValueError
        If the rows and labels do not count the same, or a row or column asked to share a bar has several scales.
    """
    _check_counts(rows, row_labels, column_labels)
    layout = plan_layout(rows, row_labels, column_labels, title, footer, settings, bars)
    canvas = np.full((*layout.size, 3), 255, np.uint8)
    for piece in (*_text_pieces(layout, settings), *_panel_pieces(rows, layout, settings), *_bar_pieces(rows, layout, settings)):
        height, width = piece.picture.shape[:2]
        canvas[piece.top : piece.top + height, piece.left : piece.left + width] = piece.picture
    return canvas


def plan_layout(
    rows: Sequence[Sequence[Panel | None]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str,
    footer: str,
    settings: DrawSettings,
    bars: Bars | None = None,
) -> Layout:
    """Return where `draw_mosaic` puts everything; the arguments are the same."""
    bars = bars or choose_bars(rows, settings)
    px, gap, text_px = settings.panel_px, settings.gap_px, settings.text_px
    labels = [tuple(wrap(label, px, text_px, 3)) for label in row_labels]
    heads = tuple(tuple(wrap(head, px, text_px, 2)) for head in column_labels)
    captions = tuple(tuple(tuple(_caption(panel, settings)) for panel in row) for row in rows)
    heights = tuple(_row_height(row, len(label), settings) for row, label in zip(rows, labels, strict=True))
    label_px = max((text_width(line, text_px) for lines in labels for line in lines), default=0)
    start = 2 * gap + (label_px + gap if label_px else 0)
    lefts = tuple(start + column * (px + gap) for column in range(len(column_labels)))
    width = lefts[-1] + px + _gutter(rows, heights, bars, settings) + 2 * gap
    titles = tuple(wrap(title, width - 4 * gap, settings.title_px, _TITLE_LINES, bold=True))
    notes = tuple(wrap(footer, width - 4 * gap, settings.caption_px, 8))
    line, inline = line_height(settings.caption_px), _inline_height(rows, bars, settings)
    first = 2 * gap + len(titles) * line_height(settings.title_px) + (gap if titles else 0)
    first += max(map(len, heads)) * line_height(text_px) + gap // 2
    below = [max(map(len, row)) * line + (inline if bars == "panel" else 0) for row in captions]
    tops = tuple(first + sum(heights[:row]) + sum(below[:row]) + row * gap for row in range(len(rows)))
    end = tops[-1] + heights[-1] + below[-1]
    foot = end + gap + (inline if bars == "column" else 0)
    size = (foot + len(notes) * line + 2 * gap, width)
    return Layout(size, bars, tops, heights, lefts, inline, captions, tuple(labels), heads, titles, notes, foot)


def _inline_height(rows: Sequence[Sequence[Panel | None]], bars: Bars, settings: DrawSettings) -> int:
    """Return the height that the tallest bar under a panel or a column takes, and the space above it; 0 where all stand at the rows' ends."""
    if bars == "row":
        return 0
    scales = [scale for row in rows for panel in row if panel and (scale := panel_scale(panel, settings))]
    lines = max((inline_bar_lines(scale, settings.panel_px, settings.caption_px) for scale in scales), default=1)
    return lines * line_height(settings.caption_px) + settings.gap_px // 2


def _row_height(row: Sequence[Panel | None], label_lines: int, settings: DrawSettings) -> int:
    """Return the height of the tallest photo, or of what stands beside it: the label, or the two numbers of a colour bar."""
    photos = [fit_size(panel.photo, settings)[0] for panel in row if panel]
    return max([*photos, label_lines * line_height(settings.text_px), 2 * line_height(settings.caption_px)])


def _caption(panel: Panel | None, settings: DrawSettings) -> list[str]:
    if panel is None:
        return []
    verdict = judge_panel(panel, settings)
    stands_on_it = not verdict.drawn and _fits(verdict.text, fit_size(panel.photo, settings), settings)
    parts = [panel.caption, "" if stands_on_it else verdict.text]
    return wrap("\n".join(_bind(part) for part in parts if part), settings.panel_px, settings.caption_px, _CAPTION_LINES)


def _fits(text: str, size: tuple[int, int], settings: DrawSettings) -> bool:
    """Whether a panel of that (height, width) has room for the whole text; else its first words stand on it, and all of it below."""
    lines = wrap(_bind(text), size[1] - settings.gap_px, settings.caption_px, size[0] // line_height(settings.caption_px) or 1)
    return not any(ELLIPSIS in line for line in lines)


def _bind(text: str) -> str:
    """Return `text` with the number kept on the line of its "CV"."""
    return text.replace("CV ", "CV\N{NO-BREAK SPACE}")


def _gutter(rows: Sequence[Sequence[Panel | None]], heights: Sequence[int], bars: Bars, settings: DrawSettings) -> int:
    """Return the width right of the last column: that of the widest row bar and a gap."""
    if bars != "row":
        return 0
    pictures = [_row_bar(row, height, settings) for row, height in zip(rows, heights, strict=True)]
    return max((picture.shape[1] + settings.gap_px for picture in pictures if picture is not None), default=0)


def _row_bar(row: Sequence[Panel | None], height: int, settings: DrawSettings) -> np.ndarray | None:
    scale = _one_scale(row, settings)
    return colour_bar(scale, _colour_map(scale, settings), height, settings.caption_px) if scale else None


def _one_scale(panels: Sequence[Panel | None], settings: DrawSettings) -> Scale | None:
    """Return the scale that `panels` share, None where none shows heat."""
    scales = {panel_scale(panel, settings) for panel in panels if panel} - {None}
    if len(scales) > 1:
        raise ValueError(f"mosaic: one colour bar for panels on {len(scales)} scales. Give them one scale, or ask for bars = 'panel'.")
    return scales.pop() if scales else None


def _colour_map(scale: Scale, settings: DrawSettings) -> str:
    return settings.signed_colour_map if scale.signed else settings.colour_map


def _write_over(picture: np.ndarray, text: str, settings: DrawSettings) -> np.ndarray:
    """Return `picture` faded to a quarter, `text` in its middle."""
    height, width = picture.shape[:2]
    lines = wrap(_bind(text), width - settings.gap_px, settings.caption_px, max(1, height // line_height(settings.caption_px)))
    words = text_mask(lines, width, settings.caption_px, "centre")
    mask = np.zeros((height, width), np.float32)
    top = max(0, (height - len(words)) // 2)
    mask[top : top + len(words)] = words[:height]
    faded = np.rint(0.25 * picture + 0.75 * 240).astype(np.uint8)
    return blend_ink(faded, mask)


def _text_pieces(layout: Layout, settings: DrawSettings) -> Iterator[Piece]:
    margin, px, text_px = 2 * settings.gap_px, settings.panel_px, settings.text_px
    line = line_height(text_px)
    if layout.title:
        yield Piece(margin, margin, text_picture(list(layout.title), layout.size[1] - 2 * margin, settings.title_px, bold=True))
    for left, head in zip(layout.lefts, layout.heads, strict=True):
        yield Piece(layout.tops[0] - settings.gap_px // 2 - len(head) * line, left, text_picture(list(head), px, text_px, "centre"))
    for top, height, label in zip(layout.tops, layout.heights, layout.row_labels, strict=True):
        width = layout.lefts[0] - settings.gap_px - margin
        if width > 0:
            yield Piece(top + max(0, (height - len(label) * line) // 2), margin, text_picture(list(label), width, text_px, "right"))
    yield Piece(layout.foot, margin, text_picture(list(layout.footer), layout.size[1] - 2 * margin, settings.caption_px, ink=GREY))


def _panel_pieces(rows: Sequence[Sequence[Panel | None]], layout: Layout, settings: DrawSettings) -> Iterator[Piece]:
    for row, top, height, captions in zip(rows, layout.tops, layout.heights, layout.captions, strict=True):
        for panel, left, caption in zip(row, layout.lefts, captions, strict=True):
            if panel is None:
                continue
            picture = draw_panel(panel, settings)
            above, before = (height - picture.shape[0]) // 2, (settings.panel_px - picture.shape[1]) // 2
            yield Piece(top + above, left + before, picture)
            words = text_picture(list(caption), settings.panel_px, settings.caption_px, "centre")
            yield Piece(top + height + (layout.inline if layout.bars == "panel" else 0), left, words)


def _bar_pieces(rows: Sequence[Sequence[Panel | None]], layout: Layout, settings: DrawSettings) -> Iterator[Piece]:
    if layout.bars == "row":
        for row, top, height in zip(rows, layout.tops, layout.heights, strict=True):
            bar = _row_bar(row, height, settings)
            if bar is not None:
                yield Piece(top, layout.lefts[-1] + settings.panel_px + settings.gap_px, bar)
        return
    half = settings.gap_px // 2
    for left, column in zip(layout.lefts, zip(*rows, strict=True), strict=True):
        if layout.bars == "column":
            top = layout.foot - settings.gap_px - layout.inline + half
            places = [(top, _one_scale(column, settings))]
        else:
            lows = [top + height + half for top, height in zip(layout.tops, layout.heights, strict=True)]
            places = [(low, _one_scale([panel], settings)) for low, panel in zip(lows, column, strict=True)]
        for top, scale in places:
            if scale:
                yield Piece(top, left, inline_bar(scale, _colour_map(scale, settings), settings.panel_px, settings.caption_px))


def _check_counts(rows: Sequence[Sequence[Panel | None]], row_labels: Sequence[str], column_labels: Sequence[str]) -> None:
    if not rows or not column_labels or len(rows) != len(row_labels):
        counts = f"{len(rows)} rows, {len(row_labels)} row labels, {len(column_labels)} column labels"
        raise ValueError(f"mosaic: {counts}; expected at least one row and column, and one label per row.")
    for number, row in enumerate(rows):
        if len(row) != len(column_labels):
            where = f"row {number} ({row_labels[number]!r})"
            raise ValueError(f"mosaic: {where} has {len(row)} panels; expected {len(column_labels)}, one per column label.")
