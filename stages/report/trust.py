"""How far the maps can be trusted, as the page says it: sentences, a table, and the matrix of agreement between methods."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from stages.cam.map_keys import MapKey

OFTEN = 0.05  # share of the images from which a status is worth a sentence
_SHOWN = 8  # products that a sentence names
SAME = 0.98
INDEPENDENT = 0.9


def trust_sentences(stats: xr.Dataset) -> Iterator[str]:
    """Sentences on the last checkpoint; nothing where the figures are missing."""
    if "status_share" not in stats:
        return
    last = stats.isel(checkpoint=-1)
    yield from _statuses(last)
    yield from _twins(last)
    if "sanity" in last:
        fail = [f"{map_key} ({float(value):.2f})" for map_key, value in _values(last["sanity"]) if value > INDEPENDENT]
        if fail:
            yield (
                f"Nearly the same map with heads that are drawn again (rank correlation over {INDEPENDENT}): {', '.join(fail)}. "
                "Such a map shows the features, not what the heads have learnt (Adebayo et al. 2018)."
            )


def trust_table(stats: xr.Dataset) -> list[dict[str, Any]]:
    """One row per product at the last checkpoint, over all images: bad statuses, completeness, deletion, insertion, sanity."""
    if "status_share" not in stats:
        return []
    last = stats.isel(checkpoint=-1)
    share = _over_groups(last["status_share"], last)
    names = [str(name) for name in share["status"].values if name not in ("ok", "absent")]
    figures = {name: _over_groups(last[name], last) for name in ("residual", "deletion", "insertion", "deletion_random") if name in last}
    if "sanity" in last:
        figures["sanity"] = last["sanity"]
    rows = []
    for map_key in last["product"].values:
        there = 1 - float(share.sel(product=map_key, status="absent"))
        statuses = [_percent(float(share.sel(product=map_key, status=name)) / there) if there > 0 else "-" for name in names]
        rows.append([str(map_key), *statuses, *(_number(float(values.sel(product=map_key))) for values in figures.values())])
    return [
        {
            "title": "Can the maps be trusted?",
            "head": ["position / target / method", *names, *(name.replace("deletion_random", "deletion, random order") for name in figures)],
            "rows": rows,
        }
    ]


def agreement_matrix(stats: xr.Dataset) -> tuple[list[str], np.ndarray] | None:
    """Names and mean rank correlations [q, q] of the aligned maps at the last checkpoint; None where there are fewer than two."""
    if "agreement" not in stats:
        return None
    chosen = [str(map_key) for map_key in stats["product"].values if str(map_key).startswith("aligned/")]
    if len(chosen) < 2:
        return None
    last = stats.isel(checkpoint=-1)
    found = _over_groups(last["agreement"].sel(product=chosen, other=chosen), last)
    return [_short(map_key) for map_key in chosen], found.values


def _statuses(last: xr.Dataset) -> Iterator[str]:
    share = _over_groups(last["status_share"], last)
    there = 1 - share.sel(status="absent")
    words = {"zero": "without positive heat", "clipped": "made with bad denominators", "not finite": "not finite"}
    for status, text in words.items():
        often = [
            (str(p), float(share.sel(product=p, status=status) / there.sel(product=p))) for p in last["product"].values if there.sel(product=p) > 0
        ]
        often = [(map_key, value) for map_key, value in often if value > OFTEN]
        if often:
            shown = ", ".join(f"{map_key} on {value:.0%} of the images" for map_key, value in often[:_SHOWN])
            more = f", and {len(often) - _SHOWN} more (see the table)" if len(often) > _SHOWN else ""
            yield f"Maps that are {text}: {shown}{more}."


def _twins(last: xr.Dataset) -> Iterator[str]:
    """Methods that rank the cells alike: one picture of each pair is enough."""
    if "agreement" not in last:
        return
    mean = _over_groups(last["agreement"], last)
    alike = []
    for one, other in combinations(last["product"].values, 2):
        value = float(mean.sel(product=one, other=other))
        if value > SAME and str(one).startswith("aligned/"):
            alike.append(f"{_short(str(one))} and {_short(str(other))} ({value:.3f})")
    if alike:
        yield f"At the aligned map, these methods rank the cells in the same way, so one picture of each pair is enough: {', '.join(alike)}."


def _over_groups(values: xr.DataArray, stats: xr.Dataset) -> xr.DataArray:
    """Mean over all images: the groups' means weighted by their counts; a group without the figure has no weight."""
    weight = stats["count"].where(values.notnull())
    return (values * weight).sum("group") / weight.sum("group").where(weight.sum("group") > 0)


def _values(values: xr.DataArray) -> Iterator[tuple[str, float]]:
    yield from ((str(map_key), float(value)) for map_key, value in zip(values["product"].values, values.values, strict=True))


def _short(key: str) -> str:
    map_key = MapKey.parse(key)
    return map_key.method if map_key.target == "none" else f"{map_key.method} of {map_key.target}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if np.isfinite(value) else "-"


def _number(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "-"
