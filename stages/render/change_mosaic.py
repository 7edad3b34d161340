"""What changed between two checkpoints, split into what the features did, what the head did, and what only both together did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.render.mosaics import MapStyle, describe_colours
from stages.render.panels import DrawSettings, Panel, draw_mosaic
from stages.render.scales import check_map, find_scale, format_numbers

TERMS = ("features", "head", "interaction")
_ROUNDING = 1e-4  # of the largest value: the terms are differences of float32 maps


@dataclass(frozen=True)
class ChangeRow:
    """One image and its split change; all maps float [h, w], raw and signed, in the photo's frame, NaN where there is no value.

    Parameters
    ----------
    label
        Its row label.
    photo
        uint8 [H, W, 3], RGB.
    before, after
        The map of the earlier and of the later checkpoint.
    features, head, interaction
        M0 (A1 - A0), (M1 - M0) A0 and (M1 - M0)(A1 - A0): they add up to after - before.
    reason
        What is written in the place of a map that has no value.

    Raises
    ------
    ValueError
        If a map's shape differs, or the terms do not add up.
    """

    label: str
    photo: np.ndarray
    before: np.ndarray
    after: np.ndarray
    features: np.ndarray
    head: np.ndarray
    interaction: np.ndarray
    reason: str = ""

    def __post_init__(self) -> None:
        for name in ("before", "after", *TERMS):
            check_map(getattr(self, name), f"{self.label!r}: {name}")
            if getattr(self, name).shape != self.before.shape:
                found = f"{name} is {getattr(self, name).shape}, before is {self.before.shape}"
                raise ValueError(f"{self.label!r}: {found}; expected maps of one grid. Split them at one position.")
        if not all(np.isfinite(heat).any() for heat in self.maps):
            return  # what is not finite is drawn as such
        off = _largest(self.after - self.before - self.features - self.head - self.interaction)
        if off > _ROUNDING * max(_largest(heat) for heat in self.maps):
            raise ValueError(f"{self.label!r}: features + head + interaction miss after - before by up to {off:.2g}; expected a split that adds up.")

    @property
    def maps(self) -> tuple[np.ndarray, ...]:
        """Before, after, their difference, and its three terms."""
        return (self.before, self.after, self.after - self.before, self.features, self.head, self.interaction)


def change_mosaic(
    rows: Sequence[ChangeRow], names: tuple[str, str], style: MapStyle, settings: DrawSettings | None = None, title: str = "", position: str = ""
) -> np.ndarray:
    """Return a mosaic with a row an image and the columns photo, before, after, change, features, head, interaction; uint8 [H, W, 3].

    Parameters
    ----------
    rows
        Images with their split changes.
    names
        Heads of the columns before and after, such as ("epoch 7", "epoch 35").
    style
        What the maps are; they are drawn signed, whatever its kind.
    settings, title, position
        As in `epochs_mosaic`.

    Notes
    -----
    One zero-centred scale over each row, so that the terms' sizes compare: the change is the sum of the three columns right of it. The sum of each
    map's cells is written below it.
    """
    settings = settings or DrawSettings()
    panels = [_row(row) for row in rows]
    heads = ["photo", f"before:\n{names[0]}", f"after:\n{names[1]}", "change\n= after - before", "= features", "+ head", "+ interaction"]
    parts = [style.method, f"target: {style.target}", *([f"position: {position}"] if position else [])]
    parts += ["features: M0 (A1 - A0); head: (M1 - M0) A0; interaction: (M1 - M0)(A1 - A0); below each map: the sum of its cells"]
    footer = " | ".join([*parts, *describe_colours(panels, settings)])
    return draw_mosaic(panels, [row.label for row in rows], heads, title, footer, settings)


def _row(row: ChangeRow) -> list[Panel | None]:
    drawn = [heat for heat in row.maps if np.isfinite(heat).any() and not np.isinf(heat).any()]
    scale = find_scale(drawn, "signed", "row") if drawn else None
    panels: list[Panel | None] = [Panel(row.photo)]
    for heat in row.maps:
        total = f"sum {format_numbers([float(heat[np.isfinite(heat)].sum())])[0]}" if np.isfinite(heat).any() else ""
        panels.append(Panel(row.photo, heat, scale, "signed", caption=total, reason=row.reason))
    return panels


def _largest(heat: np.ndarray) -> float:
    """Return the largest magnitude of the finite cells."""
    return float(np.abs(heat[np.isfinite(heat)]).max(initial=0))
