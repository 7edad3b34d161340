"""Replacing a checkpoint's features: the new ones are made beside the old ones and take their place when they are complete."""

from __future__ import annotations

from pipeline.disk.places import Place, put_in_place, remove_tree
from pipeline.disk.records import read_record, write_record
from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore


def replacement_of(run: Run, name: str) -> GroupStore:
    """The store in which the new features are made; no reader sees it, as its name begins with a dot."""
    return run.features(f".{name}.next")


def swap_in(run: Run, name: str) -> None:
    """Put a complete replacement in place of the old features. Killed at any instant, `finish_swap` goes on."""
    for folder in _folders(run, name):
        remove_tree(_old(folder))
    write_record(_journal(run, name), {"swapping": name})
    finish_swap(run, name)


def finish_swap(run: Run, name: str) -> None:
    """Go on with a swap that was begun, if one was, and delete what was replaced."""
    if is_swapping(run, name):
        for folder in _folders(run, name):
            put_in_place(folder.with_name(f".{folder.name}.next"), folder, _old(folder))
        _journal(run, name).unlink()
    for folder in _folders(run, name):
        remove_tree(_old(folder))


def is_swapping(run: Run, name: str) -> bool:
    """Whether a swap was begun and not finished: until then the store and its marks may be of different makings."""
    return bool(read_record(_journal(run, name)))


def _folders(run: Run, name: str) -> tuple[Place, Place]:
    store = run.features(name)
    return store.root, store.ledger.directory


def _old(folder: Place) -> Place:
    return folder.with_name(f".{folder.name}.old")


def _journal(run: Run, name: str) -> Place:
    return run.features(name).ledger.directory.parent / f".{name}.swap.json"
