"""The name of each checkpoint file in the stores: a checkpoint is identified by its digest, whatever its file is called now."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.checkpoints.files import CheckpointFile, find_checkpoint_files
from pipeline.checkpoints.notes import CheckpointNotes
from pipeline.disk.records import DamagedRecordError
from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import JOINED, known_groups, read_attributes

_LONGEST = 120  # bytes of a name with folders in it
_FEW = 3


@dataclass(frozen=True)
class StoredCheckpoint:
    """What a feature store tells of the file that it was made of.

    Attributes
    ----------
    digest : str
        Empty where the store is damaged: then nobody knows.
    file : str
        Name of the file; empty likewise.
    folder : str
        Empty where an earlier version wrote the store, which did not note it.
    """

    digest: str = ""
    file: str = ""
    folder: str = ""


@dataclass(frozen=True)
class NamedFiles:
    """Checkpoint files by their names in the stores.

    Attributes
    ----------
    files : mapping
        Name -> file, sorted by name. A file that was stored under two names has both.
    left : tuple of str
        Names of stored checkpoints that no configured file is.
    notes : tuple of str
        Files of the same bytes, and files that are known under another name: a line each.
    read : CheckpointNotes, optional
        What was read of the files.
    """

    files: Mapping[str, CheckpointFile]
    left: tuple[str, ...]
    notes: tuple[str, ...]
    read: CheckpointNotes | None = field(default=None, compare=False, repr=False)


def named_files(run: Run) -> NamedFiles:
    """Name the configured files, given what the run has stored; all parts and workers of a stage come to the same names.

    Raises
    ------
    FileNotFoundError
        If there is no pattern, or one matches no file.
    ValueError
        If a file has a name that the stores use themselves.
    """
    read = notes_of(run)
    return replace(name_files(find_checkpoint_files(run.settings.extract.checkpoints, read), stored_checkpoints(run)), read=read)


def notes_of(run: Run) -> CheckpointNotes:
    """What the run has noted of checkpoint files."""
    return CheckpointNotes(run.directory / "ledger" / "checkpoint_files.json")


def stored_checkpoints(run: Run) -> dict[str, StoredCheckpoint]:
    """Name -> file that it was made of, of all checkpoints whose features are stored or begun."""
    return {name: _stored(run.features(name)) for name in known_groups(run.features_path)}


def name_files(files: Sequence[CheckpointFile], stored: Mapping[str, StoredCheckpoint]) -> NamedFiles:
    """Name files: by their digests what is stored, by the place of the file what was trained again, by the path what is new."""
    by_digest: dict[str, list[CheckpointFile]] = defaultdict(list)
    for file in files:
        by_digest[file.digest].append(file)
    named = {name: _likeliest(by_digest[one.digest], name, one) for name, one in stored.items() if one.digest in by_digest}
    unnamed = [same[0] for digest, same in by_digest.items() if digest not in {file.digest for file in named.values()}]
    again = _trained_again(unnamed, {name: one for name, one in stored.items() if name not in named})
    new = [file for file in unnamed if file not in again.values()]
    found = {**named, **again, **_new_names(new, files, {*stored, JOINED})}
    files_by_name = {name: found[name] for name in sorted(found)}
    left = tuple(sorted(set(stored) - set(found)))
    return NamedFiles(files_by_name, left, (*_notes_on_copies(by_digest, files_by_name), *_notes_on_names(by_digest, named)))


def notes_on_left(left: Sequence[str]) -> tuple[str, ...]:
    """Say of stored checkpoints that no configured file is them, and how they leave."""
    if len(left) <= _FEW:
        stays = "is stored, but extract.checkpoints names no file of it; it stays in figures and pictures"
        return tuple(f"{name} {stays}. `atlas forget-checkpoint {name}` takes it out" for name in left)
    stays = "are stored, but extract.checkpoints names no file of them; they stay in figures and pictures"
    return (f"{', '.join(left[:_FEW])} and {len(left) - _FEW} more {stays}. `atlas forget-checkpoint NAME...` takes them out",)


def left_by_place(run: Run) -> tuple[str, ...]:
    """Names of stored checkpoints that no configured file is: told by the files' names and places, and by digests only where these do not tell.

    Files of the same names somewhere else, as on another machine, are taken for the same. Empty where no file is configured, or one is not at hand:
    then nobody knows.
    """
    try:
        files = find_checkpoint_files(run.settings.extract.checkpoints, notes_of(run))
        stored, configured = stored_checkpoints(run), Counter(file.path.name for file in files)
        held, places = Counter(one.file for one in stored.values()), {(file.folder, file.path.name) for file in files}
        gone = {key: one for key, one in stored.items() if held[one.file] > configured[one.file] and (one.folder, one.file) not in places}
        noted = {(one.folder, one.file) for one in stored.values()}
        digests = {file.digest for file in files if (file.folder, file.path.name) not in noted} if gone else set()
    except OSError:
        return ()
    return tuple(name for name, one in gone.items() if one.digest not in digests)


def _stored(store: GroupStore) -> StoredCheckpoint:
    """By the seal's notes, which can be read while the metadata is damaged; else by the metadata."""
    attributes = read_attributes(store.root)
    try:
        notes = store.seal.notes
    except DamagedRecordError:
        notes = {}
    made_with = notes.get("made_with") or attributes.get("made_with", {})
    return StoredCheckpoint(made_with.get("checkpoint", ""), attributes.get("checkpoint_file", ""), attributes.get("checkpoint_folder", ""))


