"""The three mosaics: a network's positions side by side, its epochs side by side, and the figure of a paper."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from stages.render.drawing import warp_photo
from stages.render.panels import DrawSettings, Panel, draw_mosaic, judge_panel, panel_scale
from stages.render.scales import MapKind, Scale, describe_map, find_scale

POSITION_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "patch": "patch\nbefore FAM",
        "aligned": "aligned\nafter FAM",
        "part": "part\nafter FPM",
    }
)
KIND_WORDS: Mapping[MapKind, str] = MappingProxyType(
    {
        "relu": "ReLU, from 0 to the maximum",
        "statistic": "from minimum to maximum",
        "signed": "signed, symmetric about 0",
    }
)

_CLIPPED_WORDS: Mapping[MapKind, str] = MappingProxyType(  # on scales between percentiles
    {
        "relu": "ReLU, from 0",
        "statistic": "raw",
        "signed": KIND_WORDS["signed"],
    }
)

NOT_COMPUTED = "no map: not computed"


@dataclass(frozen=True)
class MapStyle:
    """What the maps of a mosaic are: CAM method, target of its gradient ("none" for class-free ones), how their values are read, and a word on it."""

    method: str
    target: str
    kind: MapKind
    note: str = ""


@dataclass(frozen=True)
class SampleView:
    """One image and its maps.

    Parameters
    ----------
    photo
        uint8 [H, W, 3], RGB.
    label
        Its row or column head; a line end breaks it.
    maps
        Position ("patch", "aligned", "part", "block_<i>") to raw map [h, w] float, in the photo's frame, NaN where it has no value.
    reasons
        Position to what is written in the place of its map, such as "no map: its place was not trained".
    boundary
        [P] half-widths in cells, in the aligned frame.
    theta
        [2, 3] alignment, output to input coordinates.
    grid
        Cells (h, w) of the aligned map.
    moved_cells
        How many cells FAM copied from elsewhere; 0: the aligned frame is the photo's. None: not counted.
    warp_fault
        Why FAM's warp cannot be shown: it is not finite. "": it can.
    rounding
        Position to the standard deviation of a cell's value from rounding; see `Panel`.
    note
        Text under the photo.
    """

    photo: np.ndarray
    label: str
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    boundary: Sequence[int] | np.ndarray | None = None
    theta: np.ndarray | None = None
    grid: tuple[int, int] | None = None
    moved_cells: int | None = None
    warp_fault: str = ""
    rounding: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class EpochMap:
    """An image's map of one checkpoint.

    Parameters
    ----------
    heat
        Raw map [h, w]; None where the checkpoint has none.
    reason
        What is written in its place.
    rounding
        As of `Panel`.
    note
        Text under it.
    """

    heat: np.ndarray | None
    reason: str = ""
    rounding: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class EpochRow:
    """One image and its maps, one a checkpoint in their order."""

    label: str
    photo: np.ndarray
    maps: Sequence[EpochMap]


def positions_mosaic(
    views: Sequence[SampleView],
    style: MapStyle,
    settings: DrawSettings | None = None,
    title: str = "",
    scales: Mapping[str, Scale] | None = None,
) -> np.ndarray:
    """Return a mosaic with a row an image, and the columns photo, patch, aligned, part and any blocks; uint8 [H, W, 3].

    Parameters
    ----------
    views
        Images with their maps.
    style
        What the maps are.
    settings
        How it looks.
    title
        Text above.
    scales
        Position to scale, for the scopes that reach beyond these images. None: each map its own ("image").

    Raises
    ------
    ValueError
        If a position is unknown, or one that is drawn has no scale in `scales`.

    Notes
    -----
    The part column shows the partition's boundaries, carried back into the photo by theta where FAM moved any cell.
    """
    settings = settings or DrawSettings()
    positions = list_positions(views)
    _check_keys(scales, positions, "position")
    rows = [[photo_panel(view), *(position_panel(view, position, style, scales) for position in positions)] for view in views]
    heads = ["photo", *map(position_head, positions)]
    return draw_mosaic(rows, [view.label for view in views], heads, title, style_footer(rows, style, settings), settings)


def epochs_mosaic(
    rows: Sequence[EpochRow],
    checkpoints: Sequence[str],
    style: MapStyle,
    settings: DrawSettings | None = None,
    title: str = "",
    position: str = "",
    scales: Sequence[Scale] | None = None,
) -> np.ndarray:
    """Return a mosaic with a row an image and a column a checkpoint, uint8 [H, W, 3]: one scale over each row, its bar at the row's end.

    Parameters
    ----------
    rows
        Images with their maps.
    checkpoints
        Column heads, no two alike; a strip holds about twelve.
    style, settings, title
        As in `positions_mosaic`.
    position
        Where in the network the maps are, for the footer.
    scales
        One a checkpoint, for the scopes that reach beyond a row. None: "image-over-checkpoints".

    Raises
    ------
    ValueError
        If a row does not have one map per checkpoint, there is not one scale per checkpoint, or two heads are alike.

    Notes
    -----
    Without `scales`, a statistic of low contrast has a scale of its own: on one that it shares, its cells would all have one colour.
    """
    settings = settings or DrawSettings()
    _check_columns(checkpoints, scales)
    panels = [_epoch_panels(row, checkpoints, style, settings, scales) for row in rows]
    heads = ["photo", *checkpoints]
    return draw_mosaic(panels, [row.label for row in rows], heads, title, style_footer(panels, style, settings, position), settings)


def paper_mosaic(
    views: Sequence[SampleView],
    style: MapStyle,
    position: str = "aligned",
    settings: DrawSettings | None = None,
    title: str = "",
    scale: Scale | None = None,
) -> np.ndarray:
    """Return the paper's figure, uint8 [H, W, 3]: rows Input, Aligned, Partition, Heat map; a column an image, the satellite's first.

    Parameters
    ----------
    views
        One satellite and up to four drone images, each with theta, boundary and grid.
    style, settings, title
        As in `positions_mosaic`.
    position
        Whose map the last row shows over the input.
    scale
        One scale for all of them. None: each map its own ("image").

    Raises
    ------
    ValueError
        If a view has no theta, boundary or grid.
    """
    settings = settings or DrawSettings()
    scales = {position: scale} if scale else None
    rows: list[list[Panel | None]] = [
        [photo_panel(view) for view in views],
        [_aligned_panel(view, with_partition=False) for view in views],
        [_aligned_panel(view, with_partition=True) for view in views],
        [map_panel(view, position, style, scales) for view in views],
    ]
    footer = style_footer(rows, style, settings, position)
    return draw_mosaic(rows, ["Input", "Aligned", "Partition", "Heat map"], [view.label for view in views], title, footer, settings)


def list_positions(views: Sequence[SampleView]) -> list[str]:
    """Return the positions of any view's maps or reasons: patch, aligned, part, then blocks by number."""
    found = {position for view in views for position in (*view.maps, *view.reasons)}
    for position in found:
        if position not in POSITION_WORDS and not position.removeprefix("block_").isdecimal():
            near = difflib.get_close_matches(position, [*POSITION_WORDS, "block_0"], n=1, cutoff=0)[0]
            raise ValueError(f"position {position!r} is unknown; did you mean {near!r}? Known: {', '.join(POSITION_WORDS)}, block_<number>.")
    blocks = sorted(found - set(POSITION_WORDS), key=lambda position: int(position.removeprefix("block_")))
    return [*(position for position in POSITION_WORDS if position in found), *blocks]


