"""All figures of some images of a checkpoint, and what becomes of them over groups: plain arrays, each with a key.

`images` holds the figures of an image, `maps/<map>` those of one of its maps, `previous/<map>`, `first/<map>` and `last/<map>` those of the map
there and at another checkpoint, `agreement/<position>` the rank correlations between the maps of a position.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from safenet.architecture import Architecture
from stages.cam.map_keys import MapKey
from stages.schema import Arrays
from stages.stats import intervals
from stages.stats.agreement import agreement, by_position, reduced_agreement
from stages.stats.bootstrap import PlaceBootstrap
from stages.stats.compared import COMPARED
from stages.stats.drift import RankedMaps, ranked
from stages.stats.figures import (
    DRIFT_FIGURES,
    IMAGE_FIGURES,
    MAP_FIGURES,
    Figure,
    drifts_of,
    figures_of,
    figures_of_map,
    mean_columns,
    reduced,
    wanted_figures,
)
from stages.stats.groups import Groups
from stages.stats.heat import Float
from stages.stats.heats import exact_beside, heats_of
from stages.stats.intervals import Intervals, Variables
from stages.stats.modules import MODULE_FEATURES, WARP_FIGURES, Modules
from stages.stats.settings import StatsSettings
from stages.stats.trust import STATUS_NAMES

IMAGES, MAPS, AGREEMENT = "images", "maps", "agreement"
_AT_ONCE = 8  # maps whose sums by place are in memory


def keys_of(map_keys: Sequence[MapKey], kinds: Iterable[str] = ()) -> list[str]:
    """Return the keys of all arrays of figures; `kinds` are those of COMPARED that there is a checkpoint to compare with."""
    positions = [f"{AGREEMENT}/{position}" for position in by_position(map_keys)]
    return [IMAGES, *(f"{kind}/{map_key.key}" for kind in (MAPS, *kinds) for map_key in map_keys), *positions]


def sizes_of(network: Architecture) -> dict[str, int]:
    """Sizes of the dims of figures."""
    return {"ring": network.rings, "part": network.parts, "warp": len(WARP_FIGURES), "status": len(STATUS_NAMES)}


def image_figures(features: Arrays) -> Float:
    """Compute the figures of some images from MODULE_FEATURES, float64 [n, column]."""
    return figures_of(IMAGE_FIGURES, Modules(**{name: features[name] for name in MODULE_FEATURES}))


def map_figures(
    cams: Arrays,
    features: Arrays,
    others: Mapping[str, Arrays],
    map_keys: Sequence[MapKey],
    wanted: Collection[str],
    network: Architecture,
    settings: StatsSettings,
) -> dict[str, Float]:
    """Compute figures of the maps of some images; every map is ranked once.

    Parameters
    ----------
    cams : mapping
        What `read_for` names, (sample, y, x) and (sample, fact), in memory.
    features : mapping
        `theta` and `source_cell` of the same samples, and MASKS where there are masks.
    others : mapping
        Key of COMPARED -> maps of another checkpoint, (sample, y, x), by their keys. Figures of a map that it lacks are NaN.
    map_keys : sequence of MapKey
        All maps of the checkpoint at the positions that `wanted` speaks of.
    wanted : collection of str
        Keys of the arrays to compute.
    network : Architecture
    settings : StatsSettings

    Returns
    -------
    dict
        Key -> float64 [n, column].
    """
    chosen = {kind: [key for key in map_keys if f"{kind}/{key.key}" in wanted] for kind in (MAPS, *others)}
    needed, beside = _needed(map_keys, wanted, network)
    table, sizes = wanted_figures(MAP_FIGURES, masks="mask_share" in features), sizes_of(network)
    heats = heats_of(cams, features, needed, beside, network, settings)
    found = {f"{MAPS}/{key.key}": figures_of_map(table, heats[key], sizes) for key in chosen[MAPS]}
    for kind, maps in others.items():
        after = ranked({key: heats[key] for key in chosen[kind]})
        before = {key: RankedMaps.of(maps[key.key]) for key in chosen[kind] if key.key in maps}
        found |= {f"{kind}/{key.key}": values for key, values in drifts_of(before, after, settings.overlap_share).items()}
    for position, keys in by_position(map_keys).items():
        if f"{AGREEMENT}/{position}" in wanted:
            found[f"{AGREEMENT}/{position}"] = agreement([heats[key].ranking for key in keys])
    return found


def read_for(map_keys: Sequence[MapKey], wanted: Collection[str], network: Architecture) -> list[str]:
    """Name the arrays of heat maps and facts that `map_figures` reads."""
    needed, beside = _needed(map_keys, wanted, network)
    return [*dict.fromkeys(key.key for key in [*needed, *beside.values()]), *(key.facts_key for key in needed)]


def _needed(map_keys: Sequence[MapKey], wanted: Collection[str], network: Architecture) -> tuple[list[MapKey], dict[MapKey, MapKey]]:
    """The maps to look at, and the exact ones beside those whose own figures are wanted."""
    needed = [key for key in map_keys if any(f"{kind}/{name}" in wanted for kind, name in _names(key))]
    exact = exact_beside(map_keys, network)
    return needed, {key: other for key in needed if (other := exact[key]) and f"{MAPS}/{key.key}" in wanted}


def _names(key: MapKey) -> list[tuple[str, str]]:
    return [*((kind, key.key) for kind in (MAPS, *COMPARED)), (AGREEMENT, key.position)]


def reduced_images(
    read: Callable[[str], NDArray[np.floating]],
    groups: Groups,
    map_keys: Sequence[MapKey],
    network: Architecture,
    *,
    masks: bool,
    bootstrap: PlaceBootstrap | None = None,
) -> Variables:
    """Reduce the figures of all images to those of groups; one array of figures at a time is in memory.

    Parameters
    ----------
    read : callable
        Key of `keys_of` -> figures, float [sample, column].
    groups : Groups
    map_keys : sequence of MapKey
    network : Architecture
    masks : bool
        Whether there are figures that need a mask.
    bootstrap : PlaceBootstrap, optional
        Without it there are no intervals.

    Returns
    -------
    dict
        Name -> (dims, float64 values), dims (group, product, ...). Intervals as stages/stats/intervals.py names them.
    """
    members, sizes, table = groups.members, sizes_of(network), wanted_figures(MAP_FIGURES, masks=masks)
    of_images = read(IMAGES)
    found: Variables = {name: (("group", *dims), values) for name, (dims, values) in reduced(IMAGE_FIGURES, of_images, members, sizes).items()}
    found["count"] = (("group",), groups.sizes)
    if bootstrap:
        columns = mean_columns(IMAGE_FIGURES, sizes)
        certain = Intervals(groups, bootstrap)
        found |= intervals.of_images(certain.of([certain.sums(of_images, columns)]), columns, "image_figure")
    if map_keys:
        found |= _by_maps(table, lambda key: read(f"{MAPS}/{key.key}"), groups, map_keys, sizes, bootstrap, "map_figure")
        agreements = {position: read(f"{AGREEMENT}/{position}") for position in by_position(map_keys)}
        found["agreement"] = (("group", "product", "other"), reduced_agreement(agreements, map_keys, members))
    return found


def reduced_drifts(
    read: Callable[[str], NDArray[np.floating]], groups: Groups, map_keys: Sequence[MapKey], kind: str, bootstrap: PlaceBootstrap | None = None
) -> Variables:
    """Reduce the drift between two checkpoints, `kind` a key of COMPARED; the other parameters as in `reduced_images`."""
    drifts = _by_maps(DRIFT_FIGURES, lambda key: read(f"{kind}/{key.key}"), groups, map_keys, {}, bootstrap, "drift_figure")
    return {name if dims == (name,) else f"{name}_to_{kind}": (dims, values) for name, (dims, values) in drifts.items()}  # no suffix for a coordinate


def _by_maps(
    table: Mapping[str, Figure],
    read: Callable[[MapKey], NDArray[np.floating]],
    groups: Groups,
    map_keys: Sequence[MapKey],
    sizes: Mapping[str, int],
    bootstrap: PlaceBootstrap | None,
    dim: str,
) -> Variables:
    """Reduce the figures of one map after the other, each read once."""
    means, found, columns = [], [], mean_columns(table, sizes)
    certain = Intervals(groups, bootstrap) if bootstrap else None
    for start in range(0, len(map_keys), _AT_ONCE):
        sums = []
        for key in map_keys[start : start + _AT_ONCE]:
            values = read(key)
            means.append(reduced(table, values, groups.members, sizes))
            sums += [certain.sums(values, columns)] if certain else []
        found += [certain.of(sums)] if certain else []
    return _by_map(means) | (intervals.of_maps(intervals.joined(found), columns, dim) if found else {})


def _by_map(figures: Sequence[Variables]) -> Variables:
    """Join the figures of the groups, map by map, [group, ...] each, to [group, map, ...]."""
    return {
        name: (("group", "product", *dims), np.stack([one[name][1] for one in figures], axis=1))
        for name, (dims, _) in (figures[0] if figures else {}).items()
    }
