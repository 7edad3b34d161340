"""Half precision to single, about twice as fast as NumPy's own conversion: maps are stored as halves and read often."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 17  # values: what is being converted stays in the processor's cache
_FRACTION_BITS = 23 - 10  # that a single has more than a half
_BIASES_APART = np.float32(2.0 ** (127 - 15))
_SIGN_AND_SHIFTED = np.int32(~((1 << 31) - 1) | (((1 << 15) - 1) << _FRACTION_BITS))
_INFINITE = 0x7C00  # a half's bits without its sign: this and above are infinite or NaN
_MINUS_INFINITE = 0x8000 | _INFINITE


def to_single(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Convert to float32 bit for bit as `astype` does, and to row-major order: sums must not depend on how an array came to lie in memory.

    Parameters
    ----------
    values : float16 or float32, of any shape

    Returns
    -------
    float32
        An array that is so already is returned itself.
    """
    if values.dtype != np.float16:
        return np.ascontiguousarray(values, dtype=np.float32)
    halves = np.ascontiguousarray(values).view(np.int16).reshape(-1)
    found = np.empty(values.shape, np.float32)
    singles = found.reshape(-1)
    for start in range(0, len(halves), _AT_ONCE):
        _convert(halves[start : start + _AT_ONCE], singles[start : start + _AT_ONCE])
    return found


def _convert(halves: NDArray[np.int16], singles: NDArray[np.float32]) -> None:
    """Shift exponent and fraction to their places, and multiply the difference of the exponents' biases in."""
    bits = singles.view(np.int32)
    bits[...] = halves
    bits <<= _FRACTION_BITS
    bits &= _SIGN_AND_SHIFTED
    singles *= _BIASES_APART
    if halves.max() >= _INFINITE or halves.view(np.uint16).max() >= _MINUS_INFINITE:
        singles[...] = halves.view(np.float16)
