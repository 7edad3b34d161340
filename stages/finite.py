"""Rows that are not finite: found before anything is computed from them, so that one image never affects another.

Half precision overflows on some networks, and one image is enough. Such a row must never meet an index, a grid, a mean over other images, a rank or
a scale: `neutral` puts harmless values in its place, and what is made of them is NaN in the end.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from stages.schema import FEATURES, Arrays

_LARGE = frozenset({"patch_map", "aligned_map", "block_map"})  # looked at where they are converted, since a pass of its own would take long


def finite_rows(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Whether all of a row is finite, [n, ...] -> bool [n]."""
    if values.dtype.kind != "f":
        return np.ones(len(values), bool)
    return np.asarray(np.isfinite(values).all(axis=tuple(range(1, values.ndim))))


def whole_or_nothing(maps: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return `maps` [n, ...] with all of a map NaN where any cell is not finite; the same array where there is none."""
    finite = finite_rows(maps)
    if finite.all():
        return maps
    found = maps.copy()
    found[~finite] = np.nan
    return found


def neutral(arrays: Arrays, per_sample: Iterable[str]) -> tuple[dict[str, NDArray], dict[str, NDArray[np.bool_]]]:
    """Put zeros (for theta the identity) in the place of rows that are not finite.

    Parameters
    ----------
    arrays : mapping
        Feature variables of some samples.
    per_sample : iterable of str
        Those with an entry a sample. The large maps are left as they are: see `stages.cam.positions`.

    Returns
    -------
    dict
        `arrays`, the changed ones copied.
    dict
        Variable -> bool [n], True where a row is not finite; without the variables whose rows are all finite.
    """
    found, spoilt = dict(arrays), {}
    for name in per_sample:
        if name in _LARGE or name not in FEATURES or FEATURES[name].nan_means_none:
            continue  # what is no feature, as a reference, is NaN where there is none
        bad = ~finite_rows(arrays[name])
        if bad.any():
            found[name] = arrays[name].copy()
            found[name][bad] = np.eye(2, 3) if name == "theta" else 0
            spoilt[name] = bad
    return found, spoilt
