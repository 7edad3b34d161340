"""The cam stage: features.zarr -> cams.zarr, one array a product, each with its own stamp; no model, no checkpoint file."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from pipeline.cam.references import Compared
from pipeline.cam.target_checks import check_targets
from pipeline.cam.versions import VERSION, version_of
from pipeline.cam.wanted import check_positions, notes_on_left_out, wanted_products
from pipeline.disk.stamps import stamp
from pipeline.features.finished import block_content, content_stamp, finished_checkpoints, reference_stamp
from pipeline.features.reading import read_features
from pipeline.features.state import layout_notes
from pipeline.run.directory import MissingProductError, Outcome, Preparation, Run
from pipeline.run.rates import note_rate
from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from pipeline.store.layout import array_layout
from pipeline.work.executors import run_groups, runs_here
from pipeline.work.log import log
from pipeline.work.pieces import Group
from pipeline.work.progress import Progress
from pipeline.work.stops import check_stop, telling_what_is_left
from safenet.architecture import Architecture
from stages.cam.compute import compute_cams, needed_features
from stages.cam.facts import FACTS, LOW_CONTRAST_BELOW, STATUS
from stages.cam.methods import METHODS
from stages.cam.position_names import ON_ALIGNED_GRID
from stages.cam.products import Product
from stages.schema import Variable
from stages.targets.names import NO_TARGET, parse_target


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
    names = finished_checkpoints(run, partial)
    wanted = {name: _check(run, name) for name in names}  # all, before anything is computed
    share = _share(run, names)
    jobs: dict[str, CamJob] = {}
    started = perf_counter()
    with run.preparing("cams", list(share)) as preparation, telling_what_is_left(lambda: _left(share, jobs), run.directory):
        groups: Iterable[Group] = _groups(run, share, wanted, preparation, jobs)
        if not run.part.is_whole:  # the next part may only look when all of this one's is laid out
            groups = list(groups)
            preparation.let_in()
        with Progress("cam", sum(len(block) for blocks in share.values() for block in blocks), "image", shown=run.progress) as progress:
            for done in run_groups(run.settings.compute, CamWork(run), groups, directory=run.directory, say=run.say):
                check_stop()
                job = jobs[done.group]
                job.waiting -= len(done.item.pieces)
                progress.add(len(done.item), done.worker, done.seconds)
                if not job.waiting:
                    _finish(run, job)
    computed = sum(job.computed for job in jobs.values())
    note_rate(run.directory, "cam", computed * len(run.manifest), perf_counter() - started)
    fresh = sum(len(wanted[name]) for name in share) - computed
    return Outcome("cam", computed, fresh, "maps (checkpoint x position x target x method)", notes_on_left_out(run, names))


def _share(run: Run, names: Sequence[str]) -> dict[str, list[Block]]:
    """Checkpoints and blocks that this process is to see to."""
    units = [(name, block) for name in names for block in run.features(name).blocks]
    mine: dict[str, list[Block]] = {}
    for name, block in run.part.share(units):
        mine.setdefault(name, []).append(block)
    return mine


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
    held = {p: cams.held_blocks([p.key, p.facts_key]) if cams.has(p.key) and cams.has(p.facts_key) else set() for p in products}
    if all(len(blocks) == len(features.blocks) for blocks in held.values()) and _are_noted_whole(features, cams, stamps):
        return CamState(stamps, {}, [])
    origins, pending = _origins(features), []
    for block, origin in origins.items():
        made = cams.ledger.record(block)
        arrays = made.get("arrays", {}) if made.get("made_of") == origin else {}
        missing = [p for p in products if block.index not in held[p] or not _is_marked(arrays, p, stamps[p.key])]
        pending += [(block, missing)] if missing else []
    return CamState(stamps, origins, pending)


def _is_marked(arrays: Mapping[str, Mapping[str, Any]], product: Product, mark: str) -> bool:
    """Whether maps and facts are both proven."""
    return all(arrays.get(key, {}).get("stamp") == mark for key in (product.key, product.facts_key))


def current_maps(features: GroupStore, cams: GroupStore) -> set[str]:
    """Keys of the maps that are noted as complete and were made of these features, texts included."""
    whole = cams.ledger.whole()
    if whole.get("features") != content_stamp(features):
        return set()
    products = [Product.parse(key) for key in whole["products"]]
    known = [product_stamps(features, products, version) for version in range(1, VERSION + 1)]  # what an earlier version made can still be read
    return {key for key, made in whole["products"].items() if any(made == stamps[key] for stamps in known) and cams.has(key)}


def product_stamps(store: GroupStore, products: Sequence[Product], version: int = VERSION) -> dict[str, str]:
    """Product key -> stamp it must have, given the features in `store`."""
    mark, classes = store.attributes["stamp"], stamp(store.attributes["class_names"])
    sampling = store.attributes["architecture"]["sampling"]
    return {
        product.key: stamp(
            {"features": mark, "version": version_of(product, sampling, version), "product": product.key, **_beyond(store, product, classes)}
        )
        for product in products
    }


def _beyond(store: GroupStore, product: Product, classes: str) -> dict[str, str]:
    """What a map depends on beyond the features of its own block."""
    if product.target == NO_TARGET:
        return {}
    target = parse_target(product.target)
    if target.row.kind == "similarity":
        flipped = {"flipped": content_stamp(store)} if target.flip else {}
        return {"reference": reference_stamp(store), **flipped}
    return {"classes": classes} if target.base in ("label", "class_") else {}


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


@dataclass
class CamJob:
    """A checkpoint whose heat maps are being computed, and how many of its blocks no process has come back with."""

    name: str
    products: Sequence[Product]
    content: str
    computed: int
    waiting: int


def _left(share: Mapping[str, Sequence[Block]], jobs: Mapping[str, CamJob]) -> str:
    left = len(share) - sum(not job.waiting for job in jobs.values())
    return f"left: heat maps of {left} of {len(share)} checkpoints; finished blocks are kept"


def _groups(
    run: Run, share: Mapping[str, Sequence[Block]], wanted: Mapping[str, Sequence[Product]], preparation: Preparation, jobs: dict[str, CamJob]
) -> Iterator[Group]:
    """Lay out one checkpoint after the other, when there is a process for it, and cut what it lacks into pieces of work."""
    for name, blocks in share.items():
        job, pending = _prepare(run, name, wanted[name], {block.index for block in blocks}, f"cams/{name}" in preparation.alone)
        jobs[name] = job
        if not pending:
            _finish(run, job)
        size = 1 if runs_here(run.settings.compute) else max(1, run.settings.compute.span_samples // len(blocks[0]))
        yield Group(name, [CamSpan(name, tuple(pending[start : start + size])) for start in range(0, len(pending), size)])


def _prepare(run: Run, name: str, products: Sequence[Product], mine: set[int], alone: bool) -> tuple[CamJob, list[Piece]]:
    """Make room for the maps, and say which this process has to compute."""
    features, cams, content = run.features(name), run.cams(name), content_stamp(run.features(name))
    if alone:
        cams.sweep()
        _lay_out(features, cams, products, product_stamps(features, products))
    state = cam_state(run, name, products)
    if state.pending and alone:
        whole = cams.ledger.whole()
        kept = {key: whole["products"][key] for key in current_maps(features, cams) - {p.key for _, missing in state.pending for p in missing}}
        cams.ledger.mark_whole({"features": content, "products": kept})
        exactness = Compared(features).exactness.as_dict()
        if cams.attributes.get("exactness") != exactness:
            cams.update_attributes({"exactness": exactness})
    pending = [Piece(block, tuple(missing), state.origins[block]) for block, missing in state.pending if block.index in mine]
    computed = len({product for piece in pending for product in piece.products})
    return CamJob(name, products, content, computed, len(pending)), pending


def _finish(run: Run, job: CamJob) -> None:
    """Note that a checkpoint's maps are whole; of parts the one that finds them so."""
    features, cams = run.features(job.name), run.cams(job.name)
    with run.finishing("cams"):
        if content_stamp(features) != job.content:
            raise MissingProductError(f"{features}: was written again while its heat maps were computed; run `atlas cam` again")
        if not run.part.is_whole and cam_state(run, job.name, job.products).pending:
            return
        kept = {key: cams.ledger.whole()["products"][key] for key in current_maps(features, cams)}
        cams.ledger.mark_whole({"features": job.content, "products": {**kept, **product_stamps(features, job.products)}})
        cams.consolidate()


