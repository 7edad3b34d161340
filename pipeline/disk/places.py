"""Where a run lies: in a local folder or at a URL of an object store, and what differs between the two."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from pipeline.disk.objects import SCHEMES, ObjectPath, ObjectStat, remove_objects

Place = Path | ObjectPath
Item = TypeVar("Item")
Result = TypeVar("Result")
FEW = 8
_REQUESTS = 64  # at a time: each waits for the network, some 20 ms


def place_of(where: str | Place) -> Place:
    """Return the place that a text names: a path, file:///path, or s3://bucket/path (gs, az, memory).

    Raises
    ------
    ValueError
        If the URL is of another kind, names no bucket, or holds credentials; the message never repeats those.
    """
    if isinstance(where, ObjectPath):
        return where
    if isinstance(where, Path):
        if re.match(rf"({'|'.join(SCHEMES)}):/", str(where)):
            raise ValueError(f"{where}: a URL that went through Path, which removes a slash; pass it as text")
        return where
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", where):
        return Path(where)
    parts = urlsplit(where)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"--run: a {parts.scheme}:// URL with a user, password, query or fragment, which may be secret. "
            f"Leave it out: credentials come from the environment alone (AWS_*, GOOGLE_*, AZURE_*)"
        )
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"{where}: names the host {parts.netloc}; expected file:///path")
        return Path(unquote(parts.path))
    if parts.scheme not in SCHEMES:
        raise ValueError(
            f"{where}: a URL of kind {parts.scheme!r}; expected a path, or one of {', '.join(f'{name}://' for name in ('file', *SCHEMES))}"
        )
    if not parts.netloc or not parts.path.strip("/"):
        raise ValueError(f"{where}: expected a bucket and a path in it, such as {parts.scheme}://bucket/runs/x")
    return ObjectPath(f"{parts.scheme}://{parts.netloc}", "/".join(part for part in parts.path.split("/") if part))


def each(place: Place, work: Callable[[Item], Result], items: Iterable[Item], *, at_once: int = _REQUESTS) -> list[Result]:
    """Work on small files one after the other; on objects several at a time, as each waits for the network.

    `at_once` is FEW for work that has many requests of its own, such as all of a checkpoint.
    """
    if not isinstance(place, ObjectPath):
        return [work(item) for item in items]
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(work, items))


def remove_files(paths: Iterable[Place]) -> None:
    """Delete files; of an object store many in a request."""
    listed = list(paths)
    remove_objects(path for path in listed if isinstance(path, ObjectPath))
    for path in listed:
        if isinstance(path, Path):
            path.unlink(missing_ok=True)


def remove_tree(folder: Place) -> None:
    """Delete a folder, if it is there."""
    if isinstance(folder, ObjectPath):
        remove_objects(folder.rglob("*"))
    else:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(following: Place, folder: Place, old: Place) -> None:
    """Let `following` take the place of `folder`, which becomes `old`; done again after a kill at any instant, it goes on.

    An object store cannot rename: there `following` is copied, and `old` holds nothing but the note that all is copied. The
    note must be gone before the first call, and stay until the last one is over.
    """
    if isinstance(following, ObjectPath) and isinstance(folder, ObjectPath) and isinstance(old, ObjectPath):
        _copy_in_place(following, folder, old / "copied")
    elif isinstance(following, Path) and isinstance(folder, Path) and following.is_dir():
        if folder.is_dir():
            folder.replace(Path(str(old)))
        following.replace(folder)


def _copy_in_place(following: ObjectPath, folder: ObjectPath, copied: ObjectPath) -> None:
    sources = list(following.rglob("*"))
    if sources and not copied.is_file():
        remove_tree(folder)
        each(folder, lambda source: source.copy(folder / source.relative_to(following)), sources)
        copied.write_bytes(b"")
    remove_objects(sources)


def rename(source: Place, target: Place) -> None:
    """Give a file another name; in an object store by a copy and a deletion."""
    if isinstance(source, ObjectPath) and isinstance(target, ObjectPath):
        source.copy(target)
        source.unlink()
    elif isinstance(source, Path) and isinstance(target, Path):
        source.replace(target)


def files_in(folder: Place, pattern: str) -> list[Place]:
    """Sorted files right in a folder whose names match. Here and below, what vanishes meanwhile, if it is the folder, is not there."""
    found: Iterable[Place] = folder.glob(pattern) if isinstance(folder, ObjectPath) else _matching(_entries(folder), pattern)
    return sorted(found, key=str)


def file_names_in(folder: Place) -> list[str]:
    """Names of the files right in a folder, in no order: for folders with many, of which most are looked at."""
    if isinstance(folder, ObjectPath):
        return [path.name for path in folder.iterdir() if path.found is not None]
    return [entry.name for entry in _entries(folder) if entry.is_file()]


def files_there(folder: Place, names: Iterable[str]) -> set[str]:
    """Those of some names, relative to a folder, that are files."""
    if isinstance(folder, ObjectPath):
        listed = list(names)
        return {name for name, found in zip(listed, each(folder, lambda name: (folder / name).is_file(), listed), strict=True) if found}
    root = str(folder)
    return {name for name in names if os.path.isfile(f"{root}/{name}")}  # noqa: PTH113  (hundreds a checkpoint)


def files_below(folder: Place, pattern: str) -> list[Place]:
    """Sorted files at any depth of a folder whose names match; in an object store by one listing."""
    found: Iterable[Place] = folder.rglob(pattern) if isinstance(folder, ObjectPath) else _matching(_entries_below(folder), pattern)
    return sorted(found, key=str)


def folders_in(folder: Place) -> list[Place]:
    """Sorted folders right in a folder."""
    if isinstance(folder, ObjectPath):
        return [path for path in folder.iterdir() if path.found is None]
    return sorted(Path(entry.path) for entry in _entries(folder) if entry.is_dir())


def status_of(path: Place) -> os.stat_result | ObjectStat | None:
    """Size and time of a file; None where it is not there, or has just vanished. An object that was listed is not asked again."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def changed_ns(path: Place) -> int:
    """Time of the last change of a file, or of the names in a folder, in nanoseconds since 1970; 0 where it is not there, and of objects."""
    try:
        return path.stat().st_mtime_ns if isinstance(path, Path) else 0
    except OSError:
        return 0


def _matching(entries: Iterable[os.DirEntry[str]], pattern: str) -> Iterator[Path]:
    return (Path(entry.path) for entry in entries if fnmatchcase(entry.name, pattern) and entry.is_file())


def _entries_below(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    for entry in _entries(folder):
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from _entries_below(entry.path)


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def read_range(file: Place, start: int, length: int) -> bytes:
    """Read some bytes of a file; a negative start counts from its end."""
    if isinstance(file, ObjectPath):
        return file.read_range(start, length)
    with file.open("rb", buffering=0) as opened:
        opened.seek(start if start >= 0 else max(0, opened.seek(0, os.SEEK_END) + start))
        return opened.read(length)


def name_below(path: Place, folder: Place) -> str:
    """Name relative to a folder, with slashes."""
    return str(path).removeprefix(f"{folder}/")


def local_folder(place: Place, command: str) -> Path:
    """Return a place that is a folder; raise a ValueError where it is a URL."""
    if isinstance(place, ObjectPath):
        raise ValueError(f"--run {place}: `{command}` makes photos or checkpoints, which are files; expected a local directory")
    return place
