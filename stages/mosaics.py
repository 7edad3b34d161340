"""The three mosaics: a network's positions side by side, its epochs side by side, and the figure of a paper."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from stages.drawing import warp_photo
from stages.panels import DrawSettings, Panel, draw_mosaic, judge_panel, panel_scale
from stages.scales import SCOPE_WORDS, MapKind, Scale, describe_map, find_scale, map_status

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


@dataclass(frozen=True)
class MapStyle:
    """What the maps of a mosaic are: CAM method, target of its gradient ("none" for class-free ones), and how their values are read."""

    method: str
    target: str
    kind: MapKind


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
        Position to the reason why its map is missing.
    boundary
        [P] half-widths in cells, in the aligned frame.
    theta
        [2, 3] alignment, output to input coordinates.
    grid
        Cells (h, w) of the aligned map.
    moved_cells
        How many cells FAM copied from elsewhere; 0: the aligned frame is the photo's. None: not counted.
    """

    photo: np.ndarray
    label: str
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    boundary: Sequence[int] | np.ndarray | None = None
    theta: np.ndarray | None = None
    grid: tuple[int, int] | None = None
    moved_cells: int | None = None


@dataclass(frozen=True)
class EpochRow:
    """One image and its raw maps [h, w], one a checkpoint in their order; None where a checkpoint has none, for the reason given."""

    label: str
    photo: np.ndarray
    maps: Sequence[np.ndarray | None]
    reasons: Sequence[str] = ()


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
    rows = [[Panel(view.photo), *(position_panel(view, position, style, scales) for position in positions)] for view in views]
    heads = ["photo", *map(position_head, positions)]
    return draw_mosaic(rows, [view.label for view in views], heads, title, style_footer(rows, style, settings), settings)


