"""How much of a class-free map is rounding: computed from the stored type, the precision of the transformer, and the width.

Every stored number carries a relative error of at most u, half the spacing of its type; its standard deviation is u / sqrt(3) if all errors up to u
are as likely. A cell's value is a function of K such numbers whose errors are independent, so that its own error follows to first order.
Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sections 2.1 and 2.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

ROUNDOFF: Mapping[str, float] = MappingProxyType({"float16": 2.0**-11, "bfloat16": 2.0**-9, "float32": 2.0**-24})


def relative_error(dtype: str, precision: str, channels: int) -> float:
    """Standard deviation of the relative error of a number that a map is made of.

    Parameters
    ----------
    dtype : {"float16", "float32"}
        It was stored as.
    precision : {"float32", "bfloat16", "float16"}
        Of the transformer that gave it.
    channels : int
        K: a sum over them, taken in float32, adds an error of its own that grows with its root.
    """
    sums = ROUNDOFF["float32"] * channels**0.5
    return float(np.sqrt((ROUNDOFF[dtype] ** 2 + ROUNDOFF[precision] ** 2 + sums**2) / 3))


def norm_rounding(cells: NDArray[np.floating]) -> NDArray[np.float64]:
    """Of sqrt(sum_k A^2): sqrt(sum_k A^4) over the norm, for relative errors of standard deviation 1; root mean square over the cells, [B]."""
    squares = cells.astype(np.float64) ** 2
    norm_squared = squares.sum(axis=2)
    return _root_mean_square(np.sqrt((squares**2).sum(axis=2) / np.where(norm_squared > 0, norm_squared, 1)))


def sum_rounding(cells: NDArray[np.floating], weight: float) -> NDArray[np.float64]:
    """Of `weight` times sum_k A: `weight` times the norm of the cell, [B]."""
    return weight * _root_mean_square(np.linalg.norm(cells.astype(np.float64), axis=2))


def value_rounding(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Of values [B, N] that are one of the numbers themselves, [B]."""
    return _root_mean_square(values.astype(np.float64))


def component_rounding(cells: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    """Of the scores on the first principal component of `count` cells, [B].

    Noise of standard deviation s alone has a largest singular value of s (sqrt(N) + sqrt(K)), hence scores of s (1 + sqrt(K / N)); Marchenko and
    Pastur 1967. Here s is the root mean square of the numbers, for relative errors of standard deviation 1.
    """
    channels = cells.shape[2]
    return _root_mean_square(np.linalg.norm(cells.astype(np.float64), axis=2)) / channels**0.5 * (1 + (channels / count) ** 0.5)


def _root_mean_square(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt((values**2).mean(axis=1)))
