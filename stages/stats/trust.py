"""Figures per sample of how far its maps can be trusted, from the maps and their facts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stages.cam.facts import FACTS, STATUS
from stages.cam.products import Product
from stages.stats.faithfulness import completeness_residual, deletion_area, rank_agreement
from stages.targets.names import NO_TARGET

STATUS_NAMES = [row.name for row in STATUS.values()]
_Figures = dict[str, tuple[tuple[str, ...], NDArray[np.float64]]]


def trust_figures(cams: xr.Dataset, products: Sequence[Product], is_linear: bool) -> _Figures:
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
    facts = {name: np.stack([cams[p.facts_key].values[:, column] for p in products], axis=1) for column, name in enumerate(FACTS)}
    codes = facts["status"][..., None] == np.array(list(STATUS))
    exact = [product for product in products if is_linear and product.exact]
    deleted = np.stack([_deletion(cams, product, [p for p in exact if p.method == "hires_cam"]) for product in products], axis=1)
    return {
        "status_share": (("sample", "product", "status"), codes.astype(np.float64)),
        "clipped": (("sample", "product"), facts["clipped"].astype(np.float64)),
        "residual": (("sample", "product"), np.stack([_residual(cams, product, product in exact) for product in products], axis=1)),
        "deletion": (("sample", "product"), deleted),
        "insertion": (("sample", "product"), 1 - deleted),
        "agreement": (("sample", "product", "other"), _agreement(cams, products)),
    }


def _residual(cams: xr.Dataset, product: Product, is_exact: bool) -> NDArray[np.float64]:
    facts = cams[product.facts_key].values
    if not is_exact:
        return np.full(len(facts), np.nan)
    return completeness_residual(cams[product.key].values, facts[:, FACTS.index("score")], facts[:, FACTS.index("constant")])


def _deletion(cams: xr.Dataset, product: Product, exact: Sequence[Product]) -> NDArray[np.float64]:
    own = [p for p in exact if p.position == product.position and product.target in (p.target, NO_TARGET)]
    if not own:
        return np.full(cams.sizes["sample"], np.nan)
    return deletion_area(cams[product.key].values, cams[own[0].key].values)


def _agreement(cams: xr.Dataset, products: Sequence[Product]) -> NDArray[np.float64]:
    found = np.full((cams.sizes["sample"], len(products), len(products)), np.nan)
    for position in {product.position for product in products}:
        here = [index for index, product in enumerate(products) if product.position == position]
        maps = np.stack([cams[products[index].key].values for index in here])
        found[:, np.array(here)[:, None], here] = rank_agreement(maps)
    return found
