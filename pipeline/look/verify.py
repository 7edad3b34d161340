"""Comparing the stores of a run with their marks and seals: which blocks and files are damaged, missing or foreign; and undoing exactly those."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.disk.places import Place, each, files_below, files_in, name_below, remove_tree, rename
from pipeline.disk.records import PARTIAL, DamagedRecordError, read_record
from pipeline.render.listing import LISTING, listing_seal
from pipeline.render.png_files import is_whole_png
from pipeline.report.stage import page_seal
from pipeline.run.directory import Run
from pipeline.run.manifest import manifest_seal
from pipeline.store.blocks import Block, checksum_of
from pipeline.store.chunk_files import is_intact
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import METADATA, DamagedStoreError, is_whole_root, known_groups, make_root, read_json
from pipeline.store.replacing import is_swapping
from pipeline.store.seals import Fault, Seal
from pipeline.store.tables import dataset_seal
from pipeline.work.executors import run_blocks
from pipeline.work.progress import Progress
from pipeline.work.stops import check_stop
from stages.cam.map_keys import FACTS_PREFIX


@dataclass(frozen=True)
class Verification:
    """What was looked at, and what was wrong with it."""

    checked_blocks: int
    checked_bytes: int
    faults: Sequence[Fault]
    notes: Sequence[str] = ()
    beyond_repair: Sequence[Fault] = ()


@dataclass(frozen=True)
class _Unit:
    """One array of one block, to be read."""

    store: GroupStore
    block: Block
    key: str
    proof: Mapping[str, int]

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return self.proof["bytes"]

    @property
    def is_marked(self) -> bool:
        """Whether its mark still says the same: while a stage makes a block again, it does not."""
        return bool(self.store.ledger.record_of(self.block.index).get("arrays", {}).get(self.key) == self.proof)


@dataclass
class _Findings:
    """Faults, and what undoes each."""

    faults: list[Fault] = field(default_factory=list)
    blocks: list[tuple[GroupStore, Block, str]] = field(default_factory=list)
    layouts: list[GroupStore] = field(default_factory=list)
    gone: list[GroupStore] = field(default_factory=list)
    seals: list[Seal] = field(default_factory=list)
    files: list[Place] = field(default_factory=list)
    roots: list[Place] = field(default_factory=list)
    strays: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: _Findings) -> None:
        """Take over what another one has."""
        for one in fields(self):
            getattr(self, one.name).extend(getattr(other, one.name))


def verify(run: Run, *, sample: float = 1.0, repair: bool = False) -> Verification:
    """Re-read a run against its marks.

    Parameters
    ----------
    run : Run
    sample : float
        Share of the blocks to read, 0 to 1, drawn anew at every call; everything that is no block is always read.
    repair : bool
        Take the mark from what is wrong, so that the next call of its stage makes it again. Nothing else is touched.

    Raises
    ------
    LockedError
        If `repair` is set and another process writes one of the products.

    Returns
    -------
    Verification
        Damaged: the bytes do not match their checksum. Missing: marked as done, and not there. Foreign: there, and
        unknown to every mark, or not what was marked.
    """
    stores = [GroupStore(path, name) for path in (run.features_path, run.cams_path, run.figures_path) for name in known_groups(path)]
    if not stores and not run.manifest_path.exists():
        raise FileNotFoundError(f"{run.directory}: there is no run here: no manifest and no store. Check --run")
    found, blocks, size = _Findings(), 0, 0
    with ExitStack() as held:
        others = ("manifest", "stats", "pixels", "mosaics", "report")
        for map_key in (*(f"{store.path.stem}/{store.name}" for store in stores), *others) if repair else ():
            held.enter_context(run.locked(map_key))
        for store in stores:
            if is_swapping(store):
                found.notes.append(f"{store}: it is being replaced; `atlas {_command_of(store)}` finishes that")
                continue
            units = _check_store(run, store, sample, found)
            blocks, size = blocks + len({unit.block for unit in units}), size + sum(unit.size for unit in units)
        _check_files(run, found)
        if repair:
            _repair(run, found)
    faults = [*found.faults, *found.strays]
    return Verification(blocks, size, faults, found.notes, found.strays)


def _check_store(run: Run, store: GroupStore, sample: float, found: _Findings) -> list[_Unit]:
    """Check one group, and return what was read of it; of a group that another process lays out anew meanwhile nothing is said."""
    layout, own = _content_of(store.seal.path), _Findings()
    chosen: list[_Unit] = []
    try:
        units = list(_units(store, own)) if _check_group(store, own) else []
        drawn = {block for block in dict.fromkeys(unit.block for unit in units) if sample >= 1 or random.random() < sample}
        chosen = [unit for unit in units if unit.block in drawn]
        _read_units(run, store, chosen, own)
    except (OSError, ValueError, KeyError):
        if _content_of(store.seal.path) == layout:
            raise
        own.faults.append(Fault(str(store), "missing", "a part of it has just vanished"))
    if own.faults and _content_of(store.seal.path) != layout:
        found.notes.append(f"{store}: its layout has just been changed by another process; verify it again")
        return []
    found.add(own)
    return chosen


def _check_group(store: GroupStore, found: _Findings) -> bool:
    """Check metadata, heads and texts; return whether the blocks can be read."""
    if not store.exists and not (store.seal.exists and _is_open(store)):
        found.faults.append(Fault(str(store), "missing", "its marks exist, but the group does not"))
        found.gone.append(store)
        return False
    try:
        if store.seal.is_open:
            found.notes.append(f"{store}: its layout is unfinished; the stage that writes it will finish it")
            return False
        faults = store.seal.faults()
    except DamagedRecordError as error:
        faults = [Fault(str(store.seal.path), "damaged", str(error))]
    if not store.seal.exists and store.attributes.get("schema_version", 1) == 1:
        found.notes.append(f"{store}: schema version 1: its metadata has no checksums; `atlas {_command_of(store)}` brings it up to date")
    elif not store.seal.exists:
        faults = [Fault(str(store.seal.path), "missing", "the seal of the metadata does not exist")]
    if faults:
        found.faults += faults
        found.layouts.append(store)
    return not faults


def _command_of(store: GroupStore) -> str:
    return {"features": "extract", "cams": "cam", "figures": "stats"}[store.path.stem]


def _is_open(store: GroupStore) -> bool:
    try:
        return store.seal.is_open
    except DamagedRecordError:
        return False


def _units(store: GroupStore, found: _Findings) -> Iterator[_Unit]:
    """Everything that a mark vouches for; and tell of files and marks that do not belong to each other."""
    blocks = {block.index: block for block in store.blocks}
    keys = [key for key in store.all_keys() if store.is_cut_in_blocks(key)]
    stamps = {key: attributes.get("stamp") for key, attributes in store.attributes_by_array(keys).items()}
    records = dict(_records(store, blocks, found))
    held = store.held_by_array(keys)  # after the marks: a block that was finished in between is not missing
    marked: dict[str, set[int]] = {key: set() for key in keys}
    for index, record in records.items():
        block = Block(index, *record["rows"])
        for key, made in record["arrays"].items():
            if key not in held or stamps.get(key) not in (None, made["stamp"]):
                continue  # an array that was made anew since: its old marks count for nothing
            marked[key].add(index)
            unit = _Unit(store, block, key, made)
            if index in held[key]:
                yield unit
            elif unit.is_marked:
                found.faults.append(Fault(f"{store}/{key}, block {index}", "missing", f"{store.chunk_file(key, index).name} is not there"))
                found.blocks.append((store, block, key))
    marks_are_whole = "block_arrays" in store.attributes  # a block's heat maps are marked one by one: one without a mark was just being written
    for key in keys:
        for index in sorted(held[key] - marked[key]):
            if index not in blocks or (index in records and marks_are_whole):
                found.faults.append(Fault(f"{store}/{key}, block {index}", "foreign", "the file exists, but no mark knows it"))
                found.files.append(store.chunk_file(key, index))
    _tell_leftovers(store, keys, set(blocks) - set(records), found)


def _records(store: GroupStore, blocks: Mapping[int, Block], found: _Findings) -> Iterator[tuple[int, dict[str, Any]]]:
    """Marks that vouch for something: whole blocks, and what the last block was before the dataset grew."""
    indices = store.ledger.indices()
    for index, record in zip(indices, store.ledger.records_or_errors(indices), strict=True):
        if isinstance(record, DamagedRecordError):
            found.faults.append(Fault(f"{store}, block {index}", "damaged", str(record)))
            found.files.append(store.ledger.directory / f"{index:06d}.json")
            continue
        block = blocks.get(index)
        if not record:  # gone since, or of a worker that was too late
            continue
        if block is not None and record["rows"][0] == block.start and record["rows"][1] <= block.stop:
            yield index, record
        else:
            found.notes.append(f"{store}, block {index}: its mark is of rows {record['rows']}, from when the dataset was larger; its stage goes on")


def _tell_leftovers(store: GroupStore, keys: Sequence[str], undone: set[int], found: _Findings) -> None:
    """Unfinished work is no fault; a file that no stage writes is."""
    files = files_below(store.root, "*")
    left = [path for path in files if path.name.endswith(PARTIAL)]
    found.notes += [f"{store}: {len(left)} half-written files of a killed process; its stage removes them"] if left else []
    found.notes += [f"{store}: {len(undone)} of {len(store.blocks)} blocks are not done; its stage computes them"] if undone else []
    is_sealed = store.seal.exists
    known = {store.root / name for name in store.seal.names} | set(left)
    unsealed = [path for path in files if path.name == METADATA and path not in known]
    if unsealed and is_sealed:
        found.notes.append(f"{store}: {len(unsealed)} arrays or groups were just being made; their stage makes them again")
    known |= {file for path in unsealed for file in files_in(path.parent, "*")}
    for path in files:
        in_blocks = path.name.startswith("c.") and name_below(path.parent, store.root) in keys
        if is_sealed and path not in known and not in_blocks:
            found.strays.append(Fault(str(path), "foreign", "no stage wrote this file; look at it, then delete it"))


def _read_units(run: Run, store: GroupStore, units: Sequence[_Unit], found: _Findings) -> None:
    """Read each array of each block, in parallel: its file as it is, and what is not plainly right as the stages read it."""

    def read(unit: _Unit) -> str:
        return text if (text := compare(unit)) and unit.is_marked else ""

    def compare(unit: _Unit) -> str:
        try:
            if is_intact(unit.store.chunk_file(unit.key, unit.block.index).read_bytes(), unit.proof):
                return ""
            values = unit.store.values(unit.key, unit.block.rows)
            if checksum_of(values) != unit.proof["crc32c"]:
                return "are foreign: not the values that were marked as written"
        except (DamagedStoreError, OSError) as error:
            return str(error)
        return ""

    total = sum(unit.size for unit in units)
    with Progress(f"{store.path.stem}/{store.name}", total, "B", shown=run.progress) as progress:
        for unit, text in zip(units, run_blocks(run.settings.compute, read, units), strict=True):
            check_stop()
            progress.add(unit.size)
            if text:
                kind = "foreign" if "are foreign" in text else "damaged"
                found.faults.append(Fault(f"{unit.store}/{unit.key}, block {unit.block.index}", kind, text.split(". Run")[0]))
                found.blocks.append((unit.store, unit.block, unit.key))


def _check_files(run: Run, found: _Findings) -> None:
    """Figures, pictures, page, manifest, and what holds the groups together."""
    for path in (run.features_path, run.cams_path, run.figures_path, run.stats_path, run.pixels_path):
        if (known_groups(path) or (path / "zarr.json").exists()) and not is_whole_root(path):  # an empty folder was just being made
            found.faults.append(Fault(str(path / "zarr.json"), "damaged", "it is not the metadata of a group of checkpoints"))
            found.roots.append(path)
    seals = [dataset_seal(path, name) for path in (run.stats_path, run.pixels_path) for name in known_groups(path)]
    for seal in (*seals, listing_seal(run), page_seal(run), manifest_seal(run.manifest_path)):
        try:
            faults = seal.faults()
        except DamagedRecordError as error:
            faults = [Fault(str(seal.path), "damaged", str(error))]
        if not seal.exists and _is_of_today(run, seal):
            faults = [Fault(str(seal.path), "missing", "the seal is not there")]
        found.faults += faults
        found.seals += [seal] if faults else []
    listed = _listed_pictures(run)
    there = each(run.mosaics_path, lambda path: path.is_file(), listed)
    found.faults += [Fault(str(path), "missing", "this mosaic does not exist") for path, exists in zip(listed, there, strict=True) if not exists]
    pictures = files_below(run.mosaics_path, "*.png")
    records = [path for path in files_below(run.directory / "ledger", "*.json") if not path.name[0].isdigit() and path.name != "layout.json"]
    damage = [*each(run.mosaics_path, _damage_of_picture, pictures), *each(run.directory, _damage_of_record, records)]
    known = {fault.where for fault in found.faults}
    for path, text in zip([*pictures, *records], damage, strict=True):
        if text and str(path) not in known:
            found.faults.append(Fault(str(path), "damaged", text))
            found.files.append(path)


def _damage_of_picture(path: Place) -> str:
    content = _content_of(path)
    return "" if content is None or is_whole_png(content) else "a chunk of this PNG does not match its checksum"


def _damage_of_record(path: Place) -> str:
    try:
        read_record(path)
    except DamagedRecordError as error:
        return str(error)
    return ""


def _content_of(path: Place) -> bytes | None:
    """None of a file that has just vanished."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _is_of_today(run: Run, seal: Seal) -> bool:
    """Whether what has no seal was made by a version that seals; schema version 1 did not."""
    if seal.root.parent in (run.stats_path, run.pixels_path):
        return dict(read_json(seal.root / "zarr.json") or {}).get("attributes", {}).get("schema_version", 1) > 1
    if seal.root == run.directory:
        return run.manifest_path.is_file() and "listing" in run.manifest.attrs
    made = run.mosaics_path / LISTING if seal.root == run.mosaics_path else run.report_path
    return made.is_file() and manifest_seal(run.manifest_path).exists


