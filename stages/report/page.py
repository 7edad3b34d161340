"""Figures, sentences and pictures -> one HTML page that needs no server and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import xarray as xr
from jinja2 import Environment

from stages.cam.map_keys import MapKey
from stages.labels import display_name, each_series
from stages.report.findings import findings
from stages.report.plots import draw_plots
from stages.report.trust import trust_table
from stages.stats.figures import figures_shown
from stages.stats.means import mean_of_views, tested_groups
from stages.targets.names import NO_TARGET


@dataclass(frozen=True)
class Mosaic:
    """A picture of the page: where it lies, relative to the page, and what it shows."""

    source: str
    kind: str
    caption: str


MOSAIC_HEADS: Mapping[str, str] = {
    "epochs": "By epoch: one row per image, one column per checkpoint",
    "paper": "Input, aligned image, partition, heat map",
    "positions": "By position: before FAM, after FAM, after FPM",
    "methods": "By method: one row per method, one column per position",
    "depth": "By depth: one column per transformer block",
    "pair": "A pair from both sides: what makes it similar, and which cells are similar to which",
    "change": "From the first checkpoint to the last: what the features changed, what the head, what both together",
}


def report_page(title: str, facts: Mapping[str, str], stats: xr.Dataset, mosaics: Sequence[Mosaic]) -> str:
    """Return the page as HTML text.

    Parameters
    ----------
    title : str
    facts : mapping
        What was run: label -> text.
    stats : Dataset
        The joined figures; see `findings`.
    mosaics : sequence of Mosaic
        In the order of the page, grouped by kind.
    """
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("stages.report").joinpath("report.html.j2").read_text("utf-8")
    )
    groups = [(head, [mosaic for mosaic in mosaics if mosaic.kind == kind]) for kind, head in MOSAIC_HEADS.items()]
    return template.render(
        title=title,
        facts=facts,
        findings=findings(stats),
        plots=draw_plots(stats),
        tables=[_retrieval_table(stats), *_variant_tables(stats), *_tables_of_series(stats)],
        mosaics=[(head, pictures) for head, pictures in groups if pictures],
    )


def epoch_tables(stats: xr.Dataset) -> dict[str, list[dict[str, str]]]:
    """Return a table a target, one row per checkpoint: Recall@1, and where there are masks, pointing and energy of the aligned maps of test images.

    Returns
    -------
    dict
        Target -> rows; each row maps column heads to texts. Without gradient maps: one table, "none".
    """
    map_keys = [MapKey.parse(str(key)) for key in stats["product"].values] if "product" in stats else []
    gradient = [map_key for map_key in map_keys if map_key.position == "aligned" and map_key.target != NO_TARGET]
    targets = sorted({map_key.target for map_key in gradient}) or [NO_TARGET]
    return {
        target: [_epoch_row(stats, index, [p for p in gradient if p.target == target]) for index in range(stats.sizes["checkpoint"])]
        for target in targets
    }


def _epoch_row(stats: xr.Dataset, index: int, map_keys: Sequence[MapKey]) -> dict[str, str]:
    at = stats.isel(checkpoint=index)
    test = at.sel(group=tested_groups(stats))
    row = {"checkpoint": display_name(stats, index)}
    row |= {f"R@1 {name}": _percent(at["recall_1"].sel(direction=name)) for name in stats["direction"].values}
    for figure in [name for name in ("pointing", "energy") if name in stats]:
        row |= {f"{figure} {map_key.method}": _percent(mean_of_views(test[figure].sel(product=map_key.key))) for map_key in map_keys}
    return row


_RETRIEVAL: Mapping[str, str] = {
    "recall_1": "R@1",
    "recall_5": "R@5",
    "recall_10": "R@10",
    "recall_top1pct": "R@top 1 %",
    "average_precision": "AP",
}


def _retrieval_table(stats: xr.Dataset) -> dict[str, Any]:
    names = _RETRIEVAL
    head = ["checkpoint", *(f"{label} {direction}" for direction in stats["direction"].values for label in names.values())]
    rows = [
        [
            display_name(stats, index),
            *(_percent(stats[name].isel(checkpoint=index).sel(direction=d)) for d in stats["direction"].values for name in names),
        ]
        for index in range(stats.sizes["checkpoint"])
    ]
    return {"title": "Retrieval", "head": head, "rows": rows}


def _variant_tables(stats: xr.Dataset) -> list[dict[str, Any]]:
    """Retrieval by flight height, where there are several: a row a checkpoint and height."""
    if "variant" not in stats.dims:
        return []
    head = ["checkpoint", "variant", *(f"{label} {direction}" for direction in stats["direction"].values for label in _RETRIEVAL.values())]
    rows = [
        [
            display_name(stats, index),
            str(variant),
            *(
                _percent(stats[f"{name}_by_variant"].isel(checkpoint=index).sel(variant=variant, direction=direction))
                for direction in stats["direction"].values
                for name in _RETRIEVAL
            ),
        ]
        for index in range(stats.sizes["checkpoint"])
        for variant in stats["variant"].values
    ]
    return [{"title": "Retrieval by flight height of the drone images", "head": head, "rows": rows}]


def _tables_of_series(stats: xr.Dataset) -> list[dict[str, Any]]:
    """What is told of a series' last checkpoint, series by series."""
    tables = [(name, table) for name, part in each_series(stats) for table in (*trust_table(part), *_map_tables(part))]
    return [{**table, "title": f"{name}: {table['title']}" if name else table["title"]} for name, table in tables]


def _map_tables(stats: xr.Dataset) -> list[dict[str, Any]]:
    """One table per group of images: each map at the last checkpoint."""
    present = {name: row for name, row in figures_shown("table").items() if name in stats}
    tables = []
    for group in stats["group"].values if "product" in stats.dims else ():
        at = stats.isel(checkpoint=-1).sel(group=group)
        rows = [
            [str(map_key), *(_figure(row.unit, at[name].sel(product=map_key)) for name, row in present.items())]
            for map_key in stats["product"].values
        ]
        tables.append(
            {
                "title": f"Maps of {display_name(stats, -1)}: {group}",
                "head": ["position / target / method", *(row.label for row in present.values())],
                "rows": rows,
            }
        )
    return tables


def _figure(unit: str, value: xr.DataArray) -> str:
    return _percent(value) if unit == "share" else f"{float(value):.3g}" if np.isfinite(value) else "-"


def _percent(value: xr.DataArray) -> str:
    return f"{100 * float(value):.1f} %" if np.isfinite(value) else "-"
