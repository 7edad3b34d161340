"""Whether the features of a checkpoint are complete, according to their marks: what every reader checks first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.disk.places import FEW, each
from pipeline.disk.stamps import stamp
from pipeline.features.overflow import describe_overflow
from pipeline.features.texts import is_of_manifest
from pipeline.run.directory import MissingProductError, Run, StaleStoreError
from pipeline.store.blocks import Block, blocks_of, proves, runs_of
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import checkpoint_order, known_groups
from pipeline.store.replacing import is_swapping


def finished_checkpoints(run: Run, partial: bool = False) -> list[str]:
    """Names of the extracted checkpoints, by series and epoch.

    Raises
    ------
    MissingProductError
        If there are none, or one is unfinished (and `partial` is not set).
    """
    stores, attributes = [run.features(name) for name in known_groups(run.features_path)], {}
    counted = each(run.features_path, lambda store: (1, 1) if is_swapping(store) else missing_blocks(store), stores, at_once=FEW)
    for store, (missing, total) in zip(stores, counted, strict=True):
        if missing and not partial:
            raise MissingProductError(
                f"{store}: unfinished, {missing} of {total} blocks missing; run `atlas extract` again, or pass --partial (partial=True). "
                f"If you no longer want its checkpoint: `atlas forget-checkpoint {store.name}`"
            )
        if not missing:
            attributes[store.name] = store.attributes
    if not attributes:
        raise MissingProductError(f"{run.features_path}: no features; run `atlas extract` first")
    return checkpoint_order(attributes)


def missing_blocks(store: GroupStore) -> tuple[int, int]:
    """Count the blocks that are not proven done, and all; the note of the whole, where there is one, speaks for all."""
    if store.seal.is_open or not store.exists:
        notes = {"samples": 1, "block_samples": 1, **store.seal.notes}
        total = len(blocks_of(notes["samples"], notes["block_samples"]))
        return (max(1, total - len(store.ledger.indices())) if store.exists else total), total
    attributes, blocks = store.attributes, store.blocks
    if not store.seal.exists and attributes.get("schema_version", 1) > 1:  # its seal is lost: `atlas extract` makes it anew
        return 1, len(blocks)
    if store.ledger.whole().get("stamp") == attributes["stamp"] and len(store.ledger.indices()) == len(blocks):
        return 0, len(blocks)
    return len(blocks) - len(_done(store, store.ledger.records(blocks))), len(blocks)


def _done(store: GroupStore, records: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Blocks whose marks prove them, of the images that the store names, and whose files are there."""
    stamps = dict.fromkeys(store.attributes["block_arrays"], store.attributes["stamp"])
    held, images = store.held_blocks(stamps), _images(store)
    marked = zip(store.blocks, records, strict=True)
    return [block for block, record in marked if block.index in held and proves(record, stamps, images=images and images[block.rows])]


def mark_features_whole(store: GroupStore) -> int:
    """Note that all blocks are done, with what a reader would have to look for in every mark; and who made them, as attributes.

    Returns
    -------
    int
        Blocks that lack their mark or a file: where there are any, nothing is noted.
    """
    attributes = store.attributes
    if store.ledger.whole().get("stamp") == attributes["stamp"]:
        return 0
    records = store.ledger.records(store.blocks)
    if missing := len(records) - len(_done(store, records)):
        return missing
    store.update_attributes({"made_by": _writers(records), "finished": max((r["finished"] for r in records if "finished" in r), default="")})
    store.ledger.mark_whole(
        {
            "stamp": attributes["stamp"],
            "content": _content(records),
            "reference": _reference(store, records),
            "bytes": sum(made["bytes"] for record in records for made in record["arrays"].values()),
            "non_finite": describe_overflow(store, records),
            "quarantined": {name: fault for record in records for name, fault in record.get("quarantined", {}).items()},
            "noted": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    return 0


def content_stamp(store: GroupStore) -> str:
    """Digest of the values of all blocks: what was made of equal features need not be made again."""
    return str(store.ledger.whole().get("content") or _content(store.ledger.records(store.blocks)))


def reference_stamp(store: GroupStore) -> str:
    """Digest of what the similarity targets of *every* sample depend on: the embeddings, and which sample shows which place."""
    return str(store.ledger.whole().get("reference") or _reference(store, store.ledger.records(store.blocks)))


def block_content(store: GroupStore, block: Block) -> str:
    """Digest of the values of one block."""
    return block_contents(store, [block])[0]


def block_contents(store: GroupStore, blocks: Sequence[Block]) -> list[str]:
    """Digest of the values of each of some blocks."""
    return [_content([record]) for record in store.ledger.records(blocks)]


def proven_samples(store: GroupStore) -> dict[tuple[str, str], int]:
    """(id, digest) of an image -> its sample, of every photo that a store has proven features of."""
    found: dict[tuple[str, str], int] = {}
    stamps = dict.fromkeys(store.attributes["block_arrays"], store.attributes["stamp"])
    held, names = store.held_blocks(stamps), store.values("sample_id").tolist()
    for block, record in zip(store.blocks, store.ledger.records(store.blocks), strict=True):
        if block.index in held and proves(record, stamps):
            void, images = record.get("quarantined", {}), record.get("images", ())
            samples = enumerate(zip(names[block.rows], images, strict=False), block.start)
            found |= {(name, digest): sample for sample, (name, digest) in samples if digest and name not in void}
    return found


def check_same_images(run: Run, name: str) -> None:
    """Raise a StaleStoreError if a checkpoint's features were made of another list of images than the manifest's."""
    store = run.features(name)
    if is_of_manifest(run, store):
        return
    images = _images(store)
    same = store.attributes["made_with"]["manifest"] == run.manifest_digest if images is None else images == list(run.manifest["digest"])
    if not same:
        raise StaleStoreError(
            f"{store}: made of another list of images than {run.manifest_path} now holds. Run `atlas extract`, or index the former images again"
        )


def images_stamp(run: Run, store: GroupStore) -> str:
    """Digest of the list of images that a store's samples are."""
    if is_of_manifest(run, store):
        return run.images_stamp
    images = _images(store)
    return str(store.attributes["made_with"]["manifest"]) if images is None else stamp(images)


def _images(store: GroupStore) -> list[str] | None:
    """Digest of each sample's image; None for schema version 1, which stored one digest of them all."""
    return store.values("digest").tolist() if store.has("digest") else None


def _content(records: Sequence[Mapping[str, Any]]) -> str:
    return stamp([{name: made["crc32c"] for name, made in sorted(record.get("arrays", {}).items())} for record in records])


def _reference(store: GroupStore, records: Sequence[Mapping[str, Any]]) -> str:
    texts = store.arrays(["place", "view", "split", "roles"])
    checks = [[record["arrays"][name]["crc32c"] for name in ("embedding", "valid")] for record in records if record]
    return stamp([checks, *(values.tolist() for values in texts.values())])


def _writers(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Who made which blocks: one row per process."""
    made: dict[tuple[Any, ...], list[tuple[int, str]]] = {}
    for index, record in enumerate(records):
        who = tuple(record.get(key, "") for key in ("host", "pid", "device"))
        made.setdefault(who, []).append((index, record.get("finished", "")))
    return [
        {
            "host": host,
            "pid": pid,
            "device": device,
            "blocks": ", ".join(f"{first}-{last}" if first != last else f"{first}" for first, last in runs_of([index for index, _ in found])),
            "first_finished": min(time for _, time in found),
            "last_finished": max(time for _, time in found),
        }
        for (host, pid, device), found in made.items()
    ]
