"""Figures per sample of how far its maps can be trusted, from the maps and their facts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stages.cam.facts import FACTS, STATUS
from stages.cam.map_keys import MapKey
from stages.stats.faithfulness import completeness_residual, deletion_area, rank_agreement
from stages.targets.names import NO_TARGET

STATUS_NAMES = [row.name for row in STATUS.values()]
_Figures = dict[str, tuple[tuple[str, ...], NDArray[np.float64]]]


def trust_figures(cams: xr.Dataset, map_keys: Sequence[MapKey], is_linear: bool) -> _Figures:
    """Return what is said of every product of a block.

    Parameters
    ----------
    cams : Dataset
        Maps (sample, y, x) named by their keys, and facts (sample, fact), in memory.
    products : sequence of Product
    is_linear : bool
        Whether the scores are affine in the map; else no map is exact, and what is left of a score is not a sum.

    Returns
    -------
    dict
        Variables (dims, float64): `status_share` (sample, product, status) 1 at the map's status; `clipped` share of bad denominators; `residual` of
        exact maps (see `completeness_residual`); `deletion` and `insertion`, areas under the curves of an affine score (see `deletion_area`), where
        the exact map of that score and position is among the products (a class-free map is held against the first of them); `agreement`
        (sample, product, other) rank correlation with the other maps of its position. NaN where undefined.
    """
    facts = {name: np.stack([cams[p.facts_key].values[:, column] for p in map_keys], axis=1) for column, name in enumerate(FACTS)}
    codes = facts["status"][..., None] == np.array(list(STATUS))
    exact = [map_key for map_key in map_keys if is_linear and map_key.exact]
    deleted = np.stack([_deletion(cams, map_key, [p for p in exact if p.method == "hires_cam"]) for map_key in map_keys], axis=1)
    return {
        "status_share": (("sample", "product", "status"), codes.astype(np.float64)),
        "clipped": (("sample", "product"), facts["clipped"].astype(np.float64)),
        "residual": (("sample", "product"), np.stack([_residual(cams, map_key, map_key in exact) for map_key in map_keys], axis=1)),
        "deletion": (("sample", "product"), deleted),
        "insertion": (("sample", "product"), 1 - deleted),
        "agreement": (("sample", "product", "other"), _agreement(cams, map_keys)),
    }


def _residual(cams: xr.Dataset, map_key: MapKey, is_exact: bool) -> NDArray[np.float64]:
    facts = cams[map_key.facts_key].values
    if not is_exact:
        return np.full(len(facts), np.nan)
    return completeness_residual(cams[map_key.key].values, facts[:, FACTS.index("score")], facts[:, FACTS.index("constant")])


def _deletion(cams: xr.Dataset, map_key: MapKey, exact: Sequence[MapKey]) -> NDArray[np.float64]:
    own = [p for p in exact if p.position == map_key.position and map_key.target in (p.target, NO_TARGET)]
    if not own:
        return np.full(cams.sizes["sample"], np.nan)
    return deletion_area(cams[map_key.key].values, cams[own[0].key].values)


def _agreement(cams: xr.Dataset, map_keys: Sequence[MapKey]) -> NDArray[np.float64]:
    found = np.full((cams.sizes["sample"], len(map_keys), len(map_keys)), np.nan)
    for position in {map_key.position for map_key in map_keys}:
        here = [index for index, map_key in enumerate(map_keys) if map_key.position == position]
        maps = np.stack([cams[map_keys[index].key].values for index in here])
        found[:, np.array(here)[:, None], here] = rank_agreement(maps)
    return found