def position_head(position: str) -> str:
    """Return a column's head; blocks are counted from 1, as papers do, with the position's name below, which counts from 0."""
    return POSITION_WORDS.get(position) or f"block {int(position.removeprefix('block_')) + 1}\n({position})"


def style_footer(rows: Sequence[Sequence[Panel | None]], style: MapStyle, settings: DrawSettings, position: str = "") -> str:
    """Return the line that makes the picture readable alone: method, target, scope, range, alpha, colour map, and what is left clear."""
    parts = [style.method, *([style.note] if style.note else []), f"target: {style.target}"]
    parts += [f"position: {position}"] if position else []
    return " | ".join([*parts, f"values: {value_words(style.kind, settings)}", *describe_colours(rows, settings)])


def value_words(kind: MapKind, settings: DrawSettings) -> str:
    """Return how values are read; a scale between percentiles says itself where it ends."""
    return (KIND_WORDS if settings.percentiles is None else _CLIPPED_WORDS)[kind]


def describe_colours(rows: Sequence[Sequence[Panel | None]], settings: DrawSettings) -> list[str]:
    """Return what the colours of these panels mean, one text per fact: scopes of their scales, colour maps and alpha, and what is left clear."""
    panels = [panel for row in rows for panel in row if panel is not None]
    scales = [scale for panel in panels if (scale := panel_scale(panel, settings))]
    scopes = sorted({scale.words for scale in scales})
    names = sorted({settings.signed_colour_map if scale.signed else settings.colour_map for scale in scales})
    holes = any(panel.heat is not None and np.isnan(panel.heat).any() for panel in panels if judge_panel(panel, settings).drawn)
    parts = [*scopes]
    parts += [f"colours: {', '.join(names)}, alpha {settings.alpha:g}"] if names else ["no map drawn"]
    return [*parts, *(["clear cells: no value"] if holes else [])]


