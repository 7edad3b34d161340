"""Retrieval by flight height: how well a place is found from 150 m, and from 300 m."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stages.index.variants import variants_in, variants_of
from stages.stats.groups import retrieval


def retrieval_by_variant(
    embedding: NDArray[np.floating],
    place: Sequence[str],
    view: Sequence[str],
    roles: Sequence[str],
    valid: Sequence[bool],
    variant: Sequence[str],
    chosen: Collection[str] = (),
) -> xr.Dataset:
    """Return the figures of `retrieval` as `<figure>_by_variant`, dims (variant, direction); nothing where the drones flew at one height alone.

    Parameters
    ----------
    embedding, place, view, roles, valid
        As `retrieval` takes them.
    variant : sequence of str
        Flight heights of each image, joined by "+".
    chosen : collection of str
        The heights to look at; none: all.

    Notes
    -----
    The heights are the drones': at 150, the drone queries of 150 are looked for in the whole satellite gallery, and all satellite
    queries among the drone images of 150.
    """
    drone, usable = np.asarray(view) == "drone", np.asarray(valid, bool)
    flown = variants_in(text for text, here in zip(variant, drone & usable, strict=True) if here)
    heights = [name for name in flown if not chosen or name in chosen]
    if len(heights) < 2:
        return xr.Dataset()
    figures = []
    for height in heights:
        here = np.array([height in variants_of(text) for text in variant], bool)
        rows = np.flatnonzero(usable & (here | ~drone))
        places, views, serves = (np.asarray(values, dtype=object)[rows].tolist() for values in (place, view, roles))
        figures.append(retrieval(embedding[rows], places, views, serves, [True] * len(rows)))
    joined = xr.concat(figures, dim="variant").assign_coords(variant=("variant", np.array(heights, dtype=object)))
    return joined.rename({name: f"{name}_by_variant" for name in joined.data_vars})