def _listed_pictures(run: Run) -> list[Place]:
    try:
        return [run.mosaics_path / entry["path"] for entry in json.loads((run.mosaics_path / LISTING).read_bytes())]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # not there, or damaged, which its seal tells


def _repair(run: Run, found: _Findings) -> None:
    """Undo what is wrong, and nothing else; the next call of each stage makes it again."""
    for store, block, key in found.blocks:
        store.ledger.forget(block, None if store.path == run.features_path else [key])  # a network gives all its tensors at once
    for store in found.gone:
        store.clear()
        remove_tree(store.ledger.directory)
    for store in found.layouts:
        store.ledger.forget_whole()
        if store.path != run.features_path:
            _drop_arrays(store)
        elif any(fault.where == str(store.seal.path) for fault in found.faults):
            store.seal.remove()
        else:
            store.seal.open()
    for seal in found.seals:
        seal.remove()
        if seal.root.parent in (run.stats_path, run.pixels_path):
            if seal.root.is_dir():
                seal.open()
            else:
                remove_tree(seal.path.parent)
        elif seal.root == run.mosaics_path:
            (seal.root / LISTING).unlink(missing_ok=True)
        elif seal.root == run.directory and run.manifest_path.is_file():  # without its seal it would be believed; kept, as it is the user's
            rename(run.manifest_path, run.manifest_path.with_suffix(".damaged"))
    for path in found.roots:
        make_root(path)
    for path in found.files:
        path.unlink(missing_ok=True)


def _drop_arrays(store: GroupStore) -> None:
    """Delete the heat maps whose metadata is damaged; all of them where it is the group's."""
    try:
        faults = store.seal.faults()
    except DamagedRecordError:
        faults = []
    if not faults:  # it is the seal itself that is damaged or gone
        store.clear()
        return
    names = {fault.where.removeprefix(f"{store.root}/") for fault in faults}
    if any(name.removeprefix(FACTS_PREFIX).count("/") < 3 for name in names):  # of a group of arrays
        store.clear()
        return
    store.unconsolidate()
    for name in names:
        remove_tree((store.root / name).parent)
        store.seal.drop([name])