def _likeliest(same: Sequence[CheckpointFile], name: str, one: StoredCheckpoint) -> CheckpointFile:
    """Of files with the same bytes: the one that the store was made of, one that could have got its name, or the first."""
    made_of = [file for file in same if (file.folder, file.path.name) == (one.folder, one.file)]
    alike = [file for file in same if name in _choices(file)]
    return (*made_of, *alike, *same)[0]


def _trained_again(unnamed: Sequence[CheckpointFile], stored: Mapping[str, StoredCheckpoint]) -> dict[str, CheckpointFile]:
    """Files with other bytes in the place of a stored one: they keep its name, so that they are refused, or replace it."""
    found: dict[str, CheckpointFile] = {}
    for name, one in stored.items():
        at_its_place = [file for file in unnamed if _may_be_of(file, name, one) and file not in found.values()]
        if len(at_its_place) == 1:  # of several, where the folder was not noted, none can be told to be it
            found[name] = at_its_place[0]
    return found


def _may_be_of(file: CheckpointFile, name: str, one: StoredCheckpoint) -> bool:
    if one.folder:
        return (file.folder, file.stem) == (one.folder, Path(one.file).stem)
    return (not one.file or file.stem == Path(one.file).stem) and name in (file.stem, *(f"{parent}-{file.stem}" for parent in file.parents[:1]))


def _new_names(new: Sequence[CheckpointFile], files: Sequence[CheckpointFile], taken: set[str]) -> dict[str, CheckpointFile]:
    """The first name of a file's choices that is free, and that no other checkpoint's file could have by the same rule.

    The claims of all files count, named ones too: what was stored in between changes no other file's name.
    """
    claims: dict[tuple[int, str], set[str]] = defaultdict(set)
    for file in files:
        for level, name in enumerate(_choices(file)):
            claims[level, name.casefold()].add(file.digest)
    used = {name.casefold() for name in taken}
    found: dict[str, CheckpointFile] = {}
    for file in new:
        if file.stem.startswith(".") or file.stem.casefold() == JOINED:
            raise ValueError(f"extract.checkpoints: {file.path} would be called {file.stem!r}, which the stores use themselves; rename the file")
        by_path = [name for level, name in enumerate(_choices(file)) if len(claims[level, name.casefold()]) == 1 and _is_fit(name, file)]
        name = next(name for name in (*by_path, *_by_digest(file)) if name.casefold() not in used)
        used.add(name.casefold())
        found[name] = file
    return found


def _choices(file: CheckpointFile) -> list[str]:
    """The stem, then the stem behind more and more of its folders."""
    return ["-".join((*reversed(file.parents[:level]), file.stem)) for level in range(len(file.parents) + 1)]


def _is_fit(name: str, file: CheckpointFile) -> bool:
    """Whether it can be the name of a folder in the stores; a stem is what it is."""
    return name == file.stem or (len(name.encode()) <= _LONGEST and not name.startswith("."))


def _by_digest(file: CheckpointFile) -> tuple[str, str]:
    return f"{file.stem}-{file.digest[:8]}", f"{file.stem}-{file.digest}"


def _notes_on_copies(by_digest: Mapping[str, Sequence[CheckpointFile]], named: Mapping[str, CheckpointFile]) -> Iterator[str]:
    for digest, same in by_digest.items():
        names = [name for name, file in named.items() if file.digest == digest]
        if len(names) > 1:
            yield f"{' and '.join(names)} are stored of the same bytes; each keeps its name. `atlas forget-checkpoint {names[-1]}` takes one out"
        elif len(same) > 1:
            few = ", ".join(str(file.path) for file in same[:_FEW]) + (f" and {len(same) - _FEW} more" if len(same) > _FEW else "")
            yield f"{few} hold the same bytes: extracted once, as {names[0]}"


def _notes_on_names(by_digest: Mapping[str, Sequence[CheckpointFile]], named: Mapping[str, CheckpointFile]) -> Iterator[str]:
    for name, file in named.items():
        if not any(name in (*_choices(other), *_by_digest(other)) for other in by_digest[file.digest]):
            yield f"{file.path} is known as {name}"
