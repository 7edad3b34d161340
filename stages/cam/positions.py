"""The positions in the network at which a heat map can be computed, one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from safenet.architecture import Pooling, Sampling
from safenet.rings import ring_weights
from stages.cam.frames import carry_back, carry_forward
from stages.cam.gradients import CellWeights, DenseGradient, FactoredGradient, Gradient
from stages.cam.max_pooling import MaxPooled, Warp
from stages.cam.methods import CarriedCells, Cells
from stages.half_precision import to_single
from stages.schema import Arrays
from stages.targets.part_heads import Removal
from stages.targets.scores import CellRemoval

NEEDS_OF_SOURCE = ("patch_map", "theta")
Float = NDArray[np.float32]


@dataclass(frozen=True)
class PositionView:
    """A batch as seen from a position.

    Parameters
    ----------
    cells : Cells
    weights : CellWeights or None
        T_p: how much each cell counts in part feature p; None where no gradient was asked for, or pooling is no weighting.
    paint
        Turns a value a cell [B, N] into a map [B, y, x].
    spoilt : bool [B]
        True where a cell is not finite; zeros stand in the place of all of the sample's cells.
    pooled : MaxPooled or None
        The way to the part features where they are maxima.
    """

    cells: Cells
    weights: CellWeights | None
    paint: Callable[[NDArray[np.floating]], Float]
    spoilt: NDArray[np.bool_]
    pooled: MaxPooled | None = None

    def gradient(self, direction: NDArray[np.floating]) -> Gradient:
        """Gradient with respect to the cells, from that with respect to the part features [B, P, K]."""
        direction = direction.astype(np.float32)
        if self.pooled is not None:
            return DenseGradient(self.cells.values, self.pooled.gradient(direction))
        assert self.weights is not None, "the position was opened without a gradient"
        return FactoredGradient(self.cells.values, direction, self.weights, lambda: self.cells.magnitude)

    @property
    def tokens(self) -> Removal:
        """What the loss of each cell takes from the part features."""
        if self.pooled is not None:
            return self.pooled
        assert self.weights is not None, "the position was opened without a gradient"
        return CellRemoval(self.cells.values, self.weights.values)


@dataclass(frozen=True)
class Position:
    """A row of POSITIONS: the feature variables it reads, and how it lays them out."""

    needs: tuple[str, ...]
    needs_for_gradient: tuple[str, ...]
    open: Callable[[Arrays, Sampling, Pooling, bool], PositionView]


def open_block(maps: NDArray[np.floating]) -> PositionView:
    """Lay out the map of a transformer block [B, y, x, K]: class-free, since its gradients are not made from a store."""
    return _grid_view(maps)


def open_source(block: Arrays, sampling: Sampling) -> tuple[CarriedCells, NDArray[np.bool_]]:
    """The cells that FAM read, how it carries a value of each to the aligned grid, and which samples' are not finite, [B]."""
    cells, spoilt = _finite_cells(block["patch_map"])
    side = block["source_cell"].shape[1:]

    def carry(values: NDArray[np.floating]) -> NDArray[np.float32]:
        on_grid = values.astype(np.float32).reshape(len(values), 1, *side)
        return carry_forward(on_grid, block["theta"], block["source_cell"], sampling).reshape(len(values), -1)

    return CarriedCells(cells, carry), spoilt


def ring_weights_of(block: Arrays) -> Float:
    """R_p of a block's boundaries, float32 [B, P, y, x]."""
    side = block["source_cell"].shape[1:]
    return ring_weights(block["boundary"], (side[0], side[1]))


def _patch(block: Arrays, sampling: Sampling, pooling: Pooling, with_gradient: bool) -> PositionView:
    """T_p = R_p carried back through FAM, as a gradient passes it."""
    view = _grid_view(block["patch_map"])
    if not with_gradient:
        return view
    if pooling == "max":
        return _behind_maxima(view, block, Warp(block["theta"], block["source_cell"], sampling))
    return _weighted(view, carry_back(ring_weights_of(block), block["theta"], block["source_cell"], sampling))


def _aligned(block: Arrays, sampling: Sampling, pooling: Pooling, with_gradient: bool) -> PositionView:
    """T_p = R_p."""
    view = _grid_view(block["aligned_map"])
    if not with_gradient:
        return view
    return _behind_maxima(view, block, None) if pooling == "max" else _weighted(view, ring_weights_of(block))


def _part(block: Arrays, sampling: Sampling, pooling: Pooling, with_gradient: bool) -> PositionView:
    """The part features as P cells of their own; each value is painted on its ring, 0 outside of all rings."""
    cells = np.ascontiguousarray(block["part_feature"], dtype=np.float32)
    batch, parts, _ = cells.shape
    weight = np.broadcast_to(np.eye(parts, dtype=np.float32), (batch, parts, parts))
    inside = (ring_weights_of(block) > 0).astype(np.float32)
    none = np.zeros(batch, bool)  # part features that are not finite have gone before: see stages/finite.py
    return PositionView(Cells(cells), CellWeights(weight), lambda values: np.einsum("bp,bpyx->byx", values, inside).astype(np.float32), none)


POSITIONS: Mapping[str, Position] = MappingProxyType(
    {
        "patch": Position(("patch_map",), ("boundary", "theta"), _patch),
        "aligned": Position(("aligned_map",), ("boundary",), _aligned),
        "part": Position(("part_feature", "boundary"), (), _part),
    }
)


def _grid_view(maps: NDArray[np.floating]) -> PositionView:
    cells, spoilt = _finite_cells(maps)
    return PositionView(cells, None, lambda values: values.astype(np.float32).reshape(maps.shape[:3]), spoilt)


def _finite_cells(maps: NDArray[np.floating]) -> tuple[Cells, NDArray[np.bool_]]:
    """Return the cells of maps [B, y, x, K], zeros in place of maps that are not finite, and which these are."""
    batch, height, width, channels = maps.shape
    values = to_single(maps).reshape(batch, height * width, channels)
    cells = Cells(values)
    spoilt = ~cells.is_finite
    return (Cells(np.where(spoilt[:, None, None], np.float32(0), values)), spoilt) if spoilt.any() else (cells, spoilt)


def _weighted(view: PositionView, weight: Float) -> PositionView:
    return replace(view, weights=CellWeights(weight.reshape(*weight.shape[:2], -1)))


def _behind_maxima(view: PositionView, block: Arrays, warp: Warp | None) -> PositionView:
    cells, side = view.cells.values, block["source_cell"].shape[1:]
    return replace(view, pooled=MaxPooled(cells.reshape(len(cells), *side, -1), block["boundary"], warp))