@dataclass(frozen=True)
class Piece:
    """Maps that one block lacks, and the digest of the features that they are made of."""

    block: Block
    products: tuple[Product, ...]
    origin: str


@dataclass(frozen=True)
class CamSpan:
    """Pieces of one checkpoint."""

    name: str
    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        """Images."""
        return sum(len(piece.block) for piece in self.pieces)


@dataclass(frozen=True)
class CamWork:
    """The cam stage's work, as `pipeline.work.executors` takes it."""

    run: Run

    def open(self) -> CamBlocks:
        """Once in each process."""
        return CamBlocks(self.run)


class CamBlocks:
    """Computes and writes the maps of spans; several threads may call it.

    What a checkpoint's blocks share, embeddings of all images among it, is kept for the last two checkpoints: where
    one ends, the next has begun.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._compared: dict[str, Compared] = {}

    def __call__(self, span: CamSpan) -> None:
        """Do what no mark proves yet."""
        features, cams = self._run.features(span.name), self._run.cams(span.name)
        compared = self._open(features, {product for piece in span.pieces for product in piece.products})
        for piece in span.pieces:
            check_stop()
            block, products = piece.block, piece.products
            stamps = {
                key: mark for p, mark in zip(products, product_stamps(features, products).values(), strict=True) for key in (p.key, p.facts_key)
            }
            if cams.ledger.is_done(block, stamps, made_of=piece.origin) and block.index in cams.held_blocks(stamps):
                continue
            read = read_features(features, needed_features(products), block.rows)
            maps = compute_cams(compared.attach(read, block.rows, products), products, compared.context)
            cams.write_block(block, {str(key): maps[key].values for key in maps}, stamps, made_of=piece.origin)
            log(f"{cams.path.name}/{cams.name} {block}: {len(products)} maps written")

    def _open(self, features: GroupStore, products: set[Product]) -> Compared:
        with self._lock:
            if features.name not in self._compared:
                for name in list(self._compared)[:-1]:
                    del self._compared[name]
                self._compared[features.name] = Compared(features)
            self._compared[features.name].prepare(products)
            return self._compared[features.name]


def _lay_out(features: GroupStore, cams: GroupStore, products: Sequence[Product], stamps: Mapping[str, str]) -> None:
    """Make the arrays that are not there, or that were made of other features; make room where the dataset has grown."""
    attributes = features.attributes
    samples, block_samples = attributes["samples"], layout_notes(features)["block_samples"]
    told = {"epoch": attributes["epoch"], "checkpoint": attributes["checkpoint_file"]}
    if not cams.is_laid_out or cams.attributes["block_samples"] != block_samples or cams.attributes["samples"] > samples:
        cams.clear()
        cams.lay_out(samples, block_samples, told)
    elif cams.attributes["samples"] < samples:
        cams.extend(samples)
    if any(cams.attributes.get(key) != value for key, value in told.items()):  # the features' were brought up to date
        cams.update_attributes(told)
    grid = attributes["architecture"]["image_size"] // attributes["architecture"]["patch_size"]
    sizes = {"sample": samples, "y": grid, "x": grid, "fact": len(FACTS)}
    is_linear = Architecture(**attributes["architecture"]).is_linear
    missing = [p for p in products if cams.array_attributes(p.key).get("stamp") != stamps[p.key] or not cams.has(p.facts_key)]
    cams.add_arrays(
        [
            array_layout(variable, "float32", sizes, block_samples, attributes={"stamp": stamps[product.key], **described})
            for product in missing
            for variable, described in _described(product, is_linear)
        ]
    )


def _described(product: Product, is_linear: bool) -> list[tuple[Variable, dict[str, Any]]]:
    """The two arrays of a product, and what their attributes tell."""
    method, frame = METHODS[product.method], "aligned" if product.position in ON_ALIGNED_GRID else "patch"
    what = f"{product.method} at {product.position}, target {product.target}"
    codes = {str(code): row.name for code, row in STATUS.items()}
    facts = {"facts": list(FACTS), "status": codes, "low_contrast_below": LOW_CONTRAST_BELOW}
    return [
        (
            Variable(product.key, ("sample", "y", "x"), "float32", what, frame=frame),
            {"kind": method.kind, "additive": product.additive, "exact": product.exact and is_linear, "source": method.source},
        ),
        (Variable(product.facts_key, ("sample", "fact"), "float32", f"facts of {what}"), facts),
    ]


def _check(run: Run, name: str) -> list[Product]:
    """Refuse positions that were not stored and targets that no sample of this checkpoint has; return what is to be made."""
    check_positions(run, name)
    products = wanted_products(run, name)
    check_targets(run.features(name), sorted({p.target for p in products if p.target != NO_TARGET and not p.is_stored_gradient}))
    return products
