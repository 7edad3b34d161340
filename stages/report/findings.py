"""What the figures say, in sentences that a reader can check against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stages.cam.map_keys import MapKey
from stages.labels import display_name, each_series
from stages.report.trust import trust_sentences
from stages.stats.differences import difference_bounds, not_told_from
from stages.stats.modules import ROUNDING
from stages.targets.names import NO_TARGET
from stages.wording import counted, listed

BLENDED = 1.2  # from this ratio of their contrasts on, norms behind FAM show its blending
_INERT = 0.9  # share of the images from which FPM is called inert
_MOST_NAMES = 6  # checkpoints that a sentence names
ALIKE = 0.95  # mean correlation of the maps with their mean map from which they are called alike


def findings(stats: xr.Dataset) -> list[str]:
    """Return the sentences of the report's first section.

    Parameters
    ----------
    stats : Dataset
        The joined figures, dims (checkpoint, group, product, direction, ...), checkpoints in order. Each series is spoken of by itself.
    """
    return [_said_of(name, sentence) for name, part in each_series(stats) for rule in _RULES for sentence in rule(part)]


def _said_of(series: str, sentence: str) -> str:
    return f"{series}: {sentence}" if series else sentence


def _alignment(stats: xr.Dataset) -> Iterator[str]:
    change, known = float(stats["fam_change"].max()), np.flatnonzero(stats["fam_change"].max("group").notnull())
    if not known.size:
        yield "FAM's warp is not finite on any image: see the values that are not finite above."
        return
    if change < ROUNDING:
        how = "bit for bit" if change == 0 else "but for rounding"
        number = stats.sizes["checkpoint"]
        which = "any checkpoint" if known.size == number else f"any checkpoint whose warp is finite ({known.size} of {number})"
        yield (
            f"FAM moves no cell in {which}: before and after are the same tensor, {how}. Patch and aligned pictures of the same map "
            "must look alike. (Nearest sampling, as published, gives the localisation network no gradient; see kornia/kornia#827.)"
        )
        return
    moved, first, end = _overall(stats, "moved_cells"), int(known[0]), int(known[-1])
    last = stats.isel(checkpoint=end)
    turned = last[["warp_mean", "warp_std"]].sel(warp="rotation_deg").dropna("group")
    rotation = [
        f"{float(turned['warp_mean'].sel(group=g)):+.1f} +- {float(turned['warp_std'].sel(group=g)):.1f} ({g})" for g in turned["group"].values
    ]
    early, late = float(moved[first]), float(moved[end])
    text = f"FAM moves {early:.0%} of the cells at {display_name(stats, first)} and {late:.0%} at {display_name(stats, end)}"
    yield f"{text}; at the end its rotation in degrees, mean and standard deviation over images, is {', '.join(rotation)}."
    if _is_one_warp(last):
        yield "FAM's warp is almost the same for every image: it does not align one view with the other, it applies one fixed warp."


def _is_one_warp(last: xr.Dataset) -> bool:
    """Whether the warps hardly differ, within the groups and between them; rotation is in degrees, the rest in units of the map."""
    between = last["warp_mean"].max("group") - last["warp_mean"].min("group")
    within = last["warp_std"].max("group")
    allowed = xr.where(last["warp"] == "rotation_deg", 1.0, 0.02)
    return bool((between < allowed).all() and (within < allowed).all())


def _overall(stats: xr.Dataset, name: str) -> xr.DataArray:
    """Mean over all images: the groups' means, weighted by their numbers of images; a group without the figure has no weight."""
    weight = stats["count"].where(stats[name].notnull())
    total = weight.sum("group")
    return (stats[name] * weight).sum("group") / total.where(total > 0)


def _contrast(stats: xr.Dataset) -> Iterator[str]:
    if "low_contrast" not in stats:
        return
    share, last = _overall(stats, "low_contrast"), _overall(stats, "variation").isel(checkpoint=-1)
    for map_key in stats["product"].values:
        values = share.sel(product=map_key)
        low = [display_name(stats, index) for index in range(values.sizes["checkpoint"]) if float(values[index]) > 0.5]
        if low:
            where = "every checkpoint" if len(low) == values.sizes["checkpoint"] else ", ".join(low)
            at_end = float(last.sel(product=map_key))
            mean = f" (mean coefficient of variation {at_end:.2g} at the end)" if np.isfinite(at_end) else ""
            yield (
                f"{map_key} has low contrast on most images in {where}{mean}. It is drawn from its minimum to its maximum; low contrast does not "
                f"mean that it points at nothing."
            )
    yield from _blending(last)