def epochs_mosaic(
    rows: Sequence[EpochRow],
    checkpoints: Sequence[str],
    style: MapStyle,
    settings: DrawSettings | None = None,
    title: str = "",
    position: str = "",
    scales: Mapping[str, Scale] | None = None,
) -> np.ndarray:
    """Return a mosaic with a row an image and a column a checkpoint, uint8 [H, W, 3]: one scale over each row, its bar at the row's end.

    Parameters
    ----------
    rows
        Images with their maps.
    checkpoints
        Column heads; a strip holds about twelve.
    style, settings, title
        As in `positions_mosaic`.
    position
        Where in the network the maps are, for the footer.
    scales
        Checkpoint to scale, for the scopes that reach beyond a row. None: "image-over-checkpoints".

    Raises
    ------
    ValueError
        If a row does not have one map a checkpoint, or a checkpoint has no scale in `scales`.
    """
    settings = settings or DrawSettings()
    _check_keys(scales, checkpoints, "checkpoint")
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
    aligned = [_aligned_photo(view) for view in views]
    scales = {position: scale} if scale else None
    rows: list[list[Panel | None]] = [
        [Panel(view.photo) for view in views],
        [Panel(photo, caption=_moved_words(view)) for view, photo in zip(views, aligned, strict=True)],
        [Panel(photo, boundary=view.boundary, grid=view.grid) for view, photo in zip(views, aligned, strict=True)],
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
    parts = [style.method, f"target: {style.target}"]
    parts += [f"position: {position}"] if position else []
    return " | ".join([*parts, f"values: {KIND_WORDS[style.kind]}", *describe_colours(rows, settings)])


def describe_colours(rows: Sequence[Sequence[Panel | None]], settings: DrawSettings) -> list[str]:
    """Return what the colours of these panels mean, one text a fact: scopes of their scales, colour maps and alpha, and what is left clear."""
    panels = [panel for row in rows for panel in row if panel is not None]
    scales = [scale for panel in panels if (scale := panel_scale(panel, settings))]
    scopes = sorted({scale.scope for scale in scales})
    names = sorted({settings.signed_colour_map if scale.signed else settings.colour_map for scale in scales})
    holes = any(panel.heat is not None and np.isnan(panel.heat).any() for panel in panels if judge_panel(panel, settings).drawn)
    parts = [f"scale: {scope} ({SCOPE_WORDS[scope]})" for scope in scopes]
    parts += [f"colours: {', '.join(names)}, alpha {settings.alpha:g}"] if names else ["no map drawn"]
    return [*parts, *(["clear cells: no value"] if holes else [])]


def map_panel(view: SampleView, position: str, style: MapStyle, scales: Mapping[str, Scale] | None) -> Panel:
    """Return the panel of one position of an image; "not computed" where it has neither a map nor a reason."""
    heat = view.maps.get(position)
    reason = "" if heat is not None else "not computed"
    return Panel(view.photo, heat, scales[position] if scales else None, style.kind, reason=view.reasons.get(position, reason))


def position_panel(view: SampleView, position: str, style: MapStyle, scales: Mapping[str, Scale] | None) -> Panel:
    """Return the panel of one position, with the partition's boundaries over that of the part features."""
    panel = map_panel(view, position, style, scales)
    if position != "part" or view.boundary is None:
        return panel
    theta = None if view.moved_cells == 0 else view.theta
    return replace(panel, boundary=view.boundary, grid=view.grid, theta=theta)


def _epoch_panels(
    row: EpochRow, checkpoints: Sequence[str], style: MapStyle, settings: DrawSettings, scales: Mapping[str, Scale] | None
) -> list[Panel | None]:
    """Return the photo's panel and one a checkpoint, on the scale of the row's maps that are drawn."""
    if len(row.maps) != len(checkpoints) or len(row.reasons) not in (0, len(checkpoints)):
        raise ValueError(
            f"{row.label!r}: {len(row.maps)} maps and {len(row.reasons)} reasons for {len(checkpoints)} checkpoints; "
            f"expected one map each, None where there is none, and one reason each or no reasons."
        )
    reasons = row.reasons or ["not computed" if heat is None else "" for heat in row.maps]
    bare = [Panel(row.photo, heat, None, style.kind, reason=reason) for heat, reason in zip(row.maps, reasons, strict=True)]
    drawn = [panel.heat for panel in bare if panel.heat is not None and judge_panel(panel, settings).drawn]
    shared = find_scale(drawn, style.kind, "image-over-checkpoints") if drawn else None
    given = [scales[name] if scales else shared for name in checkpoints]
    panels = [replace(panel, scale=scale, caption=_range_words(panel, settings)) for panel, scale in zip(bare, given, strict=True)]
    return [Panel(row.photo), *panels]


def _range_words(panel: Panel, settings: DrawSettings) -> str:
    """Return the raw range of a map that is drawn as it is, to be read beside a shared bar."""
    status = map_status(panel.heat, panel.kind, settings.flat_below)
    return describe_map(panel.heat, panel.kind, status) if status == "ok" else ""


def _aligned_photo(view: SampleView) -> np.ndarray:
    """Return the photo as FAM hands it on: resampled by theta, or as it is where no cell moved."""
    missing = [name for name in ("theta", "boundary", "grid") if getattr(view, name) is None]
    if view.theta is None or missing:
        raise ValueError(f"{view.label!r}: no {', '.join(missing)}; the paper's figure shows all three. Read them from the features store.")
    return view.photo if view.moved_cells == 0 else warp_photo(view.photo, view.theta)


def _moved_words(view: SampleView) -> str:
    if view.moved_cells is None or view.grid is None:
        return ""
    if view.moved_cells == 0:
        return "identical to input: FAM moves no cell"
    return f"FAM moves {view.moved_cells} of {view.grid[0] * view.grid[1]} cells"


def _check_keys(scales: Mapping[str, Scale] | None, names: Sequence[str], what: str) -> None:
    for name in names if scales is not None else ():
        if scales is not None and name not in scales:
            raise ValueError(f"scales: none for {what} {name!r}, only for {', '.join(scales) or 'nothing'}. Give one a {what}, or none at all.")
