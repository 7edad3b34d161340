"""Agreement between methods: rank correlations between the maps of an image at one position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from stages.cam.map_keys import MapKey
from stages.stats.heat import Float
from stages.stats.ranks import Ranking, correlations
from stages.stats.reductions import mean


def by_position(map_keys: Sequence[MapKey]) -> dict[str, list[MapKey]]:
    """Maps by their position, in order."""
    return {position: [key for key in map_keys if key.position == position] for position in sorted({key.position for key in map_keys})}


def pairs_of(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the two numbers of each pair of `count` maps, every map with itself included."""
    one, other = zip(*combinations_with_replacement(range(count), 2), strict=True)
    return np.array(one), np.array(other)


def agreement(rankings: Sequence[Ranking]) -> Float:
    """Spearman's rank correlation of each pair of maps [n, H, W] of q methods.

    Returns
    -------
    float64 [n, q (q + 1) / 2]
        In the order of `pairs_of`; NaN where a map is undefined or the same everywhere.
    """
    return np.asarray(correlations(list(rankings))[:, *pairs_of(len(rankings))])


def reduced_agreement(values: Mapping[str, NDArray[np.floating]], map_keys: Sequence[MapKey], members: Sequence[NDArray[np.intp]]) -> Float:
    """Mean over the images of each group.

    Parameters
    ----------
    values : mapping
        Position -> float [sample, pair] of `agreement`.
    map_keys : sequence of MapKey
    members : sequence of int arrays
        Numbers of the samples of each group.

    Returns
    -------
    float64 [group, map, map]
        NaN between maps of different positions.
    """
    found = np.full((len(members), len(map_keys), len(map_keys)), np.nan)
    for position, keys in by_position(map_keys).items():
        numbers = np.array([map_keys.index(key) for key in keys])
        one, other = (numbers[chosen] for chosen in pairs_of(len(keys)))
        means = np.stack([mean(values[position][chosen].astype(np.float64), {}) for chosen in members])
        found[:, one, other] = found[:, other, one] = means
    return found
