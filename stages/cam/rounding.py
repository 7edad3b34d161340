"""How much of a class-free map is rounding: computed from the stored type, the precision of the transformer, and the width.

Every stored number carries a relative error of at most u, half the spacing of its type; its standard deviation is u / sqrt(3) if all errors up to u
are as likely. A cell's value is a function of K such numbers whose errors are independent, so that its own error follows to first order. What
functions here return is that error for relative errors of standard deviation 1.
Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sections 2.1 and 2.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Exact = NDArray[np.float64]
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


def norm_rounding(squares: Exact) -> Exact:
    """Of sqrt(sum_k A^2), from A^2 of some cells [B, n, K]: sqrt(sum_k A^4) over the norm; root mean square over these cells, [B]."""
    norm_squared = squares.sum(axis=2)
    fourth = np.einsum("bnk,bnk->bn", squares, squares)
    return np.asarray(np.sqrt((fourth / np.where(norm_squared > 0, norm_squared, 1)).mean(axis=1)))


def sum_rounding(squares: Exact, weight: float) -> Exact:
    """Of `weight` times sum_k A: `weight` times the norm of the cell, [B]."""
    return np.asarray(weight * np.sqrt(squares.sum(axis=2).mean(axis=1)))


def value_rounding(values: NDArray[np.floating]) -> Exact:
    """Of values [B, N] that are one of the numbers themselves, [B]."""
    return np.asarray(np.sqrt((values.astype(np.float64) ** 2).mean(axis=1)))


def component_rounding(squares: Exact, count: int) -> Exact:
    """Of the scores on the first principal component of `count` cells, [B].

    A matrix of independent errors, of standard deviation |A| each, has a largest singular value of about |A|'s largest row plus its largest column
    (Bandeira and van Handel 2016, DOI 10.1214/15-AOP1025, theorem 1.1), hence scores of |A| / sqrt(N) + max |A|.
    """
    return np.asarray(np.sqrt(squares.sum(axis=2).mean(axis=1) / count) + np.sqrt(squares.max(axis=(1, 2))))
