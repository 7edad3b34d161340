"""Which of a checkpoint's stored heat maps were made from today's features and settings, and which were not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from pipeline.cam.blocks import Origin, map_blocks, origins
from pipeline.disk.stamps import stamp
from pipeline.features.finished import content_stamp, reference_stamp
from pipeline.run.directory import MissingProductError, Run
from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from pipeline.store.replacing import is_swapping
from safenet.architecture import Architecture
from stages.cam.map_keys import MapKey
from stages.cam.names import POSITION_NAMES
from stages.targets.names import NO_TARGET, parse_target

VERSION = 6
_EIGENVECTORS = frozenset({"eigen_cam", "eigen_grad_cam"})
_WITHOUT_PRODUCT = _EIGENVECTORS | {"l2_norm", "l2_norm_source", "max"}  # methods that multiply no matrix of cells by columns


@dataclass(frozen=True)
class CamState:
    """What a checkpoint's heat maps are to be made of, and which are not.

    Attributes
    ----------
    stamps : mapping
        Map key -> stamp that it must have.
    origins : mapping
        Block -> what its maps must be made of; empty where nothing is pending.
    pending : list of (Block, list of MapKey)
        What no mark proves.
    """

    stamps: Mapping[str, str]
    origins: Mapping[Block, Origin]
    pending: Sequence[tuple[Block, Sequence[MapKey]]]


def cam_state(run: Run, name: str, map_keys: Sequence[MapKey]) -> CamState:
    """Compare a checkpoint's stored heat maps with its features and the settings; nothing is written."""
    features, cams = run.features(name), run.cams(name)
    stamps = map_stamps(features, map_keys)
    blocks, held = map_blocks(run, features, cams), held_maps(cams, map_keys)
    if all(len(numbers) == len(blocks) for numbers in held.values()) and are_noted_whole(features, cams, stamps):
        return CamState(stamps, {}, [])
    made_of, pending = origins(features, blocks), []
    for (block, origin), made in zip(made_of.items(), cams.ledger.records(blocks), strict=True):
        arrays = made.get("arrays", {}) if made.get("made_of") == origin else {}
        missing = [p for p in map_keys if block.index not in held[p] or not _is_marked(arrays, p, stamps[p.key])]
        pending += [(block, missing)] if missing else []
    return CamState(stamps, made_of, pending)


def held_maps(cams: GroupStore, map_keys: Sequence[MapKey]) -> dict[MapKey, set[int]]:
    """Numbers of the blocks whose files are there, of both arrays of a map; none where an array is not."""
    complete = [MapKey.parse(key) for key in cams.ledger.whole().get("products", {})]
    noted = {key for p in complete for key in (p.key, p.facts_key)}
    held = cams.held_by_array(cams.present(key for p in map_keys for key in (p.key, p.facts_key)), noted)
    return {p: held.get(p.key, set()) & held.get(p.facts_key, set()) for p in map_keys}


def complete_maps(features: GroupStore, cams: GroupStore) -> dict[str, str]:
    """Key -> stamp of the `current_maps` whose files are all there: what a new note of the whole goes on to name."""
    noted, count = cams.ledger.whole().get("products", {}), len(cams.blocks)
    held = held_maps(cams, [MapKey.parse(key) for key in sorted(current_maps(features, cams))])
    return {map_key.key: noted[map_key.key] for map_key, numbers in held.items() if len(numbers) == count}


def _is_marked(arrays: Mapping[str, Mapping[str, Any]], map_key: MapKey, mark: str) -> bool:
    """Whether maps and facts are both proven."""
    return all(arrays.get(key, {}).get("stamp") == mark for key in (map_key.key, map_key.facts_key))


def refuse_swapping(cams: GroupStore) -> None:
    """Raise a MissingProductError while maps are put in the place of those of an earlier layout, or where the process that did was killed."""
    if is_swapping(cams):
        raise MissingProductError(
            f"{cams}: its heat maps are being put into blocks of another length, or were when a process was killed; run `atlas cam`"
        )


def current_maps(features: GroupStore, cams: GroupStore) -> set[str]:
    """Keys of the maps that are noted as complete and were made of these features, texts included."""
    whole = cams.ledger.whole()
    if whole.get("features") != content_stamp(features):
        return set()
    left, beyond = [MapKey.parse(key) for key in cams.present(whole["products"])], _Beyond(features)
    found: set[str] = set()
    for version in range(VERSION, 0, -1):  # what an earlier version made can still be read
        found |= {key for key, mark in _stamps(beyond, left, version).items() if whole["products"][key] == mark}
        left = [map_key for map_key in left if map_key.key not in found]
    return found


