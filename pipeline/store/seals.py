"""Seals: the checksum of every file that is not a block of samples, kept apart from the files, so that a flipped bit is noticed.

A seal vouches for small files: the metadata of a store, its heads and texts, figures, the manifest, the page. Blocks of
samples have their own proof in the ledger.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crc32c import crc32c

from pipeline.disk.places import Place, each, status_of
from pipeline.disk.records import PARTIAL, read_record, write_atomically, write_record
from pipeline.disk.unchanged import UNSETTLED_NS, Unchanged

_READ: Unchanged[dict[str, Any]] = Unchanged(1024)


class BrokenSealError(ValueError):
    """A file that is not the one that was sealed."""


class OpenSealError(BrokenSealError):
    """Files that are just being written, or were when their writer was killed."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a store: where, what kind of wrong (damaged, missing, foreign), and what was found."""

    where: str
    kind: str
    text: str


@dataclass(frozen=True)
class Seal:
    """The sealed files of one folder.

    Parameters
    ----------
    path : Place
        The record that holds the checksums.
    root : Place
        The folder; files are named relative to it.

    Notes
    -----
    A file may have two checksums while it is replaced, the old and the new one, so that a kill between file and record
    never makes a whole file look damaged. Where there is no record nothing is checked: runs of schema version 1 have none.
    """

    path: Place
    root: Place

    @property
    def exists(self) -> bool:
        """Whether anything was ever sealed."""
        return self.path.is_file()

    @property
    def is_open(self) -> bool:
        """Whether the files are just being written, or were when the writer was killed."""
        return bool(self._record.get("open"))

    @property
    def names(self) -> list[str]:
        """The sealed files."""
        return sorted(self._record.get("files", {}))

    def open(self, **notes: object) -> None:
        """Declare that the files are about to change; without notes, what was noted before is kept."""
        write_record(self.path, {"notes": notes or self.notes, "open": True, "files": {}})

    def close(self, names: Iterable[str]) -> None:
        """Seal these files as they are now, and no others."""
        write_record(self.path, {"notes": self.notes, "files": self._as_they_are(sorted(names))})

    def add(self, names: Iterable[str]) -> None:
        """Seal more files as they are now."""
        files = read_record(self.path).get("files", {})
        new = self._as_they_are(names)
        if any(files.get(name) != found for name, found in new.items()):
            write_record(self.path, {"notes": self.notes, "files": {**files, **new}})

    def replace(self, name: str, content: bytes, **notes: object) -> None:
        """Write one file anew and seal it; killed at any instant, the file is whole and the seal accepts it."""
        record = read_record(self.path)
        files, new = record.get("files", {}), _checksum(content)
        target = self.root / name
        if target.is_file():
            old = files.get(name, [_checksum(target.read_bytes())])
            write_record(self.path, {**record, "files": {**files, name: [*old, new]}})
        else:
            write_record(self.path, {**record, "files": files, "open": True})  # a new file that is not sealed yet is unfinished, not damaged
        write_atomically(target, content)
        write_record(self.path, {"notes": notes or self.notes, "files": {**files, name: [new]}})

    def drop(self, names: Iterable[str]) -> None:
        """Forget some files."""
        record, gone = read_record(self.path), set(names)
        write_record(self.path, {**record, "files": {key: found for key, found in record.get("files", {}).items() if key not in gone}})

    def sweep(self) -> None:
        """Delete what a killed writer left half-written of the record and beside the files; the product's lock must be held."""
        for left in [*self.path.parent.glob(f"{self.path.name}.*{PARTIAL}"), *self.root.glob(f"*{PARTIAL}")]:
            left.unlink()

    def remove(self) -> None:
        """Forget the seal: its files count as not made."""
        self.path.unlink(missing_ok=True)

    @property
    def _record(self) -> dict[str, Any]:
        return _READ.get(lambda: read_record(self.path), self.path)

    @property
    def notes(self) -> dict[str, Any]:
        """What the writer noted beside the checksums: what the files were made of."""
        return dict(self._record.get("notes", {}))

    def holds(self, name: str) -> bool:
        """Whether a file is there and is the sealed one; false where it was never sealed."""
        return name in self._record.get("files", {}) and self.fault(name) is None

    def check(self, name: str) -> None:
        """Raise a BrokenSealError if a file is not the sealed one."""
        if (found := self.fault(name)) is not None:
            raise BrokenSealError(f"{found.where}: {found.kind}: {found.text}.")

    def content(self, name: str) -> bytes:
        """Read a file; raise a BrokenSealError if it is not the sealed one. While the seal is open, or where there is none, nothing is compared."""
        return self.contents_of([name])[name]

    def contents_of(self, names: Sequence[str]) -> dict[str, bytes]:
        """Read several files as `content` does, and the record once."""
        record = self._record
        if not record or record.get("open"):
            return dict(zip(names, each(self.root, lambda name: (self.root / name).read_bytes(), names), strict=True))
        found = each(self.root, lambda name: self._unlisted(name, record) or self._content(name, record), names)
        faults = [one for one in found if isinstance(one, Fault)]
        if faults and read_record(self.path) != record:  # as in `_faults`
            return self.contents_of(names)
        if faults:
            raise BrokenSealError(f"{faults[0].where}: {faults[0].kind}: {faults[0].text}.")
        return {name: content for name, content in zip(names, found, strict=True) if isinstance(content, bytes)}

    def listed(self, names: Iterable[str]) -> list[str]:
        """Those of some files that were sealed; all of them where nothing ever was."""
        record = self._record
        return [name for name in names if not record or name in record.get("files", {})]

    def fault(self, name: str) -> Fault | None:
        """Say what is wrong with a file, if anything is."""
        return next(iter(self._faults([name])), None)

    def _fault(self, name: str, record: Mapping[str, Any]) -> Fault | None:
        if not record or record.get("open"):
            return None
        found = self._unlisted(name, record) or self._content(name, record)
        return found if isinstance(found, Fault) else None

    def _unlisted(self, name: str, record: Mapping[str, Any]) -> Fault | None:
        if name in record["files"]:
            return None
        return Fault(str(self.root / name), "foreign", "it was never sealed: it was not written by a finished stage")

    def _content(self, name: str, record: Mapping[str, Any]) -> bytes | Fault:
        """The bytes of a sealed file, or what is wrong with them."""
        where = str(self.root / name)
        try:
            content = (self.root / name).read_bytes()
        except FileNotFoundError:
            return Fault(where, "missing", "the file is not there")
        if _checksum(content) not in record["files"][name]:
            return Fault(where, "damaged", "its bytes do not match the checksum that was noted when it was written")
        return content

    def contents(self) -> dict[str, bytes]:
        """Read every sealed file: name -> the very bytes that were checked.

        Raises
        ------
        OpenSealError
            If the files are just being written.
        BrokenSealError
            If a file is not the sealed one.
        """
        record = self._record
        names = sorted(record.get("files", {}))
        found = dict(zip(names, each(self.root, lambda name: self._content(name, record), names), strict=True))
        faults = [content for content in found.values() if isinstance(content, Fault)]
        if record.get("open") or (faults and read_record(self.path) != record):
            raise OpenSealError(f"{self.root}: it is just being written, or was when its writer was killed.")
        if faults:
            raise BrokenSealError(f"{faults[0].where}: {faults[0].kind}: {faults[0].text}.")
        return {name: content for name, content in found.items() if isinstance(content, bytes)}

    def faults(self) -> list[Fault]:
        """Check every sealed file."""
        return self._faults(None)

    def is_changed(self) -> bool:
        """Whether a file is another one than was sealed, as far as its size and the time of its last change tell; if they do not, it is read.

        A bit that flips on the disk leaves both alone: `faults` finds it, and so does whoever reads the file. Of a copy every file is read.
        """
        sealed = status_of(self.path)
        if not isinstance(sealed, os.stat_result) or sealed.st_ctime_ns > sealed.st_mtime_ns + UNSETTLED_NS:
            return bool(self.faults())
        files = self._record.get("files", {})
        return bool(self._faults([name for name, sums in files.items() if not _is_untouched(self.root / name, sums, sealed)]))

    def _faults(self, names: Sequence[str] | None) -> list[Fault]:
        """Check some files (None: all). Look again where the record changed meanwhile: its writer changes a file, and then the record."""
        record = self._record
        found = each(self.root, lambda name: self._fault(name, record), sorted(record.get("files", {})) if names is None else names)
        faults = [fault for fault in found if fault is not None]
        return self._faults(names) if faults and read_record(self.path) != record else faults

    def _as_they_are(self, names: Iterable[str]) -> dict[str, list[list[int]]]:
        listed = list(names)
        return dict(zip(listed, each(self.root, lambda name: [_checksum((self.root / name).read_bytes())], listed), strict=True))


def _is_untouched(file: Place, sums: Sequence[Sequence[int]], sealed: os.stat_result) -> bool:
    """Whether a file was last written, renamed or copied before it was sealed, and has the length that was sealed."""
    status = status_of(file)
    return isinstance(status, os.stat_result) and status.st_ctime_ns < sealed.st_ctime_ns and any(status.st_size == length for _, length in sums)


def _checksum(content: bytes) -> list[int]:
    return [crc32c(content), len(content)]
