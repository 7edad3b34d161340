"""A run at a glance, from its stores alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pipeline.cam.staleness import current_maps
from pipeline.disk.places import FEW, each
from pipeline.disk.space import human_bytes
from pipeline.features.finished import missing_blocks
from pipeline.features.overflow import overflow_words, overflowing_images, remedy
from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import JOINED, DamagedStoreError, bytes_on_disk, checkpoint_order, known_groups
from pipeline.store.tables import group_attributes

Found = TypeVar("Found")


def run_status(run: Run) -> list[dict[str, str]]:
    """Return one row per checkpoint: the share of each stage that is done, bytes, void images, values that are not finite, age."""
    stores = {name: run.features(name) for name in known_groups(run.features_path)}
    attributes = each(run.features_path, lambda store: _unless_gone(store, _told), stores.values())
    told = {name: found for name, found in zip(stores, attributes, strict=True) if found is not None}
    order = [stores[name] for name in checkpoint_order(told)]
    rows = each(run.features_path, lambda store: _unless_gone(store, lambda store: _row(run, store, told[store.name])), order, at_once=FEW)
    return [row for row in rows if row is not None]


def _unless_gone(store: GroupStore, look: Callable[[GroupStore], Found]) -> Found | None:
    """What a look at a checkpoint finds; None where it was taken out, or is just being replaced."""
    try:
        return look(store)
    except (FileNotFoundError, DamagedStoreError):
        if store.exists:
            raise
        return None


def _told(store: GroupStore) -> Mapping[str, Any]:
    return {} if store.seal.is_open or not store.exists else store.attributes


def run_overflow(run: Run) -> dict[str, list[str]]:
    """Sample id -> where its values are not finite, a text a checkpoint, with the remedy; of checkpoints whose features are noted as whole."""
    found: dict[str, list[str]] = {}
    for store in _overflowing(run):
        for identity, variables in overflowing_images(store).items():
            found.setdefault(identity, []).append(f"not finite in {store.name}: {', '.join(variables)}; {remedy(store, variables)}")
    return found


def overflow_lines(run: Run) -> list[str]:
    """A line a checkpoint with values that are not finite, from its note of the whole alone."""
    return [f"{store.name}: {overflow_words(store)}" for store in _overflowing(run)]


def _overflowing(run: Run) -> list[GroupStore]:
    stores = [run.features(name) for name in known_groups(run.features_path)]
    return [store for store in stores if store.ledger.whole().get("non_finite") and store.exists and not store.seal.is_open]


def _row(run: Run, features: GroupStore, told: Mapping[str, Any]) -> dict[str, str]:
    cams, name = run.cams(features.name), features.name
    missing, total = missing_blocks(features)
    overflow = features.ledger.whole().get("non_finite", {})
    return {
        "checkpoint": name,
        "series": told.get("series") or "-",
        "epoch": "-" if told.get("epoch") is None else str(told["epoch"]),
        "features": f"{total - missing}/{total} blocks",
        "heat maps": _maps(features, cams),
        "figures": "yes" if group_attributes(run.stats_path, name) and name != JOINED else "no",
        "size": human_bytes(sum(map(_size, (features, cams, run.figures(name))))),
        "not finite": f"{overflow.get('count', 0):,}",
        "age": _age(features),
    }


def _maps(features: GroupStore, cams: GroupStore) -> str:
    """How many kinds there are; whether they are of these features is for `atlas plan` to say in full."""
    if not cams.exists or cams.seal.is_open:
        return "0 kinds"
    whole = cams.ledger.whole()
    kinds = len(whole.get("products", ())) if cams.seal.exists else len(cams.all_keys())
    current = current_maps(features, cams) if features.exists and not features.seal.is_open else set()
    return f"{kinds} kinds" + (" (stale)" if whole and len(current) < kinds else "")


def _size(store: GroupStore) -> int:
    """Bytes of a store; where it is whole by its note, as looking at every file takes long."""
    return int(store.ledger.whole().get("bytes") or bytes_on_disk(store.root))


def _age(features: GroupStore) -> str:
    """Time since the last block was written."""
    noted = features.ledger.whole().get("noted")
    last = datetime.fromisoformat(noted).timestamp() if noted else features.ledger.latest()
    return "-" if last is None else _span(datetime.now(UTC).timestamp() - last)


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
