"""The cam stage: features.zarr -> cams.zarr, one array a product, each with its own stamp; no model, no checkpoint file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import xarray as xr
from tqdm import tqdm

from pipeline.array_layout import array_layout
from pipeline.blocks import Block
from pipeline.completeness import block_content, content_stamp, finished_checkpoints, reference_stamp
from pipeline.executors import run_blocks
from pipeline.feature_state import layout_notes
from pipeline.features import read_features
from pipeline.interrupts import check_stop, telling_what_is_left
from pipeline.rates import note_rate
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
    names = finished_checkpoints(run, partial)
    contexts = {name: _check(run.features(name), products) for name in names}  # all, before anything is computed
    computed = fresh = 0
    started = perf_counter()
    with tqdm(total=len(names), unit="checkpoint", disable=not run.progress) as bar, telling_what_is_left(lambda: _left(bar), run.directory):
        for name in names:
            bar.set_description(name)
            with run.locked(f"cams/{name}"):
                done = _bring_up_to_date(run, name, products, contexts[name])
            computed, fresh = computed + done, fresh + len(products) - done
            bar.update()
    note_rate(run.directory, "cam", computed * len(run.manifest), perf_counter() - started)
    left_out = without_closed_form(run.settings.cam)
    notes = (f"left out, since a gradient at a block needs the backbone: {', '.join(left_out)}",) if left_out else ()
    return Outcome("cam", computed, fresh, "maps (checkpoint x position x target x method)", notes)


@dataclass(frozen=True)
class CamState:
    """What a checkpoint's heat maps are to be made of, and which are not.

    Attributes
    ----------
    stamps : mapping
        Product key -> stamp that it must have.
    origins : mapping
        Block -> digest of the features that its maps must be made of; empty where nothing is pending.
    pending : list of (Block, list of Product)
        What no mark proves.
    """

    stamps: Mapping[str, str]
    origins: Mapping[Block, str]
    pending: Sequence[tuple[Block, Sequence[Product]]]


def cam_state(run: Run, name: str, products: Sequence[Product]) -> CamState:
    """Compare a checkpoint's stored heat maps with its features and the settings; nothing is written."""
    features, cams = run.features(name), run.cams(name)
    stamps = product_stamps(features, products)
    held = {product: cams.held_blocks([product.key]) if cams.has(product.key) else set() for product in products}
    if all(len(blocks) == len(features.blocks) for blocks in held.values()) and _are_noted_whole(features, cams, stamps):
        return CamState(stamps, {}, [])
    origins, pending = _origins(features), []
    for block, origin in origins.items():
        made = cams.ledger.record(block)
        arrays = made.get("arrays", {}) if made.get("made_of") == origin else {}
        missing = [p for p in products if block.index not in held[p] or arrays.get(p.key, {}).get("stamp") != stamps[p.key]]
        pending += [(block, missing)] if missing else []
    return CamState(stamps, origins, pending)


def current_maps(features: GroupStore, cams: GroupStore) -> set[str]:
    """Keys of the maps that are noted as complete and were made of these features, texts included."""
    whole = cams.ledger.whole()
    if whole.get("features") != content_stamp(features):
        return set()
    wanted = product_stamps(features, [Product.parse(key) for key in whole["products"]])
    return {key for key, made in whole["products"].items() if made == wanted[key] and cams.has(key)}


def product_stamps(store: GroupStore, products: Sequence[Product]) -> dict[str, str]:
    """Product key -> stamp it must have, given the features in `store`."""
    mark, classes = store.attributes["stamp"], stamp(store.attributes["class_names"])
    common = {"features": mark, "version": VERSION}
    return {product.key: stamp({**common, "product": product.key, **_beyond(store, product, classes)}) for product in products}


def _beyond(store: GroupStore, product: Product, classes: str) -> dict[str, str]:
    """What a map depends on beyond the features of its own block."""
    if product.target in NEEDS_REFERENCE:
        return {"reference": reference_stamp(store)}
    return {"classes": classes} if product.target == "label" or product.target.startswith(CLASS_PREFIX) else {}


def _origins(features: GroupStore) -> dict[Block, str]:
    places = features.read(["place"])["place"].values.tolist()
    return {block: stamp([block_content(features, block), places[block.rows]]) for block in features.blocks}


def finished_stamps(run: Run, name: str, products: Sequence[Product]) -> dict[str, str]:
    """Return `product_stamps` of a checkpoint whose heat maps are all there.

    Raises
    ------
    MissingProductError
        If some are missing, or were made of other features.
    """
    features, cams = run.features(name), run.cams(name)
    stamps = product_stamps(features, products)
    if _are_noted_whole(features, cams, stamps):
        return stamps
    state = cam_state(run, name, products)
    if state.pending:
        where = f"{cams}: {len(state.pending)} of {len(state.origins)} blocks"
        raise MissingProductError(f"{where} lack heat maps that the settings ask for; run `atlas cam` first")
    return stamps


