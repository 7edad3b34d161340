"""Ranks of numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rank each row of `values` [n, m] from 1, smallest first; equal numbers share the mean of their ranks."""
    from scipy.stats import rankdata  # takes half a second, which commands that compute nothing need not wait for

    return np.asarray(rankdata(values, axis=1))
