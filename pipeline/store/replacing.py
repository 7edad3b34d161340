"""Replacing a checkpoint's group: the new one is made beside the old one and takes its place when it is complete."""

from __future__ import annotations

from pipeline.disk.places import Place, put_in_place, remove_tree
from pipeline.disk.records import read_record, write_record
from pipeline.store.group_store import GroupStore


def replacement_of(store: GroupStore) -> GroupStore:
    """The group in which the new one is made; no reader sees it, as its name begins with a dot."""
    return GroupStore(store.path, f".{store.name}.next")


def swap_in(store: GroupStore) -> None:
    """Put a complete replacement in place of a group; the group's lock must be held. Killed at any instant, `finish_swap` goes on."""
    for folder in _folders(store):
        remove_tree(_old(folder))
    write_record(_journal(store), {"swapping": store.name})
    finish_swap(store)


def finish_swap(store: GroupStore) -> None:
    """Go on with a swap that was begun, if one was, and delete what was replaced; the group's lock must be held."""
    if is_swapping(store):
        for folder in _folders(store):
            put_in_place(folder.with_name(f".{folder.name}.next"), folder, _old(folder))
        _journal(store).unlink()
    for folder in _folders(store):
        remove_tree(_old(folder))
    store.forget_open()


def is_swapping(store: GroupStore) -> bool:
    """Whether a swap was begun and not finished: until then the group and its marks may be of different makings."""
    return bool(read_record(_journal(store)))


def _folders(store: GroupStore) -> tuple[Place, Place]:
    return store.root, store.ledger.directory


def _old(folder: Place) -> Place:
    return folder.with_name(f".{folder.name}.old")


def _journal(store: GroupStore) -> Place:
    return store.ledger.directory.parent / f".{store.name}.swap.json"
