"""Features -> heat maps at every position, target and method asked for; lazily where the features are lazy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from safenet.architecture import Pooling, Sampling
from stages.cam.facts import FACTS, map_facts
from stages.cam.gradients import COLUMNS
from stages.cam.map_keys import MapKey
from stages.cam.methods import METHODS, CamInput, CamMethod, Cells
from stages.cam.names import block_number
from stages.cam.positions import NEEDS_OF_SOURCE, POSITIONS, PositionView, open_block, open_source
from stages.cam.rounding import relative_error
from stages.cam.settings import LOW_CONTRAST_BELOW
from stages.finite import neutral
from stages.half_precision import to_single
from stages.schema import FEATURES, Arrays, check
from stages.targets.names import NO_TARGET, TargetName, parse_target
from stages.targets.references import reference_name
from stages.targets.scores import ChannelRemoval, Score
from stages.targets.scoring import RIVAL_WEIGHT, TargetContext, open_score, rival_direction, without_rivals

_OTHER_KIND = {"class": {"embedding", "flip_embedding"}, "similarity": {"logit"}}  # read for all targets, needed by those of the other kind alone
_AT_ONCE = 8 * 256 * 768  # numbers of a map that are in the processor's cache together; every map is the same for any other choice


@dataclass(frozen=True)
class CamContext:
    """What the maps of a checkpoint need beyond a block's own features.

    Parameters
    ----------
    targets : TargetContext
    sampling : {"nearest", "bilinear"}
        FAM's.
    pooling : {"mean", "max"}
        FPM's.
    precision : {"float32", "bfloat16", "float16"}
        The transformer's, when the features were made: what part of a map is rounding depends on it.
    """

    targets: TargetContext
    sampling: Sampling
    pooling: Pooling = "mean"
    precision: str = "float32"


def needed_features(map_keys: Iterable[MapKey]) -> set[str]:
    """Name the feature variables that the products are made of."""
    needed = {"valid", "source_cell"}
    for map_key in map_keys:
        position, method = POSITIONS.get(map_key.position), METHODS[map_key.method]
        if map_key.is_stored_gradient:
            needed |= {"block_cam", "gradient_target", "gradient_block", "gradient_method"}
        elif method.reads:
            needed.add(method.reads)
        elif position is None:
            needed |= {"block_map", "block"}
        else:
            needed |= set(NEEDS_OF_SOURCE if method.where == "aligned" else position.needs)
        if position is not None and map_key.target != NO_TARGET:
            needed |= {"logit", "embedding", "part_feature", *position.needs_for_gradient}
            needed |= {"flip_embedding"} if parse_target(map_key.target).flip else set()
    return needed


def needed_references(map_keys: Iterable[MapKey]) -> dict[str, TargetName]:
    """Name of each reference variable (see stages/targets/references.py) that the products need -> a target that reads it."""
    found: dict[str, TargetName] = {}
    for map_key in map_keys:
        target = None if map_key.target == NO_TARGET or map_key.is_stored_gradient else parse_target(map_key.target)
        if target is not None and target.row.kind == "similarity":
            roles = ["own", *(["all"] if target.row.reading == "contrast" else []), *(["rivals"] if map_key.method == "finer_cam" else [])]
            found |= {reference_name(target, role): target for role in roles}  # type: ignore[arg-type]
    return found


def compute_cams(features: xr.Dataset, map_keys: Iterable[MapKey], context: CamContext) -> xr.Dataset:
    """Return one variable per product, named by its key, and its facts, named by its `facts_key`.

    Parameters
    ----------
    features : Dataset
        The variables of `needed_features`, for gradient methods the int variable `class_index` along `sample` (-1: undefined), and the variables
        of `needed_references`, dims (sample, head, embed). In memory, or chunked in any way.
    products : iterable of Product
    context : CamContext

    Returns
    -------
    Dataset
        float32 (sample, y, x), raw and signed, and float32 (sample, fact); lazy where `features` is lazy, chunked along `sample` alone. Maps are all
        NaN for samples that are not valid or have no such target. `aligned` and `part` maps lie on the aligned grid, the others on the patch grid.

    Raises
    ------
    ValueError
        If a needed variable is absent.
    """
    map_keys = tuple(map_keys)
    needed, references = needed_features(map_keys), sorted(needed_references(map_keys))
    check(features, needed, "the feature store")
    missing = [name for name in references if name not in features]
    if missing:
        raise ValueError(f"the features lack {missing[0]}: what the samples are compared with; attach it along sample, head and embed")
    chosen = features[sorted({*needed, *references, *({"class_index"} & set(features))})].reset_coords(drop=True)
    if not chosen.chunks:
        return _labelled_block(chosen, map_keys, context)
    whole = {dim: -1 for dim in chosen.dims if dim != "sample"}
    chosen = chosen.chunk(whole).unify_chunks()
    one_map = xr.zeros_like(chosen["source_cell"], dtype=np.float32)
    facts = xr.zeros_like(chosen["valid"], dtype=np.float32).expand_dims(fact=len(FACTS), axis=1).chunk(fact=-1)
    template = xr.Dataset({key: value for p in map_keys for key, value in ((p.key, one_map), (p.facts_key, facts))})
    return chosen.map_blocks(_labelled_block, (map_keys, context), template=template)


def _labelled_block(features: xr.Dataset, map_keys: tuple[MapKey, ...], context: CamContext) -> xr.Dataset:
    stored = {str(name): features[name].values for name in features.variables}  # what a dim holds, such as `block`, is a coordinate
    found = cams_of_block(stored, map_keys, context)
    return xr.Dataset({key: (("sample", "y", "x") if values.ndim == 3 else ("sample", "fact"), values) for key, values in found.items()})


def cams_of_block(features: Arrays, map_keys: Sequence[MapKey], context: CamContext) -> dict[str, NDArray[np.float32]]:
    """Make all products of one block in one pass, so that each stored map is read and converted once.

    What `compute_cams` is for one block in memory, without labels and checks: maps by their keys, facts by their `facts_key`.
    """
    per_sample = {name for name in features if name not in FEATURES or FEATURES[name].per_sample}
    arrays, spoilt = neutral(features, per_sample)
    scores = {name: open_score(arrays, parse_target(name), context.targets) for name in _targets(map_keys)}
    made: dict[MapKey, list[_Made]] = {map_key: [] for map_key in map_keys}
    at_once = max(1, _AT_ONCE // max((math.prod(value.shape[-3:]) for value in arrays.values() if value.ndim > 3), default=1))
    for start in range(0, max(len(arrays["valid"]), 1), at_once):
        few = {name: value[start : start + at_once] if name in per_sample else value for name, value in arrays.items()}
        twins = _twins(few, map_keys, context.sampling)
        found_few = dict(_compute_few(few, [map_key for map_key in map_keys if map_key not in twins], context))
        for map_key in map_keys:
            made[map_key].append(found_few[twins.get(map_key, map_key)])
    void = ~arrays["valid"].astype(bool)
    found: dict[str, NDArray[np.float32]] = {}
    for map_key, parts in made.items():
        not_finite = np.logical_or.reduce([np.zeros(len(void), bool), *(spoilt[name] for name in needed_finite(map_key) & set(spoilt))])
        without = _without_target(map_key, arrays, scores.get(map_key.target)) & ~(not_finite & _unknown_without(map_key))
        alone = _without_rivals(map_key, arrays, context) & ~not_finite
        found[map_key.key], found[map_key.facts_key] = _with_facts(map_key, parts, void | without, alone, not_finite, scores.get(map_key.target))
    return found


def needed_finite(map_key: MapKey) -> set[str]:
    """Variables that must be finite for a map to be."""
    if map_key.target == NO_TARGET or map_key.is_stored_gradient:
        return needed_features([map_key])
    return needed_features([map_key]) - _OTHER_KIND[parse_target(map_key.target).row.kind]


def _without_target(map_key: MapKey, block: Arrays, score: Score | None) -> NDArray[np.bool_]:
    """Which samples have no such target; what `extract` made of a class tells only by the class."""
    if score is not None:
        return score.absent
    if map_key.is_stored_gradient and parse_target(map_key.target).base == "label":
        return np.asarray(block["class_index"] < 0)
    return np.zeros(len(block["valid"]), bool)


def _unknown_without(map_key: MapKey) -> bool:
    """Whether an image that is not finite may have such a target: all but those that other images, or the dataset, are enough to tell of."""
    return map_key.target != NO_TARGET and parse_target(map_key.target).row.who not in ("pair", "label")


def _without_rivals(map_key: MapKey, block: Arrays, context: CamContext) -> NDArray[np.bool_]:
    if map_key.method != "finer_cam":
        return np.zeros(len(block["valid"]), bool)
    return without_rivals(block, parse_target(map_key.target), context.targets)


@dataclass(frozen=True)
class _Made:
    """Maps [B, y, x] of a product, which are not finite, [B]; their rounding, and the share of bad denominators of the method, both [B]."""

    maps: NDArray[np.float32]
    spoilt: NDArray[np.bool_]
    rounding: NDArray[np.float64] | None = None
    clipped: NDArray[np.floating] | None = None


def _with_facts(
    map_key: MapKey,
    parts: Sequence[_Made],
    absent: NDArray[np.bool_],
    alone: NDArray[np.bool_],
    not_finite: NDArray[np.bool_],
    score: Score | None,
) -> tuple[NDArray, NDArray]:
    """Join the parts of a block, and look at every map once.

    A map is all NaN where the target is absent, where it is `alone` (then the target has its score, but no rivals), or what it is made of not finite.
    """
    maps = np.concatenate([part.maps for part in parts])
    nothing = absent | not_finite | np.concatenate([part.spoilt for part in parts])
    maps[nothing | alone] = np.nan
    rounding, clipped = (_joined([getattr(part, name) for part in parts]) for name in ("rounding", "clipped"))
    value, constant = (None, None) if score is None else (np.where(nothing, np.nan, found) for found in (score.value, score.constant))
    return maps, map_facts(maps, METHODS[map_key.method].kind, LOW_CONTRAST_BELOW, clipped, rounding, value, constant, absent | alone)


def _joined(parts: Sequence[NDArray[np.floating] | None]) -> NDArray[np.floating] | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


def _twins(block: Arrays, map_keys: Sequence[MapKey], sampling: Sampling) -> dict[MapKey, MapKey]:
    """Name maps at `aligned` that are those at `patch`, because FAM moves no cell of these images: each -> the other.

    So it is with the published networks: nearest sampling gives the localisation network no gradient.
    """
    wanted = set(map_keys)
    found = {key: twin for key in map_keys if key.position == "aligned" and (twin := replace(key, position="patch")) in wanted}
    return found if found and sampling == "nearest" and _is_unmoved(block) else {}


def _is_unmoved(block: Arrays) -> bool:
    """Whether every cell of every image is read from its own place, and stored alike before and after."""
    source, patch, aligned = block["source_cell"], block["patch_map"], block["aligned_map"]
    own_place = np.arange(math.prod(source.shape[1:])).reshape(source.shape[1:])
    bits = f"u{patch.itemsize}"  # as integers, so that NaN equals itself
    return bool((source == own_place).all()) and patch.dtype == aligned.dtype and np.array_equal(patch.view(bits), aligned.view(bits))


def _compute_few(block: Arrays, map_keys: Sequence[MapKey], context: CamContext) -> Iterator[tuple[MapKey, _Made]]:
    scores = {name: open_score(block, parse_target(name), context.targets) for name in _targets(map_keys)}
    singles = {**block, "patch_map": to_single(block["patch_map"])} if "patch_map" in block else block  # once: the aligned position reads it, too
    of_source = [map_key for map_key in map_keys if METHODS[map_key.method].where == "aligned"]
    if of_source:
        yield from _of_source(singles, of_source, str(block["patch_map"].dtype), context)
    others = [map_key for map_key in map_keys if METHODS[map_key.method].where != "aligned"]
    for position in dict.fromkeys(map_key.position for map_key in others):
        here = [map_key for map_key in others if map_key.position == position]
        if position in POSITIONS:
            yield from _at_map(singles, here, scores, context, str(block[POSITIONS[position].needs[0]].dtype))
        else:
            yield from _at_block(block, here, context)


def _targets(map_keys: Iterable[MapKey]) -> list[str]:
    return sorted({map_key.target for map_key in map_keys if map_key.target != NO_TARGET and not map_key.is_stored_gradient})


def _at_map(
    block: Arrays, map_keys: Sequence[MapKey], scores: Mapping[str, Score], context: CamContext, dtype: str
) -> Iterator[tuple[MapKey, _Made]]:
    """Products of one position, whose cells were stored as `dtype`; those that are channel weights share one pass over the cells."""
    position = POSITIONS[map_keys[0].position]
    frame = position.open(block, context.sampling, context.pooling, any(map_key.target != NO_TARGET for map_key in map_keys))
    views = {
        target: _view(block, frame, target, scores.get(target), {p.method for p in map_keys if p.target == target}, context)
        for target in dict.fromkeys(map_key.target for map_key in map_keys)
    }
    weighted = [map_key for map_key in map_keys if METHODS[map_key.method].gives == "weights"]
    if weighted:
        sums = _weighted_sums(frame.cells.values, [METHODS[map_key.method].formula(views[map_key.target]) for map_key in weighted])
    for map_key in map_keys:
        method, view = METHODS[map_key.method], views[map_key.target]
        values = sums[:, :, weighted.index(map_key)] if map_key in weighted else method.formula(view)
        clipped = method.clipped(view) if method.clipped else None
        yield map_key, _Made(frame.paint(values), frame.spoilt, _rounding(method, view, values, dtype, context), clipped)


def _of_source(block: Arrays, map_keys: Sequence[MapKey], dtype: str, context: CamContext) -> Iterator[tuple[MapKey, _Made]]:
    """Class-free products at the aligned map, of the cells that FAM read."""
    source, spoilt = open_source(block, context.sampling)
    view = CamInput(source.cells, source=source)
    for map_key in map_keys:
        method = METHODS[map_key.method]
        values = method.formula(view)
        yield map_key, _Made(values.reshape(block["source_cell"].shape), spoilt, _rounding(method, view, values, dtype, context))


def _weighted_sums(cells: NDArray[np.float32], weights: Sequence[NDArray]) -> NDArray[np.float32]:
    """sum_k w_k A_k for every w [B, K] of `weights`, [B, N, len(weights)].

    Always so many columns at a time, the last ones zeros: a map must have the same bits whichever others are made with it.
    """
    found = []
    for start in range(0, len(weights), COLUMNS):
        few = np.zeros((*weights[0].shape, COLUMNS), np.float32)
        for column, values in enumerate(weights[start : start + COLUMNS]):
            few[..., column] = values
        with np.errstate(invalid="ignore"):  # infinite weights, of denominators that are zero
            found.append(np.matmul(cells, few))
    return np.concatenate(found, axis=2)


def _view(block: Arrays, frame: PositionView, target: str, score: Score | None, methods: set[str], context: CamContext) -> CamInput:
    """What the formulas see of one target."""
    if score is None:
        return CamInput(frame.cells)
    rivals = None
    if "finer_cam" in methods:
        rivals = frame.gradient(score.direction - RIVAL_WEIGHT * rival_direction(block, parse_target(target), context.targets))
    return CamInput(frame.cells, frame.gradient(score.direction), score, rivals, ChannelRemoval(block["part_feature"]), frame.tokens)


def _at_block(block: Arrays, map_keys: Sequence[MapKey], context: CamContext) -> Iterator[tuple[MapKey, _Made]]:
    """Products of one transformer block: of its stored map, of stored attention, or stored as they are."""
    number = block_number(map_keys[0].position)
    assert number is not None
    frame = None
    for map_key in map_keys:
        method = METHODS[map_key.method]
        if map_key.is_stored_gradient:
            asked = {"gradient_target": map_key.target, "gradient_block": number, "gradient_method": map_key.method}
            target, at, how = (_place_of(key, block, name) for name, key in asked.items())  # type: ignore[arg-type]
            maps = block["block_cam"][:, target, at, how].astype(np.float32)
            yield map_key, _Made(maps, np.zeros(len(maps), bool))
        elif method.reads:
            stored = block[method.reads][:, number]
            view = CamInput(_NO_CELLS, stored=stored.astype(np.float32))
            values = method.formula(view)
            yield map_key, _Made(values, np.zeros(len(values), bool), _rounding(method, view, values, str(stored.dtype), context))
        else:
            frame = frame or open_block(block["block_map"][:, _place_of(number, block, "block")])
            view = CamInput(frame.cells)
            values = method.formula(view)
            if method.gives == "weights":
                values = np.matmul(frame.cells.values, values[:, :, None])[:, :, 0]
            yield map_key, _Made(frame.paint(values), frame.spoilt, _rounding(method, view, values, str(block["block_map"].dtype), context))


def _rounding(method: CamMethod, view: CamInput, values: NDArray, dtype: str, context: CamContext) -> NDArray[np.float64] | None:
    """Standard deviation of a cell's value, [B]."""
    if method.rounding is None:
        return None
    error = relative_error(dtype, context.precision, max(view.cells.values.shape[2], 1))
    return error * method.rounding(view, values.reshape(len(values), -1))


def _place_of(key: str | int, block: Arrays, name: str) -> int:
    stored = block[name].tolist()
    if key not in stored:
        raise ValueError(f"the feature store holds {name.replace('_', ' ')}s {stored}, not {key!r}; extract again with it, see [extract]")
    return stored.index(key)


_NO_CELLS = Cells(np.empty((0, 0, 0), np.float32))