def _are_noted_whole(features: GroupStore, cams: GroupStore, stamps: Mapping[str, str]) -> bool:
    """Whether the note of the whole speaks for all these maps, so that not each mark has to be read."""
    whole = cams.ledger.whole()
    same_features = whole.get("features") == content_stamp(features) and len(cams.ledger.indices()) == len(features.blocks)
    return same_features and stamps.items() <= whole["products"].items()


def _left(bar: tqdm) -> str:
    return f"left: heat maps of {bar.total - bar.n} of {bar.total} checkpoints; finished blocks are kept"


def _bring_up_to_date(run: Run, name: str, products: Sequence[Product], class_names: Sequence[str]) -> int:
    """Return the number of products that had to be computed, in full or in part."""
    features, cams, content = run.features(name), run.cams(name), content_stamp(run.features(name))
    cams.sweep()
    _lay_out(features, cams, products, product_stamps(features, products))
    state = cam_state(run, name, products)
    whole = cams.ledger.whole()
    kept = {key: whole["products"][key] for key in current_maps(features, cams) - {p.key for _, missing in state.pending for p in missing}}
    if state.pending:
        cams.ledger.mark_whole({"features": content, "products": kept})
        _compute(run, features, cams, state, class_names)
    if content_stamp(run.features(name)) != content:
        raise MissingProductError(f"{features}: was written again while its heat maps were computed; run `atlas cam` again")
    cams.ledger.mark_whole({"features": content, "products": {**kept, **state.stamps}})
    return len({product for _, missing in state.pending for product in missing})


def _compute(run: Run, features: GroupStore, cams: GroupStore, state: CamState, class_names: Sequence[str]) -> None:
    samples = _samples(features, class_names)
    heads = part_heads(features.read([f"{HEAD_PREFIX}{key}" for key in ("w1", "b1", "bn_weight", "bn_bias", "bn_mean", "bn_var", "w2", "b2")]))
    targets = TargetContext(heads, class_names)
    if any(product.target in NEEDS_REFERENCE for _, missing in state.pending for product in missing):
        reference = _reference(features, samples.groups)
        targets = replace(targets, reference=reference, rivals=rival_embeddings(reference, samples.groups.family))
    context = CamContext(targets, features.attributes["architecture"]["sampling"])

    def work(item: tuple[Block, Sequence[Product]]) -> None:
        block, missing = item
        maps = compute_cams(samples.attach(read_features(features, needed_features(missing), block.rows), block), missing, context)
        arrays = {str(key): maps[key].values for key in maps}
        cams.write_block(block, arrays, {key: state.stamps[key] for key in arrays}, made_of=state.origins[block])

    for _ in run_blocks(run.settings.compute.executor, run.settings.compute.workers, work, state.pending):
        check_stop()


def _lay_out(features: GroupStore, cams: GroupStore, products: Sequence[Product], stamps: Mapping[str, str]) -> None:
    """Make the arrays that are not there, or that were made of other features; make room where the dataset has grown."""
    attributes = features.attributes
    samples, block_samples = attributes["samples"], layout_notes(features)["block_samples"]
    if not cams.is_laid_out or cams.attributes["block_samples"] != block_samples or cams.attributes["samples"] > samples:
        cams.clear()
        cams.lay_out(samples, block_samples, {"epoch": attributes["epoch"], "checkpoint": attributes["checkpoint_file"]})
    elif cams.attributes["samples"] < samples:
        cams.extend(samples)
    grid = attributes["architecture"]["image_size"] // attributes["architecture"]["patch_size"]
    sizes = {"sample": samples, "y": grid, "x": grid}
    for product in products:
        if cams.array_attributes(product.key).get("stamp") != stamps[product.key]:
            method = METHODS[product.method]
            frame = "aligned" if product.position in ON_ALIGNED_GRID else "patch"
            variable = Variable(
                product.key, ("sample", "y", "x"), "float32", f"{product.method} at {product.position}, target {product.target}", frame=frame
            )
            described = {"stamp": stamps[product.key], "kind": method.kind, "additive": product.additive, "source": method.source}
            cams.add_array(array_layout(variable, "float32", sizes, block_samples, attributes=described))


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


def _reference(features: GroupStore, groups: ReferenceGroups) -> np.ndarray:
    """Mean unit embedding of each place and view, read block by block."""
    embeddings = ((features.read(["embedding"], block.rows)["embedding"].values[:, :-1], groups.member[block.rows]) for block in features.blocks)
    return reference_embeddings(embeddings, groups.count)
