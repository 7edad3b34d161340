"""Which figures of images are stored, and which are not: every array of every block is compared with the bytes that it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from pipeline.disk.places import FEW, each
from pipeline.disk.stamps import difference, stamp
from pipeline.features.finished import reference_stamp
from pipeline.run.directory import Run
from pipeline.stats.blocks import Sources
from pipeline.stats.staleness import FigureInputs, all_inputs, is_fresh, joined_stamp, stale_ones
from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import JOINED
from pipeline.store.layout import ArrayLayout, array_layout
from pipeline.store.tables import group_attributes
from stages.cam.map_keys import MapKey
from stages.schema import MASKS, Variable
from stages.stats.agreement import by_position, pairs_of
from stages.stats.compared import COMPARED
from stages.stats.figures import DRIFT_FIGURES, IMAGE_FIGURES, MAP_FIGURES, columns_of, wanted_figures
from stages.stats.heats import exact_beside
from stages.stats.images import AGREEMENT, IMAGES, MAPS, keys_of, sizes_of
from stages.stats.modules import MODULE_FEATURES
from stages.stats.retrieval import QUERY_FIGURES

RETRIEVAL = "retrieval"  # key of the array with the figures of each query
FIGURES_VERSION = 2
_CHUNK_SAMPLES = 256  # a file is no longer than its images need, up to the last chunk


class Named(Protocol):
    """A checkpoint, its maps, and those that it is compared with: see FigureInputs."""

    @property
    def name(self) -> str:
        """Of the checkpoint."""

    @property
    def map_keys(self) -> Sequence[MapKey]:
        """Its maps."""

    @property
    def others(self) -> Mapping[str, str]:
        """Key of COMPARED -> name of a checkpoint."""


Pending = list[tuple[Block, frozenset[str]]]


def sources_of(run: Run, one: Named) -> Sources:
    """The stores that the figures of a checkpoint's images are made of."""
    return Sources(run.features(one.name), run.cams(one.name), one.map_keys, {kind: run.cams(name) for kind, name in one.others.items()})


def whole_stamp(run: Run, one: FigureInputs) -> str:
    """Digest of what all figures of a checkpoint's images are made of."""
    settings = run.settings.stats.model_dump(mode="json", exclude={"sanity_samples", "drift"})  # `compared` says which drift
    own = {key: one.made_with[key] for key in ("heat_maps", "features", "variants", "figures")}
    return stamp([own, one.compared, settings, FIGURES_VERSION])


def pending_figures(run: Run, one: FigureInputs) -> Pending:
    """Blocks, and keys of the arrays that no mark proves; of retrieval nothing is said."""
    figures, keys = run.figures(one.name), keys_of(one.map_keys, one.others)
    blocks = run.cams(one.name).blocks
    if not figures.is_laid_out or figures.blocks != blocks:
        return [(block, frozenset(keys)) for block in blocks]
    is_noted = figures.ledger.whole().get("stamp") == whole_stamp(run, one)
    held = figures.held_by_array(figures.present(keys), noted=keys if is_noted else ())
    all_held = all(len(held.get(key, ())) == len(blocks) for key in keys)
    if all_held and is_noted and len(figures.ledger.indices()) == len(blocks):
        return []
    stamps = figure_stamps(run, one, blocks)
    pending: Pending = []
    for block, record in zip(blocks, figures.ledger.records(blocks), strict=True):
        made = record.get("arrays", {})
        missing = [key for key in keys if block.index not in held.get(key, ()) or made.get(key, {}).get("stamp") != stamps[block][key]]
        pending += [(block, frozenset(missing))] if missing else []
    return pending


def figure_stamps(run: Run, one: FigureInputs, blocks: Sequence[Block]) -> dict[Block, dict[str, str]]:
    """Block -> key of an array -> digest of the checksums of what its figures are made of, and of the settings that they depend on."""
    sources, settings = sources_of(run, one), run.settings.stats
    stores = {"features": _Checks(sources.features), MAPS: _Checks(sources.cams)}
    stores |= {kind: _Checks(store) for kind, store in sources.others.items()}
    columns, exact = _columns(run, one), exact_beside(one.map_keys, sources.network)
    frame = ["theta", "source_cell", *MASKS] if sources.has_masks else []
    of_maps = [settings.low_contrast_below, settings.top_share]

    def ingredients(block: Block) -> dict[str, object]:
        near = {name: checks.near(block) for name, checks in stores.items()}
        photo, maps = _checks(near["features"], frame), near[MAPS]
        found: dict[str, object] = {IMAGES: _checks(near["features"], MODULE_FEATURES)}
        for key in one.map_keys:
            beside = [other.key] if (other := exact[key]) else []
            found[f"{MAPS}/{key.key}"] = [key.key, _checks(maps, [key.key, key.facts_key, *beside]), photo, of_maps]
            for kind in sources.others:
                found[f"{kind}/{key.key}"] = [_checks(maps, [key.key]), _checks(near[kind], [key.key]), settings.overlap_share]
        for position, keys in by_position(one.map_keys).items():
            found[f"{AGREEMENT}/{position}"] = _checks(maps, [key.key for key in keys])
        return found

    return {block: {key: stamp([FIGURES_VERSION, columns[key], made_of]) for key, made_of in ingredients(block).items()} for block in blocks}


