"""The heat maps of some images as figures take them: with their masks, their facts, and the maps beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from safenet.architecture import Architecture
from safenet.rings import ring_numbers
from stages.cam.frames import to_photo_frame
from stages.cam.map_keys import MapKey
from stages.cam.methods import METHODS
from stages.cam.names import ON_ALIGNED_GRID
from stages.finite import whole_or_nothing
from stages.schema import MASKS, Arrays
from stages.stats.heat import Heat, Masks
from stages.stats.settings import StatsSettings
from stages.targets.names import NO_TARGET


def heats_of(
    cams: Arrays, features: Arrays, map_keys: Sequence[MapKey], beside: Mapping[MapKey, MapKey | None], network: Architecture, settings: StatsSettings
) -> dict[MapKey, Heat]:
    """Return the maps of some images.

    Parameters
    ----------
    cams : mapping
        Maps (sample, y, x) named by their keys, those beside them included, and facts (sample, fact), in memory.
    features : mapping
        `theta` and `source_cell` of the same samples, and MASKS where there are masks.
    map_keys : sequence of MapKey
        The maps that figures are wanted of.
    beside : mapping
        Of `exact_beside`.
    network : Architecture
        FAM's sampling, and whether scores are affine in the map: else no map is exact.
    settings : StatsSettings
    """
    values = {key: whole_or_nothing(cams[key.key]) for key in dict.fromkeys([*map_keys, *filter(None, beside.values())])}
    masks = _masks(features) if all(name in features for name in MASKS) else None
    on_photo = _on_photo(values, map_keys, features, network) if masks else {}
    return {
        key: Heat(
            values[key],
            METHODS[key.method].kind,
            cams[key.facts_key],
            ring_numbers((values[key].shape[1], values[key].shape[2])),
            settings.low_contrast_below,
            settings.top_share,
            masks,
            on_photo.get(key),
            network.is_linear and key.exact,
            None if (exact := beside.get(key)) is None else values[exact],
        )
        for key in map_keys
    }


def exact_beside(map_keys: Sequence[MapKey], network: Architecture) -> dict[MapKey, MapKey | None]:
    """Return for each map the exact one that deletion is measured with: of its score, at its position.

    A class-free map is held against the first of them. None where there is none, or scores are not affine in the map.
    """
    exact = [key for key in map_keys if key.exact and key.method == "hires_cam"] if network.is_linear else []

    def of(key: MapKey) -> MapKey | None:
        return next((p for p in exact if p.position == key.position and key.target in (p.target, NO_TARGET)), None)

    return {key: of(key) for key in map_keys}


def _masks(features: Arrays) -> Masks:
    share, centre = (features[name].reshape(len(features[name]), -1) for name in MASKS)
    return Masks(share.astype(np.float64), centre)


def _on_photo(
    values: Mapping[MapKey, NDArray[np.floating]], map_keys: Sequence[MapKey], features: Arrays, network: Architecture
) -> dict[MapKey, NDArray[np.floating]]:
    """Carry the maps of the aligned grid to the photo's, all of one kind at once: they share their warp."""
    found: dict[MapKey, NDArray[np.floating]] = {}
    for additive in (False, True):
        chosen = [key for key in map_keys if key.position in ON_ALIGNED_GRID and key.additive == additive]
        if chosen:
            several = np.stack([values[key] for key in chosen], axis=1)
            carried = to_photo_frame(several, features["theta"], features["source_cell"], network.sampling, additive)
            found |= {key: carried[:, number] for number, key in enumerate(chosen)}
    return found
