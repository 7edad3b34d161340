"""Joined figures that a test makes up, with intervals around them."""

import numpy as np
import xarray as xr

from stages.stats.means import mean_of_views, tested_groups
from stages.stats.retrieval import RETRIEVAL_FIGURES

HALF = 0.05  # of every interval


def with_intervals(stats: xr.Dataset, spread=0.01) -> xr.Dataset:
    """Add what `stats` tells beside the means: every interval is the mean +- HALF, and the draws of retrieval are normal with this spread.

    The draws of one direction go up and down together, so that differences between checkpoints spread no more than a hundredth of that.
    """
    of_maps = {name: stats[name] for name in stats.data_vars if stats[name].dims == ("checkpoint", "group", "product") and "_to_" not in name}
    of_images = {
        "moved_cells": stats["moved_cells"],
        **{f"warp_{name}": stats["warp_mean"].sel(warp=name, drop=True) for name in stats["warp"].values},
    }
    drift = {"pearson": stats["pearson_to_last"]} if "pearson_to_last" in stats else {}
    shuffled = {name: stats[name] / 2 for name in ("pointing", "energy") if name in stats}
    found = {
        **_told(stats, shuffled, "shuffled"),
        **_told(stats, of_maps, "map"),
        **_told(stats, of_images, "image"),
        **_told(stats, drift, "drift", "_to_last"),
    }
    recall = xr.concat([stats[name] for name in RETRIEVAL_FIGURES], "retrieval", coords="minimal").assign_coords(retrieval=list(RETRIEVAL_FIGURES))
    random = np.random.default_rng(0)
    common, own = random.standard_normal(2000), random.standard_normal((*recall.shape, 2000)) / 100
    draws = xr.DataArray(recall.values[..., None] + spread * (common + own), dims=(*recall.dims, "draw"))
    if shuffled:
        found["shuffled"] = xr.concat(list(shuffled.values()), "shuffled_figure", coords="minimal").assign_coords(shuffled_figure=list(shuffled))
    return stats.assign(found | {"retrieval_interval": _around(recall), "retrieval_draws": draws, "retrieval_places": stats["recall_1"] * 0 + 40})


def _told(stats, figures, of, suffix=""):
    if not figures:
        return {}
    dim = f"{of}_figure"
    joined = xr.concat(list(figures.values()), dim, coords="minimal").assign_coords({dim: list(figures)})
    views = mean_of_views(joined.sel(group=tested_groups(stats)))
    return {f"{of}_interval{suffix}": _around(joined), f"{of}_of_views{suffix}": views, f"{of}_of_views_interval{suffix}": _around(views)}


def _around(values):
    return xr.concat([values - HALF, values + HALF], "bound").assign_coords(bound=["low", "high"])
