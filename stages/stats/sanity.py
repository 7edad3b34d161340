"""The head-randomisation check: a map that stays the same when the heads are drawn again does not explain them.

Adebayo et al. 2018, "Sanity checks for saliency maps", arXiv:1810.03292, section 3. Here only the heads are drawn again:
a map of stored features depends on no other weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from safenet.architecture import Architecture
from safenet.head_arrays import HEAD_ARRAYS, draw_head
from stages.cam.map_keys import MapKey
from stages.schema import HEAD_PREFIX, Arrays
from stages.stats.faithfulness import rank_correlation
from stages.targets.names import NO_TARGET, parse_target


def fresh_heads(network: Architecture, seed: int) -> dict[str, NDArray[np.float32]]:
    """Heads as training starts from them, as the feature store holds heads.

    Parameters
    ----------
    network : Architecture
    seed : int

    Returns
    -------
    dict
        The variables head_<name>, [head, ...], parts first, the global head last.
    """
    random = np.random.default_rng(seed)
    arrays = [draw_head(network, random) for _ in network.head_names]
    return {f"{HEAD_PREFIX}{name}": np.stack([one[name] for one in arrays]) for name in HEAD_ARRAYS}


def can_be_checked(map_key: MapKey) -> bool:
    """Whether the map depends on the heads, and other heads can replace them: not at blocks, nor with the embedding of the flipped image."""
    return map_key.target != NO_TARGET and not map_key.is_stored_gradient and not parse_target(map_key.target).flip


def sanity_figures(maps: Arrays, randomised: Arrays, map_keys: Sequence[MapKey]) -> NDArray[np.float64]:
    """Spearman's rank correlation of each map with the same under fresh heads.

    Parameters
    ----------
    maps, randomised : mapping
        Maps [n, y, x] named by their keys, in memory.
    map_keys : sequence of MapKey

    Returns
    -------
    float64 [n, map]
        Near 0: the map depends on what the heads have learnt. Near 1: it would look the same with any heads. NaN where a map is undefined, and for
        maps that cannot be checked.
    """
    nothing: NDArray[np.float64] = np.full(len(next(iter(maps.values()))), np.nan)
    rows = [rank_correlation(maps[key.key], randomised[key.key]) if can_be_checked(key) else nothing for key in map_keys]
    return np.stack(rows, axis=1)