def _blending(variation: xr.DataArray) -> Iterator[str]:
    """Norms that vary more behind FAM than before it: sampling has no other way to change them."""
    before, after = "patch/none/l2_norm", "aligned/none/l2_norm"
    if not {before, after} <= set(variation["product"].values):
        return
    own, source = (float(variation.sel(product=key)) for key in (after, before))
    if own > BLENDED * source > 0:
        yield (
            f"{after} varies {own / source:.1f} times as much as {before}, the same map before FAM: blending neighbouring tokens shortens them, "
            f"so that it shows where FAM's bilinear sampling blended. l2_norm_source is the norm of the patch tokens, carried through FAM."
        )


def _alike(stats: xr.Dataset) -> Iterator[str]:
    """Maps that one mean map says nearly all of."""
    if "alike" not in stats:
        return
    found = _overall(stats, "alike").isel(checkpoint=-1)
    values = {str(map_key): float(found.sel(product=map_key)) for map_key in stats["product"].values}
    alike = [f"{map_key} ({value:.3f})" for map_key, value in values.items() if value > ALIKE]
    if alike:
        yield (
            f"All maps look alike at {display_name(stats, -1)}: {', '.join(alike)} (mean correlation of an image's map with the mean map of its "
            f"group, over {ALIKE}). Such a map says where the network looks in any image, not in this one."
        )


def _partition(stats: xr.Dataset) -> Iterator[str]:
    count = stats["boundary_count"].isel(checkpoint=-1).sum("group")
    if not (count.sum("ring") > 0).all():
        return  # no image has boundaries there
    share = count / count.sum("ring")
    typical = [f"{int(row.values.argmax()) + 1} ({float(row.max()):.0%})" for row in share]
    yield f"FPM cuts most often at half-widths {', '.join(typical)} cells in {display_name(stats, -1)}."
    constant = float(_overall(stats, "cut_as_constant").isel(checkpoint=-1))
    if constant > _INERT:
        yield (
            f"FPM is inert: it cuts {constant:.0%} of the images of {display_name(stats, -1)} where it cuts a map whose cells are all alike. "
            "The parts follow the areas of the rings, not what the photo shows."
        )
    if "boundary_changed_to_previous" in stats:
        changed = _overall(stats, "boundary_changed_to_previous").isel(checkpoint=-1)
        if np.isfinite(changed):
            yield f"From the previous checkpoint to the last, the boundaries of {float(changed):.0%} of the images changed."


def _retrieval(stats: xr.Dataset) -> Iterator[str]:
    for direction in stats["direction"].values:
        at = stats.sel(direction=direction)
        if np.isfinite(at["recall_1"]).all():
            yield f"Recall@1 {direction}: {_recall(at)}"
        yield from _left_out(stats, str(direction))


def _recall(at: xr.Dataset) -> str:
    """Recall@1 in one direction: at the first and the last checkpoint, and where it is best."""
    recall, chosen = at["recall_1"].values, at.sel(retrieval="recall_1")
    bounds = chosen["retrieval_interval"].transpose("checkpoint", "bound").values
    draws = chosen["retrieval_draws"].transpose("checkpoint", "draw").values
    last, best = len(recall) - 1, int(recall.argmax())
    places = int(chosen["retrieval_places"].max())

    def told(index: int) -> str:
        return f"{recall[index]:.1%}{with_interval(bounds[index], 1)} at {display_name(at, index)}"

    if last == 0:
        return f"{told(0)}."
    low, high = 100 * difference_bounds(draws[last], draws[0], places)
    change = f"{100 * (recall[last] - recall[0]):+.1f} points{f' [{low:+.1f}, {high:+.1f}]' if np.isfinite(low) else ''}"
    highest = f"highest at {display_name(at, best)}" if best in (0, last) else f"highest {told(best)}"
    if not np.isfinite(draws).all() or places < 2:
        return f"{told(0)}, {told(last)} ({change}); {highest}."
    return f"{told(0)}, {told(last)} ({change}); {highest}, {_among(at, best, not_told_from(recall, draws, best, places))}."


