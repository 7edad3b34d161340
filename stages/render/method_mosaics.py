"""Mosaics that compare: all methods for one image, and one method at every transformer block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from stages.render.mosaics import (
    MapStyle,
    SampleView,
    describe_colours,
    list_positions,
    map_panel,
    photo_panel,
    position_head,
    position_panel,
    style_footer,
    value_words,
)
from stages.render.panels import DrawSettings, Panel, draw_mosaic, judge_panel
from stages.render.scales import MapKind, format_numbers
from stages.targets.names import NO_TARGET

TINY = 1e-4  # below this share of its row's largest value, a map says how small it is

_ROWS_OF_KIND: Mapping[MapKind, str] = MappingProxyType(
    {"statistic": "class-free rows", "relu": "rows of the target", "signed": "rows of the target"}
)


@dataclass(frozen=True)
class MethodRow:
    """One method's maps of an image at all positions: what they are, and the image with them."""

    style: MapStyle
    view: SampleView


def methods_mosaic(rows: Sequence[MethodRow], settings: DrawSettings | None = None, title: str = "", target: str = NO_TARGET) -> np.ndarray:
    """Return a mosaic with a row a method and the columns photo, patch, aligned, part and any blocks, uint8 [H, W, 3].

    Parameters
    ----------
    rows
        One a method, all of one image. A position for which a row has neither a map nor a reason stays empty: the method does not exist there.
    settings, title
        As in `positions_mosaic`.
    target
        Of the gradient methods, for the footer.

    Notes
    -----
    Each map has its own scale, since the methods have different units: brightness does not compare from panel to panel, places do.
    """
    settings = settings or DrawSettings()
    positions = list_positions([row.view for row in rows])
    panels = [[photo_panel(row.view), *(_method_panel(row, position, settings) for position in positions)] for row in rows]
    heads = ["photo", *map(position_head, positions)]
    labels = [f"{row.style.method}\n(class-free)" if row.style.target == NO_TARGET else row.style.method for row in rows]
    kinds = dict.fromkeys(row.style.kind for row in rows)
    values = "; ".join(f"{_ROWS_OF_KIND[kind]}: {value_words(kind, settings)}" for kind in kinds)
    notes = [f"{row.style.method}: {row.style.note}" for row in rows if row.style.note]
    footer = " | ".join([f"target: {target}", *notes, values, *describe_colours(panels, settings)])
    return draw_mosaic(panels, labels, heads, title, footer, settings, bars="panel")


def depth_mosaic(views: Sequence[SampleView], style: MapStyle, settings: DrawSettings | None = None, title: str = "") -> np.ndarray:
    """Return a depth strip, uint8 [H, W, 3]: a row an image, a column a transformer block, counted from 1, and last the patch map.

    Parameters
    ----------
    views
        Images with the maps of `style` at blocks, and at `patch` where it exists there; maps of other positions are not shown.
    style, settings, title
        As in `positions_mosaic`.

    Raises
    ------
    ValueError
        If no image has a block.

    Notes
    -----
    Each map has its own scale, because magnitudes grow from block to block. A map whose largest value is below TINY of its row's says so: behind
    the last block a LayerNorm follows, whose output does not change with a token's length, so that gradient times value cancels to rounding there.
    """
    settings = settings or DrawSettings()
    found = list_positions(views)
    positions = [*(position for position in found if position.startswith("block_")), *(name for name in found if name == "patch")]
    if not positions or positions == ["patch"]:
        raise ValueError(f"depth: positions {', '.join(found) or 'none'}; expected maps at blocks. Add block_<i> to cam.positions.")
    panels: list[list[Panel | None]] = [[photo_panel(view), *_depth_panels(view, positions, style, settings)] for view in views]
    heads = ["photo", *("patch, after\nLayerNorm" if position == "patch" else position_head(position) for position in positions)]
    return draw_mosaic(panels, [view.label for view in views], heads, title, style_footer(panels, style, settings), settings, bars="panel")


def _method_panel(row: MethodRow, position: str, settings: DrawSettings) -> Panel | None:
    if position not in row.view.maps and position not in row.view.reasons:
        return None
    panel = position_panel(row.view, position, row.style, None)
    return replace(panel, caption=_hidden_words(panel, settings))


def _depth_panels(view: SampleView, positions: Sequence[str], style: MapStyle, settings: DrawSettings) -> list[Panel]:
    panels = [map_panel(view, position, style, None) for position in positions]
    largest = max(_extent(panel) for panel in panels)
    return [replace(panel, caption="\n".join(filter(None, (_hidden_words(panel, settings), _tiny_words(panel, largest))))) for panel in panels]


def _hidden_words(panel: Panel, settings: DrawSettings) -> str:
    """Return the raw minimum of a map whose negative cells the ReLU hides; the bar tells the rest."""
    if panel.heat is None or panel.kind != "relu" or judge_panel(panel, settings).status != "ok":
        return ""
    low = float(np.nanmin(panel.heat))
    return f"raw minimum {format_numbers([low])[0]}" if low < 0 else ""


def _tiny_words(panel: Panel, largest: float) -> str:
    share = _extent(panel) / largest if largest > 0 else 1
    return f"{share:.0e} of the row's largest".replace("e-0", "e-") if 0 < share < TINY else ""


def _extent(panel: Panel) -> float:
    return float(np.abs(panel.heat[np.isfinite(panel.heat)]).max(initial=0)) if panel.heat is not None else 0.0
