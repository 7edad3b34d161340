"""Retrieval by flight height: how well a place is found from 150 m, and from 300 m."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import xarray as xr

from stages.index.variants import variants_in, variants_of
from stages.stats.gallery import Gallery


def retrieval_by_variant(gallery: Gallery, variant: Sequence[str], chosen: Collection[str] = ()) -> xr.Dataset:
    """Return the figures of `Gallery.reduced` as `<figure>_by_variant`, dims (variant, direction); nothing where the drones flew at one height alone.

    Parameters
    ----------
    gallery : Gallery
    variant : sequence of str
        Flight heights of each image, joined by "+".
    chosen : collection of str
        The heights to look at; none: all.

    Notes
    -----
    The heights are the drones': at 150, the drone queries of 150 are looked for in the whole satellite gallery, and all satellite
    queries among the drone images of 150.
    """
    drone = gallery.view == "drone"
    flown = variants_in(text for text, here in zip(variant, drone & gallery.valid, strict=True) if here)
    heights = [name for name in flown if not chosen or name in chosen]
    if len(heights) < 2:
        return xr.Dataset()
    figures = []
    for height in heights:
        here = gallery.among(np.array([height in variants_of(text) for text in variant], bool) | ~drone)
        figures.append(here.reduced(here.figures()))
    joined = xr.concat(figures, dim="variant").assign_coords(variant=("variant", np.array(heights, dtype=object)))
    return joined.rename({name: f"{name}_by_variant" for name in joined.data_vars})