def _among(at: xr.Dataset, best: int, alike: list[int]) -> str:
    """Which checkpoints the best one cannot be told from."""
    others = at.sizes["checkpoint"] - 1
    if not alike:
        return f"higher than at {'the other checkpoint' if others == 1 else f'each of the {others} others'}"
    names = listed([display_name(at, index) for index in alike])
    return f"which cannot be told from {names if len(alike) <= _MOST_NAMES else f'{len(alike)} of the {others} others'}"


def with_interval(bounds: NDArray[np.floating], decimals: int = 0) -> str:
    """Return " [29%, 50%]", or " (too few places: no interval)"."""
    return f" [{bounds[0]:.{decimals}%}, {bounds[1]:.{decimals}%}]" if np.isfinite(bounds).all() else " (too few places: no interval)"


def _left_out(stats: xr.Dataset, direction: str) -> Iterator[str]:
    """Queries that cannot find anything, and gallery images that cannot be found."""
    if "queries" not in stats:
        return
    at = stats.sel(direction=direction)
    unmatched, queries = int(at["queries_unmatched"].max()), int(at["queries"].max())
    if unmatched:
        yield f"Queries {direction} without a gallery image of their place: {unmatched} of {queries}. They count as misses."
    for index in range(stats.sizes["checkpoint"]):
        asking, offered = (int(at[name][index]) for name in ("queries_not_finite", "gallery_not_finite"))
        if asking or offered:
            yield (
                f"{display_name(stats, index)}, {direction}: {counted(asking, 'query', 'queries')} with an embedding that is not finite, counted as "
                f"{'a miss' if asking == 1 else 'misses'}; {counted(offered, 'gallery image')} left out for the same reason."
            )


def _masks(stats: xr.Dataset) -> Iterator[str]:
    if "pointing" not in stats or not np.isfinite(stats["pointing"]).any():
        return
    for map_key in filter(_is_told_with_masks, stats["product"].values):
        for group in [name for name in stats["group"].values if str(name).startswith("test")] or stats["group"].values:
            figures = stats[["pointing", "energy"]].sel(product=map_key, group=group)
            pointing, energy = (figures[name].values for name in ("pointing", "energy"))
            others = stats["shuffled"].sel(product=map_key, group=group, shuffled_figure=["pointing", "energy"]).isel(checkpoint=-1).values
            bounds = stats["map_interval"].sel(product=map_key, group=group, map_figure="pointing").transpose("checkpoint", "bound").values
            if not np.isfinite([pointing[0], pointing[-1], energy[0], energy[-1]]).all():
                continue  # no image of the group has such a map
            said = f"share of the heat in the target {energy[0]:.0%} and {energy[-1]:.0%}"
            if np.isfinite(others).all():
                said += f"; against the masks of other places the maps of {display_name(stats, -1)} have {others[0]:.0%} and {others[1]:.0%}"
            yield (
                f"{map_key}, {group}: the hottest point lies in the target on {pointing[0]:.0%}{with_interval(bounds[0])} of the images at "
                f"{display_name(stats, 0)} and {pointing[-1]:.0%}{with_interval(bounds[-1])} at {display_name(stats, -1)}; {said}."
            )


def _is_told_with_masks(key: str) -> bool:
    """Whether a sentence is due to the product: gradient maps at aligned, and the norms, which are what is drawn most."""
    map_key = MapKey.parse(str(key))
    if map_key.target != NO_TARGET:
        return map_key.position == "aligned"
    return map_key.method in ("l2_norm", "l2_norm_source") and map_key.position in ("patch", "aligned")


_RULES: tuple[Callable[[xr.Dataset], Iterator[str]], ...] = (
    _alignment,
    _retrieval,
    _masks,
    _contrast,
    _alike,
    _partition,
    trust_sentences,
)