class _Checks:
    """The marks of a store's blocks, which hold the checksums of its arrays."""

    def __init__(self, store: GroupStore) -> None:
        self._size = store.attributes["block_samples"]
        self._marks = store.ledger.records(store.blocks)

    def near(self, block: Block) -> list[Mapping[str, Mapping[str, int]]]:
        """Of the arrays of every block that shares images with one."""
        return [mark.get("arrays", {}) for mark in self._marks[block.start // self._size : -(-block.stop // self._size)]]


def _checks(marks: Sequence[Mapping[str, Mapping[str, int]]], keys: Iterable[str]) -> list[list[int | None]]:
    return [[made.get(key, {}).get("crc32c") for made in marks] for key in keys]


def retrieval_stamp(run: Run, one: FigureInputs) -> str:
    """Digest of what the figures of queries are made of: they depend on every image."""
    flip = run.features(one.name).has("flip_embedding")
    content = one.made_with["features"] if flip else reference_stamp(run.features(one.name))
    return stamp([content, (one.groups.index >= 0).tolist(), FIGURES_VERSION])


def lacks_retrieval(run: Run, one: FigureInputs) -> bool:
    """Whether the figures of queries are not stored, in some block."""
    figures = run.figures(one.name)
    if not figures.is_laid_out or len(figures.held_blocks([RETRIEVAL])) < len(figures.blocks):
        return True
    if figures.ledger.whole().get("stamp") == whole_stamp(run, one):
        return False
    mark = retrieval_stamp(run, one)
    return any(record.get("arrays", {}).get(RETRIEVAL, {}).get("stamp") != mark for record in figures.ledger.records(figures.blocks))


def lay_out_figures(run: Run, one: FigureInputs) -> None:
    """Make the arrays that are not there, or that hold other columns; make room where the dataset has grown."""
    figures, told = run.figures(one.name), run.cams(one.name).attributes
    samples, block_samples = told["samples"], told["block_samples"]
    if not figures.is_laid_out or figures.attributes["block_samples"] != block_samples or figures.attributes["samples"] > samples:
        figures.clear()
        figures.lay_out(samples, block_samples, {})
    elif figures.attributes["samples"] < samples:
        figures.extend(samples)
    columns = _columns(run, one)
    made = figures.attributes_by_array(columns)
    missing = [key for key, names in columns.items() if made.get(key, {}).get("figures") != names]
    figures.add_arrays([_layout(key, columns[key], samples, block_samples) for key in missing])


def _columns(run: Run, one: FigureInputs) -> dict[str, list[str]]:
    """Key of an array -> names of its columns."""
    sources = sources_of(run, one)
    table, sizes = wanted_figures(MAP_FIGURES, masks=sources.has_masks), sizes_of(sources.network)
    of_map, of_drift = columns_of(table, sizes), columns_of(DRIFT_FIGURES, sizes)
    kinds = {MAPS: of_map, **dict.fromkeys(one.others, of_drift)}
    pairs = {}
    for position, keys in by_position(one.map_keys).items():
        pairs[f"{AGREEMENT}/{position}"] = [f"{keys[i].key} {keys[j].key}" for i, j in zip(*pairs_of(len(keys)), strict=True)]
    of_maps = {f"{kind}/{key.key}": columns for kind, columns in kinds.items() for key in one.map_keys}
    return {IMAGES: columns_of(IMAGE_FIGURES, sizes), **of_maps, **pairs, RETRIEVAL: list(QUERY_FIGURES)}


def _layout(key: str, columns: Sequence[str], samples: int, block_samples: int) -> ArrayLayout:
    dim = f"figure_of_{key.split('/')[0]}" if not key.startswith(AGREEMENT) else f"pair_at_{key.split('/')[1]}"
    variable = Variable(key, ("sample", dim), "float32", f"figures of every image: {key}", nan_means_none=True)
    sizes, attributes = {"sample": samples, dim: len(columns)}, {"figures": list(columns)}
    return array_layout(variable, "float32", sizes, block_samples, _CHUNK_SAMPLES, attributes=attributes)


def stale_figures(run: Run, names: Sequence[str]) -> dict[str, str]:
    """Name of a checkpoint (or JOINED) whose figures are missing or stale -> why."""
    inputs = all_inputs(run, names)
    stale = {one.name for one in stale_ones(run, inputs)}
    pending = dict(zip((one.name for one in inputs), each(run.figures_path, lambda one: pending_figures(run, one), inputs, at_once=FEW), strict=True))
    reasons = each(run.figures_path, lambda one: _why_stale(run, one, pending[one.name], is_stale=one.name in stale), inputs, at_once=FEW)
    found = {one.name: why for one, why in zip(inputs, reasons, strict=True) if why}
    if not is_fresh(run, JOINED, joined_stamp(inputs)):
        found[JOINED] = "a checkpoint's figures change" if found else _why_joined_again(run)
    elif any(pending.values()):
        found.setdefault(JOINED, "a checkpoint's figures change" if found else "the drift of images between checkpoints is missing")
    return found


def _why_joined_again(run: Run) -> str:
    made = group_attributes(run.stats_path, JOINED).get("drift")
    if made is not None and made != list(run.settings.stats.drift):
        return f"made with stats.drift = {made}"
    return "the checkpoints changed, or its files are damaged"


def own_pending(pending: Pending) -> Pending:
    """Leave out the drift between checkpoints: it changes with their order, and with every new one, and a checkpoint's own figures do not."""
    return [(block, keys) for block, keys in pending if any(key.split("/")[0] not in COMPARED for key in keys)]


def _why_stale(run: Run, one: FigureInputs, pending: Pending, *, is_stale: bool) -> str:
    if is_stale:
        made = group_attributes(run.stats_path, one.name)
        return difference(made.get("made_with", {}), one.made_with) or "its files are damaged" if made else "not computed yet"
    if own := own_pending(pending):
        return f"figures of images are missing in {len(own)} blocks"
    return "figures of queries are missing" if lacks_retrieval(run, one) else ""
