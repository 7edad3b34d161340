"""From a raw map to numbers between 0 and 1: on which scale it is drawn, and when it is not worth drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

MapKind = Literal["statistic", "relu", "signed"]
MapStatus = Literal["ok", "flat", "zero", "absent"]
Scope = Literal["image", "image-over-checkpoints", "row", "picture", "checkpoint", "dataset", "fixed"]

FLAT_BELOW = 0.01
SCOPE_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "image": "each map its own",
        "image-over-checkpoints": "one an image, shared by its checkpoints",
        "row": "one for the maps of a row",
        "picture": "one for all maps of its kind in the picture",
        "checkpoint": "one a checkpoint; values beyond it take its end colours",
        "dataset": "one for the dataset; values beyond it take its end colours",
        "fixed": "set by hand; values beyond it take its end colours",
    }
)


@dataclass(frozen=True)
class Scale:
    """The range of raw values that the colours stand for.

    Parameters
    ----------
    vmin, vmax
        Raw values of the first and the last colour, in the map's own unit.
    scope
        What the range was taken over: a key of SCOPE_WORDS.
    signed
        True for a diverging scale, symmetric about 0.

    Raises
    ------
    ValueError
        If an end is not finite, the ends are out of order, a signed scale is not symmetric, or the scope is unknown.
    """

    vmin: float
    vmax: float
    scope: Scope
    signed: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.vmin) and math.isfinite(self.vmax) and self.vmin <= self.vmax):
            raise ValueError(f"scale: vmin = {self.vmin}, vmax = {self.vmax}; expected two finite numbers with vmin <= vmax.")
        if self.signed and self.vmin != -self.vmax:
            raise ValueError(f"scale: signed, but vmin = {self.vmin} is not -vmax = {-self.vmax}. Make it symmetric about 0.")
        if self.scope not in get_args(Scope):
            raise ValueError(f"scale: scope = {self.scope!r}; expected one of {', '.join(get_args(Scope))}.")

    def normalise(self, heat: np.ndarray) -> np.ndarray:
        """Return `heat` on this scale: float32 in 0..1, clipped at the ends, NaN where `heat` is NaN.

        A scale without extent (vmin = vmax) maps to the colour of vmin, or of 0 where signed: no epsilon, no division by zero.
        """
        span = self.vmax - self.vmin
        if span == 0:
            return np.where(np.isnan(heat), np.nan, 0.5 if self.signed else 0.0).astype(np.float32)
        return np.clip((heat.astype(np.float64) - self.vmin) / span, 0, 1).astype(np.float32)


def check_map(heat: np.ndarray, where: str = "heat") -> None:
    """Raise ValueError unless `heat` is one map [h, w] of floating-point numbers without infinities; NaN is allowed."""
    if heat.ndim != 2 or 0 in heat.shape:
        raise ValueError(f"{where}: shape {heat.shape}; expected one map [h, w]. Pass a single sample, head and method.")
    if not np.issubdtype(heat.dtype, np.floating):
        raise ValueError(f"{where}: dtype {heat.dtype}; expected a floating-point map of raw values.")
    if np.isinf(heat).any():
        raise ValueError(f"{where}: {int(np.isinf(heat).sum())} infinite cells; expected finite values, or NaN where there is no value.")


def rectify(heat: np.ndarray, kind: MapKind) -> np.ndarray:
    """Return the map that is drawn, still raw and on its native grid: ReLU applied where `kind` is "relu", NaN kept."""
    return np.maximum(heat, 0) if kind == "relu" else heat


def find_scale(maps: Iterable[np.ndarray], kind: MapKind, scope: Scope) -> Scale:
    """Return the one scale on which all of `maps` are drawn.

    Parameters
    ----------
    maps
        Raw maps [h, w] on their native grids, NaN where there is no value.
    kind
        "relu": [0, maximum], the minimum is never subtracted. "statistic" (l2_norm, max, mean): [minimum, maximum].
        "signed": [-a, a] with a the largest magnitude.
    scope
        What `maps` are, written beside the scale.

    Raises
    ------
    ValueError
        If no cell of any map is finite.
    """
    finite = [heat[np.isfinite(heat)].astype(np.float64) for heat in maps]
    values = np.concatenate([*finite, np.empty(0)])
    if values.size == 0:
        raise ValueError(f"scale over {scope}: none of the {len(finite)} maps has a finite cell, so there is no range. Leave absent maps out.")
    if kind == "relu":
        return Scale(0.0, max(float(values.max()), 0.0), scope)
    if kind == "signed":
        extent = float(np.abs(values).max())
        return Scale(-extent, extent, scope, signed=True)
    return Scale(float(values.min()), float(values.max()), scope)


def flatness(heat: np.ndarray) -> float:
    """Return the coefficient of variation, standard deviation / |mean| over the finite cells, of a map [h, w].

    0 for a constant map, NaN where no cell is finite, infinite where the mean is 0 but the cells are not.
    """
    values = heat[np.isfinite(heat)].astype(np.float64)
    if values.size == 0:
        return math.nan
    deviation, mean = float(values.std()), abs(float(values.mean()))
    if deviation == 0:
        return 0.0
    return deviation / mean if mean > 0 else math.inf


def map_status(heat: np.ndarray | None, kind: MapKind, flat_below: float = FLAT_BELOW) -> MapStatus:
    """Return whether a raw map [h, w] is "ok" to draw, or "absent" (no finite cell), "zero" (after its ReLU) or "flat".

    Only a "statistic" can be flat: its range is stretched to the whole scale, so one with a coefficient of variation
    below `flat_below` would show rounding noise as structure.
    """
    if heat is None or not np.isfinite(heat).any():
        return "absent"
    if not np.nan_to_num(rectify(heat, kind)).any():
        return "zero"
    if kind == "statistic" and flatness(heat) < flat_below:
        return "flat"
    return "ok"


def describe_map(heat: np.ndarray | None, kind: MapKind, status: MapStatus, reason: str = "") -> str:
    """Return what is written about a map: its range, or why it is not drawn ("flat: 27.71-27.72 (CV 0.0014)")."""
    if status == "absent" or heat is None:
        return f"no map: {reason or 'every cell is undefined'}"
    if status == "zero":
        return "zero everywhere after ReLU" if np.nan_to_num(heat).any() else "zero everywhere"
    low, high = float(np.nanmin(heat)), float(np.nanmax(heat))
    if kind == "relu":
        return f"max {format_numbers([high])[0]}"
    first, last = format_numbers([low, high])
    words = f"{first}-{last}" if low >= 0 else f"{first} to {last}"
    return f"flat: {words} (CV {format_numbers([flatness(heat)])[0]})" if status == "flat" else words


def format_numbers(values: Sequence[float]) -> list[str]:
    """Return `values` as text with as many digits as tell them apart: at least two digits of half their span, the same decimals for all."""
    largest = max(abs(value) for value in values)
    span = (max(values) - min(values)) / 2 or (largest if len(values) == 1 else largest * 1e-4)
    if largest == 0:
        return ["0"] * len(values)
    if not 1e-3 <= largest < 1e5:
        digits = min(1 + _exponent(largest) - _exponent(span), 7)
        return _write(values, digits, "e")
    return _write(values, min(max(1 - _exponent(span), 0), 8), "f")


def _write(values: Sequence[float], digits: int, style: str) -> list[str]:
    """Return `values` with `digits` digits after the point, less the zeros that all of several end in; one alone keeps them."""
    rounded = [float(f"{value:.{digits}{style}}") for value in values]
    least = 0 if len(values) > 1 else digits
    fewest = next(fewer for fewer in range(least, digits + 1) if all(float(f"{value:.{fewer}{style}}") == value for value in rounded))
    return [_tidy(f"{value:.{fewest}{style}}") for value in rounded]


def _exponent(value: float) -> int:
    """Return the power of ten of `value` rounded to one digit, so that 0.0099999 counts as 0.01."""
    return int(f"{value:.0e}".split("e")[1])


def _tidy(number: str) -> str:
    """Return "0" for every spelling of zero, and exponents without padding: 3.2e-07 -> 3.2e-7."""
    if float(number) == 0:
        return "0"
    mantissa, mark, exponent = number.partition("e")
    return f"{mantissa}e{int(exponent)}" if mark else mantissa
