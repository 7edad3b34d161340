"""Taking checkpoints out of a run: features, heat maps, figures, curves, and the pictures that show only them.

The marks of blocks go first, which also makes room on a full disk; of each product its folder in the ledger goes last, and the
features' after all others. Killed at any instant, what is left counts as unfinished, its name is still known, and the next call
goes on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from pipeline.disk.places import Place, files_below, name_below, remove_tree
from pipeline.disk.records import DamagedRecordError
from pipeline.render.listing import LISTING, listing_seal
from pipeline.render.png_files import png_settings
from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import JOINED, METADATA, bytes_on_disk, read_json
from pipeline.store.replacing import finish_swap, replacement_of
from pipeline.store.seals import Seal
from pipeline.store.tables import dataset_seal
from stages.naming import known


@dataclass(frozen=True)
class Forgotten:
    """What was taken out of a run."""

    names: tuple[str, ...]
    bytes: int
    pictures: int


def forget_checkpoints(run: Run, names: Sequence[str]) -> Forgotten:
    """Take checkpoints out of a run; `stats`, `render` and `report` bring the rest up to date.

    Raises
    ------
    ValueError
        If the run has no checkpoint of that name; the message names the nearest.
    LockedError
        If another process writes a product of one of them, figures or pictures.
    OSError
        If files cannot be deleted.
    """
    there = _names(run)
    if not there:
        raise FileNotFoundError(f"{run.directory}: holds no checkpoints. Check --run")
    chosen = tuple(dict.fromkeys(known(name, there, f"{run.directory}: checkpoint") for name in names))
    with ExitStack() as held:
        for product in ("stats", "pixels", "mosaics", *(f"{stage}/{name}" for stage in ("cams", "features") for name in chosen)):
            held.enter_context(run.locked(product))
        for name in chosen:
            for store in (run.cams(name), run.features(name)):
                finish_swap(store)
        stores = [store for name in chosen for store in _stores(run, name)]
        for store in stores:
            store.ledger.clear()
        pictures = _forget_pictures(run, chosen)
        seals = [*_seals_of_figures(run, chosen), *(dataset_seal(run.pixels_path, name) for name in chosen), *(store.seal for store in stores)]
        return Forgotten(chosen, sum(_delete(seal) for seal in seals), pictures)


def _stores(run: Run, name: str) -> list[GroupStore]:
    cams, features = run.cams(name), run.features(name)
    return [run.figures(name), replacement_of(cams), cams, replacement_of(features), features]


def _names(run: Run) -> set[str]:
    """Of everything that is there of any checkpoint, if only an empty folder in the ledger."""
    stores = (run.features_path, run.cams_path, run.figures_path, run.stats_path, run.pixels_path)
    folders = (folder for path in stores for folder in (path, run.directory / "ledger" / path.stem) if folder.is_dir())
    found = {entry.name for folder in folders for entry in folder.iterdir() if entry.is_dir()}
    return {name for name in found if not name.startswith(".")} - {JOINED}


def _forget_pictures(run: Run, names: Sequence[str]) -> int:
    """Take the pictures that show these checkpoints alone out of the list, and then delete them."""
    index, seal = run.mosaics_path / LISTING, listing_seal(run)
    entries: list[dict[str, Any]] = read_json(index) if seal.holds(LISTING) else []
    shown = {run.mosaics_path / entry["path"]: entry["checkpoints"] for entry in entries}
    pictures = [path for path in files_below(run.mosaics_path, "*.png") if set(shown.get(path) or _shown(path)) <= set(names)]
    gone = {name_below(path, run.mosaics_path) for path in pictures}
    kept = [entry for entry in entries if entry["path"] not in gone]
    if len(kept) < len(entries):
        seal.replace(LISTING, json.dumps(kept, indent=1).encode())
    for path in pictures:
        path.unlink()
    for folder in {path.parent for path in pictures} - {run.mosaics_path}:
        if not any(folder.iterdir()):
            remove_tree(folder)
    return len(pictures)


def _shown(path: Place) -> list[str]:
    """Checkpoints of a picture that is not listed, as its own text says; a name that no checkpoint has where it is damaged."""
    return png_settings(path).get("checkpoints", "").split(", ")


def _seals_of_figures(run: Run, names: Sequence[str]) -> list[Seal]:
    """Of the figures that join them with others first: while their own are there, it is known that those have to go."""
    seals = [seal for name in names if (seal := dataset_seal(run.stats_path, name)).root.is_dir() or seal.path.parent.is_dir()]
    return [dataset_seal(run.stats_path, JOINED), *seals] if seals else []


def _delete(seal: Seal) -> int:
    """Delete a group whose marks are gone: open its seal, so that it counts as unfinished; then its files; its proof last. Return its bytes."""
    root, ledger = seal.root, seal.path.parent
    if not root.is_dir() and not ledger.is_dir():
        return 0
    _open(seal)
    size = bytes_on_disk(root)
    entries: list[Place] = list(root.iterdir()) if root.is_dir() else []
    for entry in entries:
        if entry.name != METADATA:  # while that is there, the group is
            _delete_entry(entry)
    remove_tree(root)
    if root.is_dir():
        raise OSError(f"{root}: some of its files cannot be deleted. Look at their permissions, and call again")
    remove_tree(ledger)
    return size


def _open(seal: Seal) -> None:
    try:
        seal.open()
    except DamagedRecordError:
        seal.remove()
        seal.open()


def _delete_entry(entry: Place) -> None:
    if entry.is_dir():
        remove_tree(entry)
    else:
        entry.unlink()
