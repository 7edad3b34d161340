"""Figures of maps and features that lie in memory, as the stats stage computes them from its stores."""

import numpy as np
import xarray as xr

from stages.cam.facts import FACTS
from stages.cam.map_keys import FACTS_PREFIX, MapKey
from stages.finite import whole_or_nothing
from stages.schema import MASKS
from stages.stats.drift import RankedMaps
from stages.stats.figures import DRIFT_FIGURES, MAP_FIGURES
from stages.stats.gallery import Gallery, in_memory
from stages.stats.groups import labelled
from stages.stats.heat import Heat, Masks
from stages.stats.images import image_figures, keys_of, reduced_drifts, reduced_images
from stages.stats.images import map_figures as all_map_figures
from stages.stats.mean_maps import MapSums
from stages.stats.modules import MODULE_FEATURES

NO_RINGS = np.zeros((4, 4), int)


def heat_of(maps, kind="gradient", ring=NO_RINGS, top_share=0.1, **more):
    return Heat(whole_or_nothing(maps), kind, np.full((len(maps), len(FACTS)), np.nan), ring, 0.01, top_share, **more)


def map_figures(maps, kind, ring, top_share):
    heat = heat_of(maps, kind, ring, top_share)
    return {name: row.function(heat) for name, row in MAP_FIGURES.items() if row.which == "all" and name not in ("status", "clipped")}


def mask_figures(maps, share, centre, kind="gradient"):
    masks = Masks(share.reshape(len(share), -1).astype(float), centre.reshape(len(centre), -1))
    heat = heat_of(maps, kind, masks=masks, on_photo=maps)
    return {name: row.function(heat) for name, row in MAP_FIGURES.items() if row.which == "with a mask"}


def drift_figures(before, after, overlap_share):
    pair = [RankedMaps.of(maps) for maps in (before, after)]
    return {name: row.function(*pair, overlap_share) for name, row in DRIFT_FIGURES.items()}


def map_keys_in(cams):
    return [MapKey.parse(str(key)) for key in cams.data_vars if not str(key).startswith(FACTS_PREFIX)]


def figures_of_images(cams, features, network, settings, others=()):
    """Key -> float64 [n, column], of all arrays of figures; `others`: kind -> Dataset of another checkpoint's maps."""
    map_keys, others = map_keys_in(cams), dict(others)
    arrays = {str(name): features[name].values for name in (*MODULE_FEATURES, *(name for name in MASKS if name in features))}
    maps = {str(key): cams[key].values for key in cams.data_vars}
    beside = {kind: {str(key): found[key].values for key in found.data_vars} for kind, found in others.items()}
    wanted = keys_of(map_keys, others)
    return {"images": image_figures(arrays), **(all_map_figures(maps, arrays, beside, map_keys, wanted, network, settings) if map_keys else {})}


def reduced(parts, cams, groups, network, *, masks=True, kinds=()):
    """Reduce the figures of consecutive images, and the maps themselves, to those of groups."""
    map_keys = map_keys_in(cams)

    def read(key):
        return np.concatenate([part[key] for part in parts])

    found = reduced_images(read, groups, map_keys, network, masks=masks)
    for kind in kinds:
        found |= reduced_drifts(read, groups, map_keys, kind)
    if map_keys:
        sums = MapSums.of([whole_or_nothing(cams[key.key].values) for key in map_keys], groups.index, len(groups.name))
        found |= {name: (("group", "product", "y", "x")[: values.ndim], values) for name, values in sums.statistics().items()}
    return labelled(found, groups, map_keys)


def retrieval(embedding, place, view, roles, valid) -> xr.Dataset:
    gallery = Gallery.of(in_memory(np.asarray(embedding)), place, view, roles, valid)
    return gallery.reduced(gallery.figures())
