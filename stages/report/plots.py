"""Figures over the epochs as SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from stages.labels import display_name, is_a_course, names_in, series_of
from stages.render.fonts import lettering_of_plots
from stages.render.lettering import ELLIPSIS
from stages.report.trust import agreement_matrix
from stages.stats.compared import FIRST, LAST
from stages.stats.figures import Figure as MapFigure
from stages.stats.figures import figures_shown
from stages.stats.modules import ROUNDING

_SIZE_INCHES = (5.4, 3.1)
_STYLES: Sequence[tuple[Any, str]] = tuple(  # of the series, dash and mark: they turn at different lengths, so that twenty are unlike
    (("-", "--", "-.", ":")[number % 4], ("o", "s", "^", "D", "v")[number % 5]) for number in range(20)
)
_MOST_TICKS = 10
_LEVEL_CHARACTERS = 44  # of all names below the axis: what fits side by side
_NAME_CHARACTERS = 26  # of a name that stands aslant
_SLANT_INCHES = 0.9  # that such names add to a figure's height
_DRIFTS = {  # which checkpoint a map is compared with
    LAST: "Drift to the last checkpoint",
    FIRST: "Drift from the first checkpoint",
}
_NONE: Mapping[str, NDArray[np.floating]] = MappingProxyType({})
_BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555")  # Okabe and Ito: told apart by colour-blind readers


class _Percentages(PercentFormatter):
    """Percentages with as many decimals as tell the ticks of an axis apart, and no more."""

    def format_ticks(self, values: list[float]) -> list[str]:
        """Letter the ticks of an axis."""
        shown = 100 * np.asarray(values)
        self.decimals = next((number for number in range(4) if np.allclose(shown, shown.round(number), rtol=0, atol=1e-6)), 4)
        return list(super().format_ticks(values))


@dataclass(frozen=True)
class Plot:
    """A drawn figure: its heading, what it shows in words, and the SVG text."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class _Line:
    """A figure of each checkpoint, and the bounds of its interval [checkpoint, 2]."""

    values: NDArray[np.floating]
    bounds: NDArray[np.floating]

    @classmethod
    def of(cls, values: xr.DataArray, bounds: xr.DataArray) -> _Line:
        """Dims (checkpoint,) and (checkpoint, bound)."""
        return cls(values.transpose("checkpoint").values, bounds.transpose("checkpoint", "bound").values)

    def shifted(self, by: float) -> _Line:
        """Add a number."""
        return _Line(self.values + by, self.bounds + by)

    def scaled(self, by: float) -> _Line:
        """Multiply by a number."""
        return _Line(self.values * by, self.bounds * by)


def draw_plots(stats: xr.Dataset) -> list[Plot]:
    """Draw every plot that the figures allow; `stats` as in `findings`."""
    names = " ".join(str(name) for key in ("checkpoint", "group", "series") if key in stats.coords for name in stats[key].values)
    with lettering_of_plots(names):
        return [plot for draw in (_recall, _figures_of_maps, _moved, _warp, _boundaries, _drift, _agreement) for plot in draw(stats)]


def _recall(stats: xr.Dataset) -> list[Plot]:
    if not np.isfinite(stats["recall_1"]).any():
        return []
    shown = {"Recall@1": "recall_1", "AP": "average_precision"}
    lines = {
        f"{label} {direction}": _Line.of(stats[name].sel(direction=direction), stats["retrieval_interval"].sel(direction=direction, retrieval=name))
        for label, name in shown.items()
        for direction in stats["direction"].values
    }
    return [_line_plot(stats, "Retrieval", "Recall@1 and average precision on the test places, from the stored embeddings.", lines, percent=True)]


def _figures_of_maps(stats: xr.Dataset) -> list[Plot]:
    """The figures of maps whose rows say that they are plotted: means over the test images, a line an aligned map."""
    chosen = [map_key for map_key in stats["product"].values if str(map_key).startswith("aligned/")] if "product" in stats else []
    plots = []
    for name, row in figures_shown("plot").items():
        if not chosen or name not in stats or not np.isfinite(stats[name]).any():
            continue
        lines = {str(map_key): _of_views(stats, "map", name, product=map_key) for map_key in chosen}
        caption, chance = f"{row.meaning}. Mean over the test images, views weighted equally", {}
        if isinstance(row, MapFigure) and row.which == "with a mask":
            caption = f"{caption}; dotted: the same maps against the masks of other places"
            chance = {str(map_key): _of_views(stats, "shuffled", name, product=map_key).values for map_key in chosen}
        title = row.label[:1].upper() + row.label[1:]
        plots.append(_line_plot(stats, title, f"{caption}.", lines, percent=row.unit == "share", dotted=chance))
    return plots


