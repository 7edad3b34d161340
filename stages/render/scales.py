"""From a raw map to numbers between 0 and 1: on which scale it is drawn, and when it is not worth drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from stages.cam.facts import within_rounding
from stages.cam.settings import LOW_CONTRAST_BELOW

MapKind = Literal["statistic", "relu", "signed"]
MapStatus = Literal["ok", "low contrast", "constant", "zero", "not finite", "absent"]
Scope = Literal["image", "percentile", "image-over-checkpoints", "row", "picture", "checkpoint", "dataset", "fixed"]
Percentiles = tuple[float, float]

SCOPE_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "image": "each map its own",
        "percentile": "of the cells of the maps that share it; values beyond it take its end colours",
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
    percentiles
        Of scope "percentile": which percentiles its ends are, (lower, upper).

    Raises
    ------
    ValueError
        If an end is not finite, the ends are out of order, a signed scale is not symmetric, or the scope is unknown.
    """

    vmin: float
    vmax: float
    scope: Scope
    signed: bool = False
    percentiles: Percentiles | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.vmin) and math.isfinite(self.vmax) and self.vmin <= self.vmax):
            raise ValueError(f"scale: vmin = {self.vmin}, vmax = {self.vmax}; expected two finite numbers with vmin <= vmax.")
        if self.signed and self.vmin != -self.vmax:
            raise ValueError(f"scale: signed, but vmin = {self.vmin} is not -vmax = {-self.vmax}. Make it symmetric about 0.")
        if self.scope not in get_args(Scope):
            raise ValueError(f"scale: scope = {self.scope!r}; expected one of {', '.join(get_args(Scope))}.")

    @property
    def words(self) -> str:
        """What the range was taken over, for a picture's footer."""
        name = self.scope if self.percentiles is None else f"{self.scope} {self.percentiles[0]:g} to {self.percentiles[1]:g}"
        return f"scale: {name} ({SCOPE_WORDS[self.scope]})"

    def normalise(self, heat: np.ndarray) -> np.ndarray:
        """Return `heat` on this scale: float32 in 0..1, clipped at the ends, NaN where `heat` is NaN.

        A scale without extent (vmin = vmax) maps to the colour of vmin, or of 0 where signed: no epsilon, no division by zero.
        """
        span = self.vmax - self.vmin
        if span == 0:
            return np.where(np.isnan(heat), np.nan, 0.5 if self.signed else 0.0).astype(np.float32)
        return np.clip((heat.astype(np.float64) - self.vmin) / span, 0, 1).astype(np.float32)


def check_map(heat: np.ndarray, where: str = "heat") -> None:
    """Raise ValueError unless `heat` is one map [h, w] of floating-point numbers."""
    if heat.ndim != 2 or 0 in heat.shape:
        raise ValueError(f"{where}: shape {heat.shape}; expected one map [h, w]. Pass a single sample, head and method.")
    if not np.issubdtype(heat.dtype, np.floating):
        raise ValueError(f"{where}: dtype {heat.dtype}; expected a floating-point map of raw values.")


def rectify(heat: np.ndarray, kind: MapKind) -> np.ndarray:
    """Return the map that is drawn, still raw and on its native grid: ReLU applied where `kind` is "relu", NaN kept."""
    return np.maximum(heat, 0) if kind == "relu" else heat


def find_scale(maps: Iterable[np.ndarray], kind: MapKind, scope: Scope, percentiles: Percentiles | None = None) -> Scale:
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
    percentiles
        Percentiles of the cells (of what is drawn: after the ReLU, of the magnitudes of a signed map) in the place of minimum and maximum; the
        scope is then "percentile". Where they coincide, minimum and maximum after all.

    Raises
    ------
    ValueError
        If no cell of any map is finite.
    """
    finite = [heat[np.isfinite(heat)].astype(np.float64) for heat in maps]
    values = np.concatenate([*finite, np.empty(0)])
    if values.size == 0:
        raise ValueError(f"scale over {scope}: none of the {len(finite)} maps has a finite cell, so there is no range. Leave absent maps out.")
    scope = "percentile" if percentiles else scope
    drawn = rectify(values, kind) if kind == "relu" else np.abs(values) if kind == "signed" else values
    low, high = (float(end) for end in np.percentile(drawn, percentiles or (0, 100)))
    if low == high:  # nothing to tell apart between them
        low, high, percentiles = float(drawn.min()), float(drawn.max()), (0, 100) if percentiles else None
    if kind == "relu":
        return Scale(0.0, high, scope, percentiles=percentiles)
    return Scale(-high, high, scope, True, percentiles) if kind == "signed" else Scale(low, high, scope, percentiles=percentiles)


def contrast(heat: np.ndarray) -> float:
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


def map_status(heat: np.ndarray | None, kind: MapKind, low_contrast_below: float = LOW_CONTRAST_BELOW, rounding: float = 0.0) -> MapStatus:
    """Return what becomes of a raw map [h, w] when it is drawn.

    Parameters
    ----------
    heat
        NaN where it has no value, as in the photo's frame where the network read nothing. None: there is none.
    kind
        Only a "statistic" can be "low contrast" or "constant": the others are drawn from 0.
    low_contrast_below
        Coefficient of variation below which a map has low contrast. That says nothing of what it points at.
    rounding
        Standard deviation of a cell's value from the rounding of what it is made of: see `stages.cam.facts.within_rounding`.

    Returns
    -------
    MapStatus
        "absent" (no cell has a value), "not finite" (one is infinite), "zero" (after its ReLU), "constant", "low contrast" or "ok".
    """
    if heat is None or np.isnan(heat).all():
        return "absent"
    if np.isinf(heat).any():
        return "not finite"
    if not np.nan_to_num(rectify(heat, kind)).any():
        return "zero"
    if kind != "statistic":
        return "ok"
    if within_rounding(float(np.nanmin(heat)), float(np.nanmax(heat)), rounding, heat.size):
        return "constant"
    return "low contrast" if contrast(heat) < low_contrast_below else "ok"


def describe_map(heat: np.ndarray | None, kind: MapKind, status: MapStatus, reason: str = "") -> str:
    """Return what is written about a map: its range, its contrast, or why it is not drawn ("low contrast: CV 0.0014, 9.36 to 9.49")."""
    if status == "absent" or heat is None:
        return reason or "no map: every cell is undefined"
    if status == "not finite":
        return reason or f"not finite: {int(np.isinf(heat).sum())} of {heat.size} cells are infinite"
    low, high = float(np.nanmin(heat)), float(np.nanmax(heat))
    first, last = format_numbers([low, high])
    if status == "zero":
        return f"zero everywhere after ReLU: raw {first} to {last}" if low < 0 else "zero everywhere"
    if status == "constant":
        return f"constant, but for rounding: {first} to {last}" if low < high else f"constant: {first}"
    if status == "low contrast":
        return f"low contrast: CV {format_numbers([contrast(heat)])[0]}, {first} to {last}"
    if kind == "relu":
        return f"max {format_numbers([high])[0]}"
    return f"{first}-{last}" if low >= 0 else f"{first} to {last}"


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
