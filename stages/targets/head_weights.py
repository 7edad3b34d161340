"""How much the score of each head counts in the score of a target."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.targets.names import TargetName


def head_weights(target: TargetName, parts: int) -> NDArray[np.float64]:
    """Return the weight of each head, float64 [parts + 1], the global head last.

    Raises
    ------
    ValueError
        If there is no such part.
    """
    weights = np.zeros(parts + 1)
    if target.heads == "parts":
        weights[:parts] = 1 / parts
    elif target.heads == "whole":
        weights[:] = 1 / (parts + 1)
    elif target.heads == "global":
        weights[parts] = 1
    else:
        number = int(target.heads.removeprefix("part_"))
        if not 1 <= number <= parts:
            raise ValueError(f"target {target}: part {number} does not exist: the network has parts 1 to {parts}")
        weights[number - 1] = 1
    return weights
