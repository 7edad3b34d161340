"""The cam stage: features.zarr -> cams.zarr, one array a product, each with its own stamp; no model, no checkpoint file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from tqdm import tqdm

from pipeline.blocks import Block, Ledger
from pipeline.executors import run_blocks
from pipeline.features import read_features
from pipeline.run import MissingProductError, Outcome, Run
from pipeline.stamps import stamp
from pipeline.stores import GroupStore
from stages.cam import CamContext, Product, compute_cams, needed_features, products_of, without_closed_form
from stages.cam_methods import METHODS
from stages.positions import ON_ALIGNED_GRID, block_number
from stages.schema import HEAD_PREFIX, Variable
from stages.targets import (
    CLASS_PREFIX,
    NEEDS_REFERENCE,
    UNDEFINED,
    ReferenceGroups,
    TargetContext,
    check_target,
    label_index,
    part_heads,
    reference_embeddings,
    reference_groups,
    rival_embeddings,
)

VERSION = 1
_TEXTS = ("place", "view", "split", "roles")


@dataclass(frozen=True)
class _Samples:
    """What the targets need of every sample, small enough to hold."""

    class_index: np.ndarray
    groups: ReferenceGroups

    def attach(self, features: xr.Dataset, block: Block) -> xr.Dataset:
        columns = {"class_index": self.class_index, "reference_group": self.groups.wanted}
        return features.assign({name: ("sample", values[block.rows]) for name, values in columns.items()})


def cam(run: Run, *, partial: bool = False) -> Outcome:
    """Bring the heat maps of every extracted checkpoint up to date; a new method computes itself alone.

    Parameters
    ----------
    run : Run
    partial : bool
        Leave unfinished checkpoints out instead of refusing.

    Raises
    ------
    MissingProductError
        If there are no finished features.
    ValueError
        If a target or a position cannot be had from the stored features.
    """
    products = products_of(run.settings.cam)
    computed = fresh = 0
    names = run.checkpoints(partial)
    contexts = {name: _check(run.features(name), products) for name in names}  # all, before anything is computed
    with tqdm(total=len(names), unit="checkpoint", disable=not run.progress) as bar:
        for name in names:
            bar.set_description(name)
            done = _bring_up_to_date(run, name, products, contexts[name])
            computed, fresh = computed + done, fresh + len(products) - done
            bar.update()
    left_out = without_closed_form(run.settings.cam)
    notes = [f"left out, since a gradient at a block needs the backbone: {', '.join(left_out)}"] if left_out else []
    return Outcome("cam", computed, fresh, "maps (checkpoint x position x target x method)", tuple(notes))


def product_stamp(feature_stamp: str, product: Product) -> str:
    """Stamp of one product of one checkpoint."""
    return stamp({"features": feature_stamp, "product": product.key, "version": VERSION})


def product_stamps(store: GroupStore, products: Sequence[Product]) -> dict[str, str]:
    """Product key -> stamp it must have, given the features in `store`."""
    mark = store.attributes["stamp"]
    return {product.key: product_stamp(mark, product) for product in products}


def finished_stamps(run: Run, name: str, products: Sequence[Product]) -> dict[str, str]:
    """Return `product_stamps` of a checkpoint whose heat maps are all there.

    Raises
    ------
    MissingProductError
        If some are missing, or were made of other features.
    """
    features, ledger = run.features(name), run.ledger("cams", name)
    stamps, blocks = product_stamps(features, products), features.blocks
    missing = sum(not (ledger.is_done(block, stamps) and run.cams(name).holds(stamps, block)) for block in blocks)
    if missing:
        where = f"{run.cams_path}/{name}: {missing} of {len(blocks)} blocks"
        raise MissingProductError(f"{where} lack heat maps that the settings ask for; run `atlas cam` first")
    return stamps


def _bring_up_to_date(run: Run, name: str, products: Sequence[Product], class_names: Sequence[str]) -> int:
    """Return the number of products that had to be computed, in full or in part."""
    features, cams, ledger = run.features(name), run.cams(name), run.ledger("cams", name)
    stamps, blocks = product_stamps(features, products), features.blocks
    _lay_out(features, cams, ledger, products, stamps)
    pending = [
        (block, [p for p in products if not (ledger.is_done(block, {p.key: stamps[p.key]}) and cams.holds([p.key], block))]) for block in blocks
    ]
    pending = [(block, missing) for block, missing in pending if missing]
    if not pending:
        return 0
    samples = _samples(features, class_names)
    heads = part_heads(features.read([f"{HEAD_PREFIX}{key}" for key in ("w1", "b1", "bn_weight", "bn_bias", "bn_mean", "bn_var", "w2", "b2")]))
    targets = TargetContext(heads, class_names)
    if any(product.target in NEEDS_REFERENCE for _, missing in pending for product in missing):
        reference = _reference(features, blocks, samples.groups)
        targets = replace(targets, reference=reference, rivals=rival_embeddings(reference, samples.groups.family))
    context = CamContext(targets, features.attributes["architecture"]["sampling"])

    def work(item: tuple[Block, list[Product]]) -> None:
        block, missing = item
        maps = compute_cams(samples.attach(read_features(features, needed_features(missing), block.rows), block), missing, context)
        arrays = {str(key): maps[key].values for key in maps}
        for key, values in arrays.items():
            cams.write(key, values, block.rows)
        cams.flush(arrays, block)
        ledger.mark(block, arrays, {key: stamps[key] for key in arrays})

    for _ in run_blocks(run.settings.compute.executor, run.settings.compute.workers, work, pending):
        pass
    return len({product for _, missing in pending for product in missing})


def _lay_out(features: GroupStore, cams: GroupStore, ledger: Ledger, products: Sequence[Product], stamps: Mapping[str, str]) -> None:
    """Make the arrays that are not there, or that were made of other features."""
    attributes = features.attributes
    layout = {key: attributes[key] for key in ("samples", "block_samples")}
    if not cams.exists or any(cams.attributes.get(key) != value for key, value in layout.items()):
        ledger.clear()  # first: a record must never outlive its data
        cams.create(layout["samples"], layout["block_samples"], {"epoch": attributes["epoch"], "features_stamp": attributes["stamp"]})
    grid = attributes["architecture"]["image_size"] // attributes["architecture"]["patch_size"]
    sizes = {"sample": attributes["samples"], "y": grid, "x": grid}
    for product in products:
        if cams.array_attributes(product.key).get("stamp") != stamps[product.key]:
            method = METHODS[product.method]
            frame = "aligned" if product.position in ON_ALIGNED_GRID else "patch"
            variable = Variable(
                product.key, ("sample", "y", "x"), "float32", f"{product.method} at {product.position}, target {product.target}", frame=frame
            )
            ledger.forget(features.blocks, product.key)
            described = {"stamp": stamps[product.key], "kind": method.kind, "additive": product.additive, "source": method.source}
            cams.add_array(product.key, variable, "float32", sizes, attributes=described)


def _check(features: GroupStore, products: Sequence[Product]) -> list[str]:
    """Refuse positions that were not stored and targets that no sample of this checkpoint has; return its class names."""
    stored = features.read(["block"])["block"].values.tolist() if features.has("block") else []
    for product in products:
        number = block_number(product.position)
        if number is not None and number not in stored:
            raise ValueError(
                f"cam.positions: {product.position} is not in {features}, which holds blocks {stored}. "
                f"Add {number} to extract.blocks and extract again"
            )
    class_names: list[str] = features.attributes["class_names"]
    for target in sorted({product.target for product in products}):
        if target == "label" or target.startswith(CLASS_PREFIX):
            if not class_names:
                classes = features.attributes["architecture"]["classes"]
                raise ValueError(
                    f"{features}: target {target!r} needs the names of the {classes} training classes, and neither the checkpoint nor the manifest's "
                    f"training places give them. Index the training split too, or use another target"
                )
            check_target(target, class_names)
        if target == "label" and (label_index(features.read(["place"])["place"].values.tolist(), class_names) == UNDEFINED).all():
            raise ValueError(f"{features}: target 'label': none of the images shows a trained place. Use target 'match_share' or 'predicted'")
        if target in NEEDS_REFERENCE and not (_groups(features).wanted != UNDEFINED).any():
            raise ValueError(
                f"{features}: target {target!r} needs images of the same place in another view, and there are none. Use target 'predicted'"
            )
    return class_names


def _samples(features: GroupStore, class_names: Sequence[str]) -> _Samples:
    places = features.read(["place"])["place"].values.tolist()
    return _Samples(label_index(places, class_names), _groups(features))


def _groups(features: GroupStore) -> ReferenceGroups:
    texts = features.read([*_TEXTS, "valid"])
    return reference_groups(*(texts[name].values.tolist() for name in (*_TEXTS, "valid")))


def _reference(features: GroupStore, blocks: Sequence[Block], groups: ReferenceGroups) -> np.ndarray:
    """Mean unit embedding of each place and view, read block by block."""
    embeddings = ((features.read(["embedding"], block.rows)["embedding"].values[:, :-1], groups.member[block.rows]) for block in blocks)
    return reference_embeddings(embeddings, groups.count)
