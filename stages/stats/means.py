"""Means over groups of images. If a view has several groups, one per flight height, they weigh as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stages.stats.reductions import mean


def tested_groups(stats: xr.Dataset) -> list[str]:
    """Name the groups of test images, or all where there are none."""
    return tested([str(name) for name in stats["group"].values])


def tested(groups: Sequence[str]) -> list[str]:
    """Those of some groups that are of test images, or all where there are none."""
    return [name for name in groups if name.startswith("test")] or list(groups)


def mean_of_views(values: xr.DataArray) -> xr.DataArray:
    """Mean over the groups of each split and view, then over these; a group without the figure has no weight.

    Parameters
    ----------
    values : DataArray
        Dims (..., group); groups are named "split view", or "split view height".
    """
    names = [str(name) for name in values["group"].values]
    behind = values.transpose("group", ...)
    return behind.isel(group=0, drop=True).copy(data=mean_over_views(behind.values, names))


def mean_over_views(values: NDArray[np.floating], groups: Sequence[str]) -> NDArray[np.float64]:
    """What `mean_of_views` is for an array [group, ...]."""
    views = [" ".join(name.split(" ", 2)[:2]) for name in groups]
    exact = values.astype(np.float64)
    return mean(np.stack([mean(exact[[number for number, found in enumerate(views) if found == view]], {}) for view in dict.fromkeys(views)]), {})