def _moved(stats: xr.Dataset) -> list[Plot]:
    bounds = stats["image_interval"].sel(image_figure="moved_cells")
    lines = {str(group): _Line.of(stats["moved_cells"].sel(group=group), bounds.sel(group=group)) for group in stats["group"].values}
    return [_line_plot(stats, "Cells that FAM moves", "Mean share of the aligned cells that copy another cell than their own.", lines, percent=True)]


def _warp(stats: xr.Dataset) -> list[Plot]:
    if float(stats["fam_change"].max()) < ROUNDING:
        return []
    found = {str(name): _of_views(stats, "image", f"warp_{name}") for name in stats["warp"].values}
    lines = {name: line.shifted(-1 if "scale" in name else 0) for name, line in found.items() if name != "rotation_deg"}
    lines["rotation / 90 deg"] = found["rotation_deg"].scaled(1 / 90)
    caption = (
        "Mean warp of the test images, views weighted equally: "
        "scales less 1, shear, shifts in half image sides, rotation in quarter turns; 0 is the identity."
    )
    return [_line_plot(stats, "FAM's warp", caption, lines)]


def _boundaries(stats: xr.Dataset) -> list[Plot]:
    count = stats["boundary_count"].sum("group")
    share = (count / count.sum("ring")).values
    figure, axes = _axes()
    for part in range(share.shape[1] - 1):
        mean = share[:, part] @ np.arange(1, share.shape[2] + 1)
        _draw_lines(axes, stats, mean, f"end of part {part + 1}", _COLOURS[part % len(_COLOURS)])
    axes.set_ylim(0, share.shape[2])
    axes.set_ylabel("half-width, cells")
    _finish(figure, axes, stats)
    return [Plot("FPM's boundaries", "Mean half-width at which each part ends; the last always ends at the rim.", _svg(figure, "boundaries"))]


def _drift(stats: xr.Dataset) -> list[Plot]:
    if stats.sizes["checkpoint"] < 2:
        return []
    return [plot for where, title in _DRIFTS.items() if f"pearson_to_{where}" in stats for plot in _drift_plot(stats, title, where)]


def _drift_plot(stats: xr.Dataset, title: str, where: str) -> list[Plot]:
    chosen = [map_key for map_key in stats["product"].values if str(map_key).startswith("aligned/")]
    lines = {str(map_key): _of_views(stats, "drift", "pearson", f"_to_{where}", product=map_key) for map_key in chosen}
    told = (
        f"Mean correlation of each test image's raw map with its map at the {where} checkpoint of its series, cell by cell; views weighted equally."
    )
    return [_line_plot(stats, title, told, lines)] if lines else []


def _of_views(stats: xr.Dataset, of: str, figure: str, suffix: str = "", **chosen: str) -> _Line:
    """The mean of a figure over the test images in which each view counts alike; `of` as stages/stats/intervals.py names it: map, image, ..."""
    at = {f"{of}_figure": figure, **chosen}
    return _Line.of(*(stats[f"{of}_of_views{more}{suffix}"].sel(at) for more in ("", "_interval")))


def _agreement(stats: xr.Dataset) -> list[Plot]:
    found = agreement_matrix(stats)
    if found is None:
        return []
    names, values = found
    figure, axes = _axes()
    figure.set_size_inches(1.5 + 0.42 * len(names), 1.2 + 0.38 * len(names))
    axes.imshow(np.ma.masked_invalid(values), cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=7, length=0)
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{round(value, 2) + 0.0:.2f}".replace("0.", ".")  # + 0.0: no minus zero
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if abs(value) > 0.6 else "black")
    caption = f"Mean rank correlation (Spearman) over the cells of the aligned maps at {display_name(stats, -1)}, all images; blank: undefined."
    return [Plot("Which methods agree", caption, _svg(figure, "agreement"))]