def map_stamps(store: GroupStore, map_keys: Sequence[MapKey], version: int = VERSION) -> dict[str, str]:
    """Map key -> stamp it must have, given the features in `store`."""
    return _stamps(_Beyond(store), map_keys, version)


def _stamps(beyond: _Beyond, map_keys: Sequence[MapKey], version: int) -> dict[str, str]:
    store, mark = beyond.store, beyond.store.attributes["stamp"]
    network = Architecture(**store.attributes["architecture"])
    made = {map_key: version_of(map_key, network, version) for map_key in map_keys}
    return {p.key: stamp({"features": mark, "version": made[p], "product": p.key, **beyond.of(p)}) for p in map_keys}


def version_of(map_key: MapKey, network: Architecture, version: int = VERSION) -> int:
    """Return the version of a map as `version` of the stage makes it: the last one that changed it."""
    return next(number for number in range(version, 0, -1) if _CHANGED.get(number, _everything)(map_key, network))


def _everything(map_key: MapKey, network: Architecture) -> bool:
    return True


def _resampled_or_without_closed_form(map_key: MapKey, network: Architecture) -> bool:
    has_gradient = map_key.target != NO_TARGET and not map_key.is_stored_gradient
    is_resampled = map_key.method == "l2_norm_source" or (map_key.position == "patch" and has_gradient)
    return (is_resampled and network.sampling == "bilinear") or (has_gradient and not network.is_linear)


def _eigenvectors(map_key: MapKey, network: Architecture) -> bool:
    return map_key.method in _EIGENVECTORS


def _matrix_products(map_key: MapKey, network: Architecture) -> bool:
    return map_key.position in POSITION_NAMES and map_key.method not in _WITHOUT_PRODUCT


# Which maps a version changed, in their last digits each time. Version 3 made all maps anew.
_CHANGED: Mapping[int, Callable[[MapKey, Architecture], bool]] = MappingProxyType(
    {4: _resampled_or_without_closed_form, 5: _eigenvectors, 6: _matrix_products}
)


@dataclass(frozen=True)
class _Beyond:
    """What maps depend on beyond the features of their own block; read once for all of them."""

    store: GroupStore

    def of(self, map_key: MapKey) -> dict[str, str]:
        """For a stamp."""
        if map_key.target == NO_TARGET:
            return {}
        target = parse_target(map_key.target)
        if target.row.kind == "similarity":
            flipped = {"flipped": self._content} if target.flip else {}
            return {"reference": self._reference, **flipped}
        return {"classes": self._classes} if target.base in ("label", "class_") else {}

    @cached_property
    def _classes(self) -> str:
        return stamp(self.store.attributes["class_names"])

    @cached_property
    def _content(self) -> str:
        return content_stamp(self.store)

    @cached_property
    def _reference(self) -> str:
        return reference_stamp(self.store)


def finished_stamps(run: Run, name: str, map_keys: Sequence[MapKey]) -> dict[str, str]:
    """Return `map_stamps` of a checkpoint whose heat maps are all there.

    Raises
    ------
    MissingProductError
        If some are missing, or were made of other features.
    """
    features, cams = run.features(name), run.cams(name)
    refuse_swapping(cams)
    stamps = map_stamps(features, map_keys)
    if are_noted_whole(features, cams, stamps):
        return stamps
    state = cam_state(run, name, map_keys)
    if state.pending:
        where = f"{cams}: {len(state.pending)} of {len(state.origins)} blocks"
        raise MissingProductError(f"{where} lack heat maps that the settings ask for; run `atlas cam` first")
    return stamps


def are_noted(features: GroupStore, cams: GroupStore, stamps: Mapping[str, str]) -> bool:
    """Whether the note of the whole names all these maps, of the features as they are; the files may be gone since."""
    whole = cams.ledger.whole()
    return whole.get("features") == content_stamp(features) and stamps.items() <= whole["products"].items()


def are_noted_whole(features: GroupStore, cams: GroupStore, stamps: Mapping[str, str]) -> bool:
    """Whether the note of the whole speaks for all these maps, so that not each mark has to be read."""
    return are_noted(features, cams, stamps) and len(cams.ledger.indices()) == len(cams.blocks)
