"""The positions of the network that a heat map can be taken at, one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from safenet.architecture import Sampling
from safenet.partition import ring_weights
from stages.frames import carry_back
from stages.naming import known

BLOCK_PREFIX = "block_"
ON_ALIGNED_GRID = frozenset({"aligned", "part"})  # the other positions lie on the patch grid, the photo's frame
Float = NDArray[np.float32]


@dataclass(frozen=True)
class PositionView:
    """A batch as seen from a position.

    Parameters
    ----------
    cells : float32 [B, N, K]
    weight : float32 [B, P, N] or None
        T_p: how much each cell counts in part feature p; None where no gradient was asked for.
    paint
        Turns a value a cell [B, N] into a map [B, y, x].
    """

    cells: Float
    weight: Float | None
    paint: Callable[[Float], Float]


@dataclass(frozen=True)
class Position:
    """A row of POSITIONS: the feature variables it reads, and how it lays them out."""

    needs: tuple[str, ...]
    needs_for_gradient: tuple[str, ...]
    open: Callable[[xr.Dataset, Sampling, bool], PositionView]


def open_position(features: xr.Dataset, position: str, sampling: Sampling, with_gradient: bool) -> PositionView:
    """Lay out a block of features, in memory, as seen from `position`.

    Raises
    ------
    ValueError
        If the position is a transformer block that was not stored.
    """
    number = block_number(position)
    if number is None:
        return POSITIONS[position].open(features, sampling, with_gradient)
    stored = features["block"].values.tolist()
    if number not in stored:
        raise ValueError(
            f"cam.positions: {position} is not in the feature store, which holds blocks {stored}. Add {number} to extract.blocks and extract again"
        )
    return _grid_view(features["block_map"].values[:, stored.index(number)], None)


def check_position(position: str, where: str) -> str:
    """Return `position` if it is one, else raise a ValueError that names the setting `where` and the nearest known position."""
    return position if block_number(position) is not None else known(position, [*POSITIONS, f"{BLOCK_PREFIX}<i>"], where)


def block_number(position: str) -> int | None:
    """Return i of "block_<i>", None for any other position."""
    number = position.removeprefix(BLOCK_PREFIX)
    return int(number) if position.startswith(BLOCK_PREFIX) and number.isdecimal() else None


def _patch(features: xr.Dataset, sampling: Sampling, with_gradient: bool) -> PositionView:
    """T_p = R_p carried back through FAM, as a gradient passes it."""
    weight = None
    if with_gradient:
        weight = carry_back(_ring_weights(features), features["theta"].values, features["source_cell"].values, sampling)
    return _grid_view(features["patch_map"].values, weight)


def _aligned(features: xr.Dataset, sampling: Sampling, with_gradient: bool) -> PositionView:
    """T_p = R_p."""
    return _grid_view(features["aligned_map"].values, _ring_weights(features) if with_gradient else None)


def _part(features: xr.Dataset, sampling: Sampling, with_gradient: bool) -> PositionView:
    """The part features as P cells of their own; each value is painted on its ring, 0 outside of all rings."""
    cells = np.ascontiguousarray(features["part_feature"].values, dtype=np.float32)
    batch, parts, _ = cells.shape
    weight = np.broadcast_to(np.eye(parts, dtype=np.float32), (batch, parts, parts))
    inside = (_ring_weights(features) > 0).astype(np.float32)
    return PositionView(cells, weight, lambda values: np.einsum("bp,bpyx->byx", values, inside))


POSITIONS: Mapping[str, Position] = MappingProxyType(
    {
        "patch": Position(("patch_map",), ("boundary", "theta"), _patch),
        "aligned": Position(("aligned_map",), ("boundary",), _aligned),
        "part": Position(("part_feature", "boundary"), (), _part),
    }
)


def _grid_view(maps: NDArray[np.floating], weight: Float | None) -> PositionView:
    batch, height, width, channels = maps.shape
    # torch converts half precision several times faster than numpy
    cells = torch.from_numpy(np.ascontiguousarray(maps)).to(torch.float32).numpy().reshape(batch, height * width, channels)
    flat = None if weight is None else weight.reshape(batch, -1, height * width)
    return PositionView(cells, flat, lambda values: values.astype(np.float32).reshape(batch, height, width))


def _ring_weights(features: xr.Dataset) -> Float:
    size = (features.sizes["y"], features.sizes["x"])
    return ring_weights(torch.from_numpy(features["boundary"].values.astype(np.int64)), size).numpy()
