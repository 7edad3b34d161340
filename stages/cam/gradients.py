"""The gradient of a score with respect to the cells of a map, and the few sums over it that every CAM method is made of.

A score that is affine in the part features, y = sum_p V_p . z_p + const with z_p = sum_n T_p[n] A[n], has the gradient g[k, n] = sum_p V_p[k] T_p[n]:
`FactoredGradient` never forms it. `DenseGradient` holds any gradient, cell by cell: what max pooling has. Both answer the same
questions, so that a method is written once.

Symbols: B samples, N cells, K channels, P parts; A the cells, [B, N, K].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating]
COLUMNS = 4  # of a matrix product: OpenBLAS takes as long for 5 as for 8, and a quarter of that for 4


class Gradient(Protocol):
    """What methods ask of a gradient g [B, K, N]."""

    @property
    def mean(self) -> Float:
        """Mean over the cells, [B, K]."""

    @property
    def contribution(self) -> Float:
        """sum_k g A, [B, N]."""

    @property
    def absolute_contribution(self) -> Float:
        """sum_k |g| A, [B, N]."""

    @property
    def magnitude_contribution(self) -> Float:
        """sum_k |g| |A|, [B, N]."""

    @property
    def channel_contribution(self) -> Float:
        """sum_n g A, [B, K]."""

    @property
    def products(self) -> Float:
        """Cell by cell, g A, [B, N, K]."""

    def sum_over_cells(self, function: Callable[[Float, NDArray[np.intp]], Float]) -> Float:
        """sum_n function(g[:, n], sample), [B, K]; `function` takes gradients [m, K] and their samples [m], and returns [m, K]."""


@dataclass(frozen=True)
class CellWeights:
    """T_p[n], how much each cell counts in each part feature; shared by all targets at a position.

    Parameters
    ----------
    values : float [B, P, N]
    """

    values: Float

    @cached_property
    def mixed(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Samples and cells that count in several parts (a patch token that FAM copied into several rings)."""
        sample, cell = np.nonzero(np.count_nonzero(self.values, axis=1) > 1)
        return sample, cell

    @cached_property
    def distinct(self) -> tuple[Float, NDArray[np.intp], NDArray[np.intp]]:
        """The distinct columns of T of every sample [U, P], their samples [U] in order, and how many cells have each [U]: these have one gradient."""
        batch, parts, cells = self.values.shape
        rows = np.empty((batch, cells, parts + 1), self.values.dtype)
        rows[..., 0], rows[..., 1:] = np.arange(batch)[:, None], self.values.transpose(0, 2, 1)
        _, first, count = np.unique(rows.view(np.dtype((np.void, rows.itemsize * (parts + 1)))).ravel(), return_index=True, return_counts=True)
        order = np.argsort(first // cells, kind="stable")  # of bytes, 256 may come before 1
        return rows.reshape(-1, parts + 1)[first[order], 1:], first[order] // cells, count[order]


@dataclass(frozen=True)
class FactoredGradient:
    """g[k, n] = sum_p V_p[k] T_p[n].

    Parameters
    ----------
    cells : float [B, N, K]
    direction : float [B, P, K]
        V_p = dy/dz_p.
    weights : CellWeights
    magnitude : callable
        Returns |A|, [B, N, K]; asked for once at most, so that all targets share it.
    """

    cells: Float
    direction: Float
    weights: CellWeights
    magnitude: Callable[[], Float]

    @cached_property
    def mean(self) -> Float:
        """sum_p (mean_n T_p) V_p."""
        return np.einsum("bp,bpk->bk", self.weights.values.mean(axis=2), self.direction)

    @cached_property
    def contribution(self) -> Float:
        """sum_p T_p (V_p . A)."""
        return self._spread(_project(self.cells, self.direction))

    @cached_property
    def absolute_contribution(self) -> Float:
        """sum_p T_p (|V_p| . A); cells of several parts one by one, since |sum| is not the sum of the |.|."""
        return self._with_mixed(self._spread(_project(self.cells, np.abs(self.direction))), self.cells)

    @cached_property
    def magnitude_contribution(self) -> Float:
        """sum_p T_p (|V_p| . |A|), and cells of several parts one by one."""
        magnitude = self.magnitude()
        return self._with_mixed(self._spread(_project(magnitude, np.abs(self.direction))), magnitude)

    @cached_property
    def channel_contribution(self) -> Float:
        """sum_p V_p z_p."""
        return (self.direction * np.matmul(self.weights.values, self.cells)).sum(axis=1)

    @property
    def products(self) -> Float:
        """The gradient, formed, times A."""
        return np.matmul(self.weights.values.transpose(0, 2, 1), self.direction) * self.cells

    def sum_over_cells(self, function: Callable[[Float, NDArray[np.intp]], Float]) -> Float:
        """Once for each distinct column of T."""
        columns, sample, count = self.weights.distinct
        gradient = np.einsum("up,upk->uk", columns, self.direction[sample])
        each = count.astype(columns.dtype)[:, None] * function(gradient, sample)
        return np.add.reduceat(each, np.searchsorted(sample, np.arange(len(self.cells))), axis=0)

    def _spread(self, projection: Float) -> Float:
        return np.einsum("bnp,bpn->bn", projection, self.weights.values)

    def _with_mixed(self, total: Float, factor: Float) -> Float:
        sample, cell = self.weights.mixed
        if not len(sample):
            return total
        gradient = np.einsum("mp,mpk->mk", self.weights.values[sample, :, cell], self.direction[sample])
        total = total.copy()
        total[sample, cell] = (np.abs(gradient) * factor[sample, cell]).sum(axis=1)
        return total


@dataclass(frozen=True)
class DenseGradient:
    """A gradient held cell by cell.

    Parameters
    ----------
    cells : float [B, N, K]
    values : float [B, N, K]
        g, transposed.
    """

    cells: Float
    values: Float

    @cached_property
    def products(self) -> Float:
        """Cell by cell, g A."""
        return self.values * self.cells

    @property
    def mean(self) -> Float:
        """Mean over the cells."""
        return self.values.mean(axis=1)

    @property
    def contribution(self) -> Float:
        """sum_k g A."""
        return self.products.sum(axis=2)

    @property
    def absolute_contribution(self) -> Float:
        """sum_k |g| A."""
        return (np.abs(self.values) * self.cells).sum(axis=2)

    @property
    def magnitude_contribution(self) -> Float:
        """sum_k |g A|."""
        return np.abs(self.products).sum(axis=2)

    @property
    def channel_contribution(self) -> Float:
        """sum_n g A."""
        return self.products.sum(axis=1)

    def sum_over_cells(self, function: Callable[[Float, NDArray[np.intp]], Float]) -> Float:
        """Cell by cell."""
        batch, cells, channels = self.values.shape
        each = function(self.values.reshape(-1, channels), np.arange(batch).repeat(cells))
        return np.asarray(each.reshape(self.values.shape).sum(axis=1))


def _project(cells: Float, direction: Float) -> Float:
    """[B, N, K] times [B, M, K] -> [B, N, M]; so many columns at a time as a matrix product is fast for."""
    parts = [np.matmul(cells, direction[:, first : first + COLUMNS].transpose(0, 2, 1)) for first in range(0, direction.shape[1], COLUMNS)]
    return np.concatenate(parts, axis=2)