def _line_plot(
    stats: xr.Dataset, title: str, caption: str, lines: Mapping[str, _Line], percent: bool = False, dotted: Mapping[str, NDArray[np.floating]] = _NONE
) -> Plot:
    figure, axes = _axes()
    for index, (label, line) in enumerate(lines.items()):
        _draw_bands(axes, stats, line.bounds, _COLOURS[index % len(_COLOURS)])
        _draw_lines(axes, stats, line.values, label, _COLOURS[index % len(_COLOURS)], open_marks=index >= len(_COLOURS))
        if label in dotted:
            _draw_lines(axes, stats, dotted[label], None, _COLOURS[index % len(_COLOURS)], dotted=True)
    if percent:
        axes.yaxis.set_major_formatter(_Percentages(1))
        axes.set_ylim(bottom=0)
    _finish(figure, axes, stats)
    return Plot(title, caption, _svg(figure, title))


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _draw_lines(
    axes: Axes, stats: xr.Dataset, values: np.ndarray, label: str | None, colour: str, *, open_marks: bool = False, dotted: bool = False
) -> None:
    """Draw a figure's values, a line a series and none through several; marks alone where a series has an epoch twice, so that it is no course."""
    names, places = names_in(stats), _places(stats)
    for number, chosen in enumerate(series_of(names).values()):
        dash, mark = _STYLES[number % len(_STYLES)]
        style: dict[str, Any] = (
            {"linestyle": ":", "linewidth": 1, "marker": "_" if len(chosen) == 1 else ""}
            if dotted
            else {"linestyle": dash, "marker": mark, "markersize": 3}
        )
        style |= {} if is_a_course([names[index] for index in chosen]) else {"linestyle": "none", "marker": mark, "markersize": 3}
        fill = "white" if open_marks else colour
        axes.plot(places[chosen], values[chosen], color=colour, markerfacecolor=fill, label=label if number == 0 else None, **style)


def _draw_bands(axes: Axes, stats: xr.Dataset, bounds: NDArray[np.floating], colour: str) -> None:
    """Shade the interval of a figure: a band a series, and bars where it is no course or one checkpoint."""
    names, places = names_in(stats), _places(stats)
    for chosen in series_of(names).values():
        low, high = bounds[chosen].T
        if len(chosen) > 1 and is_a_course([names[index] for index in chosen]):
            axes.fill_between(places[chosen], low, high, color=colour, alpha=0.12, linewidth=0)
        else:
            axes.vlines(places[chosen], low, high, color=colour, alpha=0.4, linewidth=2)


def _finish(figure: Figure, axes: Axes, stats: xr.Dataset) -> None:
    places, names = _places(stats), [display_name(stats, index) for index in range(stats.sizes["checkpoint"])]
    if _by_epoch(stats):
        names = [one.short for one in names_in(stats)]
    ticks = dict(sorted(zip(places.tolist(), names, strict=True)))
    _letter_places(figure, axes, {place: ticks[place] for place in list(ticks)[:: math.ceil(len(ticks) / _MOST_TICKS)]})
    axes.set_xlabel("epoch" if _by_epoch(stats) else "checkpoint")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.legend(handles=[*axes.get_legend_handles_labels()[0], *_series_handles(stats)], fontsize=7, frameon=False, **_BESIDE)


def _letter_places(figure: Figure, axes: Axes, ticks: dict[float, str]) -> None:
    """Write the names below the axis: side by side where they fit, else aslant and no longer than is legible, in a taller figure."""
    short = [name.removeprefix("epoch ") for name in ticks.values()]
    if sum(map(len, short)) <= _LEVEL_CHARACTERS:
        axes.set_xticks(list(ticks), [name.replace("untrained", "un-\ntrained") for name in short])
        return
    axes.set_xticks(list(ticks), [_shortened(name) for name in ticks.values()], rotation=40, ha="right", rotation_mode="anchor")
    width, height = _SIZE_INCHES
    figure.set_size_inches(width, height + _SLANT_INCHES)


def _shortened(name: str) -> str:
    """Return a name with its middle left out where it is too long; both its ends tell checkpoints apart."""
    kept = (_NAME_CHARACTERS - 1) // 2
    return name if len(name) <= _NAME_CHARACTERS else f"{name[:kept]}{ELLIPSIS}{name[-kept:]}"


def _series_handles(stats: xr.Dataset) -> list[Line2D]:
    """Entries of the legend that tell the series by their dashes and marks, where there are several."""
    series = list(series_of(names_in(stats)))
    styles = [(name, _STYLES[number % len(_STYLES)]) for number, name in enumerate(series)] if len(series) > 1 else []
    return [Line2D([], [], color="#555555", linestyle=dash, marker=mark, markersize=3, label=name or "(no series)") for name, (dash, mark) in styles]


def _by_epoch(stats: xr.Dataset) -> bool:
    """Whether the checkpoints stand on the axis by epoch: every one has an epoch, and no series has one twice."""
    names = names_in(stats)
    courses = [is_a_course([names[index] for index in chosen]) for chosen in series_of(names).values()]
    return all(one.epoch is not None for one in names) and all(courses)


def _places(stats: xr.Dataset) -> np.ndarray:
    """Places of the checkpoints on the axis: their epochs, or evenly one after the other."""
    return stats["epoch"].values.astype(float) if _by_epoch(stats) else np.arange(stats.sizes["checkpoint"], dtype=float)


def _svg(figure: Figure, title: str) -> str:
    """Write the figure; its ids are salted by its title, so that they are the same each time and differ within a page."""
    text = io.StringIO()
    with rc_context({"svg.hashsalt": title}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
