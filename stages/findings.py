"""What the figures say, in sentences that a reader can check against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

from stages.trust_report import trust_sentences
from stages.warp_figures import ROUNDING


def findings(stats: xr.Dataset) -> list[str]:
    """Return the sentences of the report's first section.

    Parameters
    ----------
    stats : Dataset
        The joined figures, dims (checkpoint, group, product, direction, ...), checkpoints in order.
    """
    return [sentence for rule in _RULES for sentence in rule(stats)]


def display_name(stats: xr.Dataset, index: int) -> str:
    """Name a checkpoint by its epoch where it has one."""
    epoch = float(stats["epoch"][index])
    if np.isnan(epoch):
        return str(stats["checkpoint"].values[index])
    return "untrained" if epoch < 0 else f"epoch {epoch:.0f}"


def _alignment(stats: xr.Dataset) -> Iterator[str]:
    change = float(stats["fam_change"].max())
    if change < ROUNDING:
        how = "bit for bit" if change == 0 else "but for rounding"
        yield (
            f"FAM moves no cell in any checkpoint: before and after are the same tensor, {how}. Patch and aligned pictures of the same map "
            "must look alike. (Nearest sampling, as published, gives the localisation network no gradient; see kornia/kornia#827.)"
        )
        return
    moved = _overall(stats, "moved_cells")
    last = stats.isel(checkpoint=-1)
    turned = last[["warp_mean", "warp_std"]].sel(warp="rotation_deg")
    rotation = [
        f"{float(turned['warp_mean'].sel(group=g)):+.1f} +- {float(turned['warp_std'].sel(group=g)):.1f} ({g})" for g in stats["group"].values
    ]
    text = f"FAM moves {float(moved[0]):.0%} of the cells at {display_name(stats, 0)} and {float(moved[-1]):.0%} at {display_name(stats, -1)}"
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
    return (stats[name] * weight).sum("group") / weight.sum("group")


def _flatness(stats: xr.Dataset) -> Iterator[str]:
    if "flat" not in stats:
        return
    share = _overall(stats, "flat")
    for product in stats["product"].values:
        values = share.sel(product=product)
        flat = [display_name(stats, index) for index in range(values.sizes["checkpoint"]) if float(values[index]) > 0.5]
        if flat:
            where = "every checkpoint" if len(flat) == values.sizes["checkpoint"] else ", ".join(flat)
            yield f"{product} is flat on most images in {where}: its cells differ so little that a stretched picture would show noise."
        twin = str(product).replace("patch/", "aligned/", 1)
        if (
            str(product).startswith("patch/")
            and twin in stats["product"].values
            and float(values[-1]) > 0.5
            and float(share.sel(product=twin)[-1]) < 0.5
        ):
            yield f"{twin} varies only because FAM averages neighbouring cells: {product}, the same map before FAM, is flat."


def _partition(stats: xr.Dataset) -> Iterator[str]:
    count = stats["boundary_count"].isel(checkpoint=-1).sum("group")
    share = count / count.sum("ring")
    typical = [f"{int(row.values.argmax()) + 1} ({float(row.max()):.0%})" for row in share]
    yield f"FPM cuts most often at half-widths {', '.join(typical)} cells in {display_name(stats, -1)}."
    if "boundary_changed_to_previous" in stats:
        changed = _overall(stats, "boundary_changed_to_previous").isel(checkpoint=-1)
        if np.isfinite(changed):
            yield f"From the previous checkpoint to the last, the boundaries of {float(changed):.0%} of the images changed."


def _retrieval(stats: xr.Dataset) -> Iterator[str]:
    for direction in stats["direction"].values:
        recall = stats["recall_1"].sel(direction=direction).values
        if np.isfinite(recall).all():
            best = int(recall.argmax())
            yield (
                f"Recall@1 {direction}: {recall[0]:.1%} at {display_name(stats, 0)}, {recall[-1]:.1%} at {display_name(stats, -1)}; "
                f"best {recall[best]:.1%} at {display_name(stats, best)}."
            )


def _masks(stats: xr.Dataset) -> Iterator[str]:
    if "pointing" not in stats or not np.isfinite(stats["pointing"]).any():
        return
    for product in stats["product"].values:
        if not str(product).startswith("aligned/") or "/none/" in str(product):
            continue
        for group in [name for name in stats["group"].values if str(name).startswith("test")] or stats["group"].values:
            figures = stats[["pointing", "energy", "mask_area"]].sel(product=product, group=group)
            pointing, energy, area = (figures[name].values for name in ("pointing", "energy", "mask_area"))
            yield (
                f"{product}, {group}: the hottest point lies in the target on {pointing[0]:.0%} of the images at {display_name(stats, 0)} and "
                f"{pointing[-1]:.0%} at {display_name(stats, -1)}; share of the heat in the target {energy[0]:.0%} and {energy[-1]:.0%} "
                f"(the target covers {area[-1]:.0%} of the photo)."
            )


_RULES: tuple[Callable[[xr.Dataset], Iterator[str]], ...] = (
    _alignment,
    _retrieval,
    _masks,
    _flatness,
    _partition,
    trust_sentences,
)
