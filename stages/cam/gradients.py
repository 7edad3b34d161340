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
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating]
COLUMNS = 4  # of a matrix product at a time: of the cells with 4 columns it takes a quarter as long as with 5 or 8 (docs/benchmarks.md)


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

    def sum_over_cells(self, function: Callable[[Float, int], Float]) -> Float:
        """sum_n function(g[:, n], sample), [B, K]; `function` takes and returns [n, K]."""


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
    def distinct(self) -> list[tuple[Float, NDArray[np.intp]]]:
        """A row a sample: the distinct columns of T [U, P] and how many cells have each; cells of one column have one gradient.

        All samples are sorted at once, each column behind the number of its sample; the columns of a sample are in the order of their bytes.
        """
        batch, parts, cells = self.values.shape
        columns = self.values.transpose(0, 2, 1).reshape(-1, parts)
        rows = np.empty(len(columns), np.dtype([("sample", ">u4"), ("column", columns.dtype, (parts,))]))
        rows["sample"], rows["column"] = np.arange(batch).repeat(cells), columns
        _, first, count = np.unique(rows.view(np.dtype((np.void, rows.itemsize))), return_index=True, return_counts=True)
        starts = np.searchsorted(first // cells, np.arange(batch + 1))
        return [(columns[first[start:stop]], count[start:stop]) for start, stop in pairwise(starts)]


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

    def sum_over_cells(self, function: Callable[[Float, int], Float]) -> Float:
        """Once for each distinct column of T."""
        found = np.empty_like(self.cells, shape=(len(self.cells), self.cells.shape[2]))
        for sample, (columns, count) in enumerate(self.weights.distinct):
            found[sample] = count.astype(columns.dtype) @ function(columns @ self.direction[sample], sample)
        return found

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

    def sum_over_cells(self, function: Callable[[Float, int], Float]) -> Float:
        """Cell by cell."""
        return np.stack([function(gradient, sample).sum(axis=0) for sample, gradient in enumerate(self.values)])


def _project(cells: Float, direction: Float) -> Float:
    """[B, N, K] times [B, M, K] -> [B, N, M]; so many columns at a time as a matrix product is fast for."""
    parts = [np.matmul(cells, direction[:, first : first + COLUMNS].transpose(0, 2, 1)) for first in range(0, direction.shape[1], COLUMNS)]
    return np.concatenate(parts, axis=2)
