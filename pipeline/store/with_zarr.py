"""What is left to zarr: arrays that `atlas` did not write, and groups that are opened lazily.

Zarr takes half a second to import, and most commands never need it: those that do import this module when they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.core.buffer.cpu import Buffer
from zarr.storage import MemoryStore, ObjectStore, StorePath

from pipeline.disk.objects import ObjectPath
from pipeline.disk.places import Place


def zarr_of(root: Place) -> Any:
    """Return a place as zarr and xarray take it; what they read of an object store they read from there."""
    return StorePath(ObjectStore(root.store, read_only=True), root.key) if isinstance(root, ObjectPath) else root


def read_array(place: Place, rows: slice) -> NDArray[Any]:
    """Read some rows of an array."""
    array = zarr.open_array(zarr_of(place), mode="r", zarr_format=3)
    return np.asarray(array[rows])


def open_group(place: Place, *, consolidated: bool) -> xr.Dataset:
    """Open a group lazily: dask arrays in the chunks of the files."""
    return xr.open_zarr(zarr_of(place), consolidated=consolidated, chunks={})


def read_group(files: Mapping[str, bytes]) -> xr.Dataset:
    """Read a group from its files, name -> content."""
    held: dict[str, Any] = {name: Buffer.from_bytes(content) for name, content in files.items()}
    return xr.open_zarr(MemoryStore(held), consolidated=False, chunks=None).load()
