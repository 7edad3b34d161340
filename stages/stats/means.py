"""Means over groups of images. If a view has several groups, one per flight height, they weigh as one."""

from __future__ import annotations

import xarray as xr


def tested_groups(stats: xr.Dataset) -> list[str]:
    """Name the groups of test images, or all where there are none."""
    names = [str(name) for name in stats["group"].values]
    return [name for name in names if name.startswith("test")] or names


def mean_of_views(values: xr.DataArray) -> xr.DataArray:
    """Mean over the groups of each split and view, then over these; a group without the figure has no weight.

    Parameters
    ----------
    values : DataArray
        Dims (..., group); groups are named "split view", or "split view height".
    """
    views = [" ".join(str(name).split(" ", 2)[:2]) for name in values["group"].values]
    members = {view: [number for number, found in enumerate(views) if found == view] for view in views}
    means: list[xr.DataArray] = [values.isel(group=numbers).mean("group") for numbers in members.values()]
    return xr.concat(means, dim="group").mean("group")
