"""The stats stage: cams.zarr and the small features -> stats.zarr, a group a checkpoint, and one that joins them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import xarray as xr

from pipeline.cam.references import Compared, OtherHeads
from pipeline.cam.stage import finished_stamps
from pipeline.cam.wanted import wanted_products
from pipeline.disk.records import sweep
from pipeline.disk.stamps import difference, stamp
from pipeline.features.finished import content_stamp, finished_checkpoints, images_stamp
from pipeline.features.reading import read_features
from pipeline.features.variants import chosen_of, stored_variants, texts_digest
from pipeline.run.directory import MissingProductError, Outcome, Run
from pipeline.run.rates import note_rate
from pipeline.store.blocks import Block
from pipeline.store.groups import JOINED
from pipeline.store.tables import dataset_seal, group_attributes, read_dataset, write_dataset
from pipeline.work.executors import run_blocks, run_groups
from pipeline.work.log import log
from pipeline.work.pieces import Group
from pipeline.work.progress import Progress
from pipeline.work.stops import check_stop, telling_what_is_left
from safenet.architecture import Architecture
from stages.cam.compute import compute_cams, needed_features
from stages.cam.products import Product
from stages.finite import whole_or_nothing
from stages.index.variants import chosen_samples
from stages.labels import CheckpointName, series_of
from stages.schema import MASKS
from stages.spreading import spread
from stages.stats.groups import (
    NEEDED_FEATURES,
    BlockSummary,
    Groups,
    changed_boundaries,
    combine,
    drift_block,
    finalize,
    finalize_drift,
    retrieval,
    summarise_block,
)
from stages.stats.sanity import can_be_checked, fresh_heads, sanity_figures
from stages.stats.variants import retrieval_by_variant

VERSION = 5
_SANITY_SEED = 0


@dataclass(frozen=True)
class _Inputs:
    """What the figures of a checkpoint are made of."""

    name: str
    products: Sequence[Product]
    variants: Sequence[str]
    groups: Groups
    blocks: Sequence[Block]
    made_with: Mapping[str, Any]
    epoch: int | None
    series: str

    @property
    def stamp(self) -> str:
        """Digest of what the figures are made with."""
        return stamp(self.made_with)


def stats(run: Run, *, partial: bool = False) -> Outcome:
    """Bring the figures up to date: those of each checkpoint, then what changes from one to the next.

    Parameters
    ----------
    run : Run
    partial : bool
        Leave unfinished checkpoints out instead of refusing.

    Raises
    ------
    MissingProductError
        If features or heat maps are missing or unfinished.
    """
    names = finished_checkpoints(run, partial)
    inputs = [_inputs(run, name) for name in names]
    mine, started = run.part.share(inputs), perf_counter()
    with (
        run.preparing("stats") as preparation,
        Progress("stats", len(mine), "checkpoint", shown=run.progress) as progress,
        telling_what_is_left(lambda: f"left: figures of {progress.left} of {len(mine)} checkpoints", run.directory),
    ):
        if preparation.alone:
            sweep(run.stats_path)
            sweep(run.directory / "ledger" / "stats")
        preparation.let_in()
        stale = [one for one in mine if not _is_fresh(run, one.name, one.stamp)]
        progress.add(len(mine) - len(stale))
        groups = [Group(one.name, [one]) for one in stale]
        for done in run_groups(run.settings.compute, FiguresWork(run), groups, directory=run.directory, say=run.say):
            progress.add(1, done.worker, done.seconds)
        _join(run, inputs)
    note_rate(run.directory, "stats", len(stale) * len(run.manifest), perf_counter() - started)
    return Outcome("stats", len(stale), len(mine) - len(stale), "checkpoints")


@dataclass(frozen=True)
class FiguresWork:
    """Figures of one checkpoint after the other; each is reduced where its blocks are read, and nothing but a group is written."""

    run: Run

    def open(self) -> Callable[[_Inputs], None]:
        """Once in each process."""
        return self._write

    def _write(self, one: _Inputs) -> None:
        about = {"stamp": one.stamp, "made_with": one.made_with, "epoch": one.epoch}
        write_dataset(self.run.stats_path, one.name, _of_checkpoint(self.run, one), about)
        log(f"{self.run.stats_path.name}/{one.name}: figures written")


def _join(run: Run, inputs: Sequence[_Inputs]) -> None:
    """Write the group that joins all checkpoints; of parts the one that finds them all done."""
    mark = _joined_stamp(inputs)
    with run.finishing("stats"):
        if all(_is_fresh(run, one.name, one.stamp) for one in inputs) and not _is_fresh(run, JOINED, mark):
            _write_all(run, inputs, mark)


def _is_fresh(run: Run, group: str, mark: str) -> bool:
    return group_attributes(run.stats_path, group).get("stamp") == mark and not dataset_seal(run.stats_path, group).faults()


def stale_figures(run: Run, names: Sequence[str]) -> dict[str, str]:
    """Name of a checkpoint (or JOINED) whose figures are missing or stale -> why."""
    inputs = [_inputs(run, name) for name in names]
    found = {one.name: _why_stale(run, one) for one in inputs if not _is_fresh(run, one.name, one.stamp)}
    if not _is_fresh(run, JOINED, _joined_stamp(inputs)):
        found[JOINED] = "a checkpoint's figures change" if found else "the checkpoints changed, or its files are damaged"
    return found


def _why_stale(run: Run, one: _Inputs) -> str:
    made = group_attributes(run.stats_path, one.name)
    return difference(made.get("made_with", {}), one.made_with) or "its files are damaged" if made else "not computed yet"


def _joined_stamp(inputs: Sequence[_Inputs]) -> str:
    return stamp([[one.stamp, one.epoch, one.series] for one in inputs])


def open_stats(run: Run) -> xr.Dataset:
    """Open the figures of all checkpoints, dims (checkpoint, group, product, ...), in memory.

    Raises
    ------
    MissingProductError
        If there are none, or they were made of other heat maps than those that the settings ask for.
    """
    made = group_attributes(run.stats_path, JOINED).get("stamp")
    if made is None:
        raise MissingProductError(f"{run.stats_path}: no figures; run `atlas stats` first")
    if made != _joined_stamp([_inputs(run, name) for name in finished_checkpoints(run, partial=True)]):
        raise MissingProductError(f"{run.stats_path}: older than the heat maps or the settings; run `atlas stats` again")
    return read_dataset(run.stats_path, JOINED)


def _inputs(run: Run, name: str) -> _Inputs:
    products = wanted_products(run, name)
    features = run.features(name)
    stamps = finished_stamps(run, name, products)
    texts = features.read(["split", "view", "valid"])
    variant = stored_variants(run, features)
    variants = chosen_of(run, variant, str(features))
    looked_at = texts["valid"].values & chosen_samples(variant, variants)
    groups = Groups.of(texts["split"].values.tolist(), texts["view"].values.tolist(), looked_at.tolist(), variant)
    settings = run.settings.stats.model_dump(mode="json")
    made_with = {
        "heat_maps": stamp(stamps),
        "features": content_stamp(features),
        "texts": texts_digest(run, features),
        "settings": settings,
        "version": VERSION,
        "variants": variants,
    }
    attributes = features.attributes
    return _Inputs(name, products, variants, groups, features.blocks, made_with, attributes["epoch"], attributes.get("series", ""))


def _of_checkpoint(run: Run, one: _Inputs) -> xr.Dataset:
    features, cams, settings = run.features(one.name), run.cams(one.name), run.settings.stats
    wanted = [*NEEDED_FEATURES, *(key for key in MASKS if features.has(key))]
    network = Architecture(**features.attributes["architecture"])

    def work(block: Block) -> BlockSummary:
        maps = cams.read([key for product in one.products for key in (product.key, product.facts_key)], block.rows)
        group = one.groups.index[block.rows]
        return summarise_block(maps, features.read(wanted, block.rows), group, len(one.groups.name), network, settings)

    found = finalize(combine(list(_run(run, work, one.blocks))), one.groups, one.products, settings)
    return found.merge(_sanity(run, one)).merge(_retrieval(run, one))  # the products keep their order


def _sanity(run: Run, one: _Inputs) -> xr.Dataset:
    """Agreement of the maps with those under fresh heads, on a few images, dims (product,)."""
    features, wanted = run.features(one.name), run.settings.stats.sanity_samples
    products = [product for product in one.products if can_be_checked(product)]
    if not products or not wanted:
        return xr.Dataset()
    network = Architecture(**features.attributes["architecture"])
    heads = fresh_heads(network, _SANITY_SEED)
    compared = Compared(features, OtherHeads(heads, features.attributes["class_names"], network.head_activation))
    compared.prepare(products)
    rows, with_images = [], [block for block in one.blocks if (one.groups.index[block.rows] >= 0).any()]
    if not with_images:
        return xr.Dataset()
    for block in _few_blocks(with_images, wanted):
        check_stop()
        block_features = compared.attach(read_features(features, needed_features(products), block.rows), block.rows, products)
        randomised = compute_cams(block_features, products, compared.context)
        stored = run.cams(one.name).read([product.key for product in products], block.rows)
        rows.append(sanity_figures(stored, randomised, products).isel(sample=one.groups.index[block.rows] >= 0))
    mean = xr.concat(rows, dim="sample").mean("sample")
    figures = xr.Dataset({"sanity": mean.assign_coords(product=np.array([product.key for product in products], dtype=object))})
    return figures.reindex(product=np.array([product.key for product in one.products], dtype=object))


def _few_blocks(blocks: Sequence[Block], samples: int) -> list[Block]:
    """Evenly spread blocks that have at least so many samples together, or all."""
    count = min(len(blocks), -(-samples // len(blocks[0])))
    return [blocks[index] for index in spread(len(blocks), count)]


def _retrieval(run: Run, one: _Inputs) -> xr.Dataset:
    """Of all images that are looked at, and by flight height where there are several."""
    features = run.features(one.name)
    keys = ["embedding", "flip_embedding"] if features.has("flip_embedding") else ["embedding"]
    read = features.read([*keys, "place", "view", "roles"])
    embedding = np.sum([whole_or_nothing(read[key].values) for key in keys], axis=0)
    place, view, roles = (read[key].values.tolist() for key in ("place", "view", "roles"))
    looked_at = (one.groups.index >= 0).tolist()
    found = retrieval(embedding, place, view, roles, looked_at)
    return found.merge(retrieval_by_variant(embedding, place, view, roles, looked_at, stored_variants(run, features), one.variants))


def _write_all(run: Run, inputs: Sequence[_Inputs], mark: str) -> None:
    """Join the checkpoints and add the drift from the previous and to the last one of each series."""
    pairs = _pairs(inputs)
    groups = [Group(pair.one.name, [pair]) for pair in pairs]
    done = run_groups(run.settings.compute, DriftWork(run), groups, directory=run.directory, say=run.say)
    drifts = {one.group: one.result for one in done}
    parts = [read_dataset(run.stats_path, one.name).drop_attrs().merge(drifts[one.name]) for one in inputs]
    odd = [one.name for one, part in zip(inputs, parts, strict=True) if _shape(part) != _shape(parts[0])]
    if odd:
        raise ValueError(
            f"{run.stats_path}: {inputs[0].name} and {odd[0]} differ in grid or parts, so that their figures cannot be joined; use a run for each"
        )
    joined = xr.concat(parts, dim="checkpoint", join="outer", data_vars="all")
    joined = joined.assign_coords(
        checkpoint=("checkpoint", np.array([one.name for one in inputs], dtype=object)),
        epoch=("checkpoint", np.array([np.nan if one.epoch is None else one.epoch for one in inputs], float)),
        series=("checkpoint", np.array([one.series for one in inputs], dtype=object)),
    )
    write_dataset(run.stats_path, JOINED, joined, {"stamp": mark})


@dataclass(frozen=True)
class _Pairs:
    """A checkpoint, and those of its series that it is compared with."""

    previous: _Inputs | None
    one: _Inputs
    last: _Inputs


def _pairs(inputs: Sequence[_Inputs]) -> list[_Pairs]:
    """Series by series: what one training changed says nothing of another."""
    named = [CheckpointName(one.name, one.epoch, one.series) for one in inputs]
    found = []
    for numbers in series_of(named).values():
        of_series = [inputs[number] for number in numbers]
        found += [_Pairs(of_series[number - 1] if number else None, one, of_series[-1]) for number, one in enumerate(of_series)]
    return found


@dataclass(frozen=True)
class DriftWork:
    """What changed from the previous checkpoint to one, and from that to the last: small arrays."""

    run: Run

    def open(self) -> Callable[[_Pairs], xr.Dataset]:
        """Once in each process."""
        return self._compare

    def _compare(self, pairs: _Pairs) -> xr.Dataset:
        return _drift(self.run, pairs.previous, pairs.one, "previous").merge(_drift(self.run, pairs.one, pairs.last, "last"))


def _shape(part: xr.Dataset) -> dict[str, int]:
    return {str(dim): size for dim, size in part.sizes.items() if dim in ("y", "x", "ring", "part")}


def _drift(run: Run, before: _Inputs | None, after: _Inputs, suffix: str) -> xr.Dataset:
    """Drift between two checkpoints; nothing where there is no earlier one, or its samples or grid differ."""
    if before is None or not _comparable(run, before, after):
        return xr.Dataset()
    keys = [product.key for product in after.products]
    first, second = (run.cams(one.name) for one in (before, after))

    def work(block: Block) -> xr.Dataset:
        return drift_block(first.read(keys, block.rows), second.read(keys, block.rows), run.settings.stats)

    blocks = list(_run(run, work, after.blocks)) if keys else []
    found = finalize_drift(xr.concat(blocks, dim="sample"), after.groups, after.products, suffix) if blocks else xr.Dataset()
    boundaries = [run.features(one.name).read(["boundary", "saliency"]) for one in (before, after)]
    if boundaries[0].sizes == boundaries[1].sizes:
        found[f"boundary_changed_to_{suffix}"] = changed_boundaries(boundaries[0], boundaries[1], after.groups)
    return found


def _comparable(run: Run, before: _Inputs, after: _Inputs) -> bool:
    one, other = (run.features(inputs.name).attributes for inputs in (before, after))
    grids = [attributes["architecture"]["image_size"] // attributes["architecture"]["patch_size"] for attributes in (one, other)]
    same_images = images_stamp(run.features(before.name)) == images_stamp(run.features(after.name))
    return same_images and grids[0] == grids[1]


def _run(run: Run, work: Any, blocks: Sequence[Block]) -> Any:
    for result in run_blocks(run.settings.compute, work, blocks):
        check_stop()
        yield result
