"""Which pictures are drawn: the choice of maps, places and images."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from stages.cam.map_keys import MapKey
from stages.cam.methods import METHODS
from stages.naming import known
from stages.render.settings import RenderSettings
from stages.spreading import spread
from stages.targets.names import NO_TARGET


def choose_drawn(map_keys: Sequence[MapKey], settings: RenderSettings) -> list[tuple[str, str]]:
    """Return the (method, target) pairs to draw, in the order of the settings.

    Raises
    ------
    ValueError
        If a method or target is asked for that [cam] does not compute.
    """
    methods, targets = ({getattr(map_key, name) for map_key in map_keys} for name in ("method", "target"))
    for name in settings.methods:
        known(name, methods, "render.methods (of those in cam.methods)")
    for name in settings.targets:
        known(name, targets - {NO_TARGET}, "render.targets (of those in cam.targets)")
    pairs = dict.fromkeys((map_key.method, map_key.target) for map_key in map_keys)
    chosen = [
        (method, target)
        for method, target in pairs
        if (not settings.methods or method in settings.methods) and (target == NO_TARGET or not settings.targets or target in settings.targets)
    ]
    order = {method: index for index, method in enumerate(settings.methods or METHODS)}
    return sorted(chosen, key=lambda pair: (order[pair[0]], pair[1]))


def choose_places(manifest: pd.DataFrame, settings: RenderSettings) -> list[str]:
    """Name the places to draw: those asked for, or the first test places (else any) that have both views.

    Raises
    ------
    ValueError
        If a named place is not in the manifest.
    """
    good = manifest[manifest["problem"] == ""]
    if settings.places:
        return [known(name, good["place"].unique(), "render.places") for name in settings.places]
    tested = good[good["split"] == "test"]
    pool = tested if len(tested) else good
    views = pool.groupby("place")["view"].nunique()
    complete = views[views == views.max()]
    return sorted(complete.index)[: settings.place_count]


def choose_images(manifest: pd.DataFrame, place: str, settings: RenderSettings) -> pd.DataFrame:
    """Rows of one place to draw: one satellite image and a few drone images, evenly spread; any others where there are neither."""
    rows = manifest[(manifest["place"] == place) & (manifest["problem"] == "")]
    satellite, drone = rows[rows["view"] == "satellite"].head(1), rows[rows["view"] == "drone"]
    chosen = pd.concat([satellite, drone.iloc[spread(len(drone), settings.drone_views)]])
    return chosen if len(chosen) else rows.iloc[spread(len(rows), settings.drone_views + 1)]