def photo_panel(view: SampleView) -> Panel:
    """Return the panel of the photo, with the note on it."""
    return Panel(view.photo, caption=view.note)


def map_panel(view: SampleView, position: str, style: MapStyle, scales: Mapping[str, Scale] | None) -> Panel:
    """Return the panel of one position of an image; "not computed" where it has neither a map nor a reason."""
    heat = view.maps.get(position)
    reason = view.reasons.get(position, "" if heat is not None else NOT_COMPUTED)
    return Panel(view.photo, heat, scales[position] if scales else None, style.kind, reason=reason, rounding=view.rounding.get(position, 0.0))


def position_panel(view: SampleView, position: str, style: MapStyle, scales: Mapping[str, Scale] | None) -> Panel:
    """Return the panel of one position, with the partition's boundaries over that of the part features."""
    panel = map_panel(view, position, style, scales)
    if position != "part" or view.boundary is None or view.warp_fault:
        return panel
    theta = None if view.moved_cells == 0 else view.theta
    return replace(panel, boundary=view.boundary, grid=view.grid, theta=theta)


def _epoch_panels(
    row: EpochRow, checkpoints: Sequence[str], style: MapStyle, settings: DrawSettings, scales: Sequence[Scale] | None
) -> list[Panel | None]:
    """Return the photo's panel and one a checkpoint, on the scale of the row's maps that are drawn."""
    if len(row.maps) != len(checkpoints):
        raise ValueError(f"{row.label!r}: {len(row.maps)} maps for {len(checkpoints)} checkpoints; expected one each.")
    bare = [_epoch_panel(row, one, style) for one in row.maps]
    drawn = [panel.heat for panel in bare if panel.heat is not None and judge_panel(panel, settings).status == "ok"]
    shared = find_scale(drawn, style.kind, "image-over-checkpoints", settings.percentiles) if drawn else None
    panels: list[Panel | None] = [Panel(row.photo)]
    for number, panel in enumerate(bare):
        status = judge_panel(panel, settings).status
        scale = scales[number] if scales else None if status == "low contrast" else shared
        range_words = describe_map(panel.heat, panel.kind, "ok") if status == "ok" else ""
        panels.append(replace(panel, scale=scale, caption="\n".join(filter(None, (range_words, row.maps[number].note)))))
    return panels


def _epoch_panel(row: EpochRow, one: EpochMap, style: MapStyle) -> Panel:
    reason = one.reason or (NOT_COMPUTED if one.heat is None else "")
    return Panel(row.photo, one.heat, None, style.kind, reason=reason, rounding=one.rounding)


def _aligned_panel(view: SampleView, *, with_partition: bool) -> Panel:
    """Return the photo as FAM hands it on: resampled by theta, or as it is where no cell moved; with FPM's squares, or with what FAM moved."""
    missing = [name for name in ("theta", "boundary", "grid") if getattr(view, name) is None]
    if view.theta is None or missing:
        raise ValueError(f"{view.label!r}: no {', '.join(missing)}; the paper's figure shows all three. Read them from the features store.")
    if view.warp_fault:
        return Panel(view.photo, reason=view.warp_fault)
    photo = view.photo if view.moved_cells == 0 else warp_photo(view.photo, view.theta)
    return Panel(photo, boundary=view.boundary, grid=view.grid) if with_partition else Panel(photo, caption=_moved_words(view))


def _moved_words(view: SampleView) -> str:
    if view.moved_cells is None or view.grid is None:
        return ""
    if view.moved_cells == 0:
        return "identical to input: FAM moves no cell"
    return f"FAM moves {view.moved_cells} of {view.grid[0] * view.grid[1]} cells"


def _check_columns(checkpoints: Sequence[str], scales: Sequence[Scale] | None) -> None:
    if len(set(checkpoints)) < len(checkpoints):
        twice = next(name for name in checkpoints if list(checkpoints).count(name) > 1)
        raise ValueError(f"checkpoints: two columns are headed {twice!r}; expected heads that tell the checkpoints apart.")
    if scales is not None and len(scales) != len(checkpoints):
        raise ValueError(f"scales: {len(scales)} for {len(checkpoints)} checkpoints; expected one per checkpoint, or none at all.")


def _check_keys(scales: Mapping[str, Scale] | None, names: Sequence[str], what: str) -> None:
    for name in names if scales is not None else ():
        if scales is not None and name not in scales:
            raise ValueError(f"scales: none for {what} {name!r}, only for {', '.join(scales) or 'nothing'}. Give one a {what}, or none at all.")
