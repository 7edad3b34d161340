"""A path in an object store: the part of pathlib that the stores use, over obstore. There are no folders, only names with a common prefix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from functools import lru_cache, total_ordering
from pathlib import PurePath, PurePosixPath
from typing import Any

SCHEMES = ("s3", "gs", "az", "memory")
_INSTALL = "a run in an object store needs the package obstore: pip install 'safenet-atlas[cloud]'"
_NO_BUCKET = "no such bucket. Make it, or name another --run"
_BULK = 1000  # names a request to delete


class ObjectStoreError(OSError):
    """The object store refused, or could not be asked."""


@dataclass(frozen=True)
class ObjectStat:
    """Size and time of an object, the time by the store's own clock."""

    st_size: int
    st_mtime: float
    e_tag: str | None = None


@total_ordering
@dataclass(frozen=True)
class ObjectPath:
    """An object, or the folder that names which begin so would lie in.

    Parameters
    ----------
    root : str
        Scheme and bucket, such as "s3://bucket".
    key : str
        What comes after; empty for the bucket itself.
    found : ObjectStat, optional
        What a listing said of the object: for a look at once, not to be kept.
    """

    root: str
    key: str
    found: ObjectStat | None = field(default=None, compare=False, repr=False)

    # ---- names

    def __str__(self) -> str:
        return f"{self.root}/{self.key}".rstrip("/")

    def __lt__(self, other: ObjectPath) -> bool:
        return (self.root, self.key.split("/")) < (other.root, other.key.split("/"))

    def __truediv__(self, more: str | PurePath) -> ObjectPath:
        return ObjectPath(self.root, _joined(PurePosixPath(self.key) / more))

    @property
    def name(self) -> str:
        """Last part."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """Last part without its suffix."""
        return self._pure.stem

    @property
    def parent(self) -> ObjectPath:
        """The folder above."""
        return ObjectPath(self.root, _joined(self._pure.parent))

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.key)

    def with_name(self, name: str) -> ObjectPath:
        """Another one beside it."""
        return ObjectPath(self.root, _joined(self._pure.with_name(name)))

    def with_suffix(self, suffix: str) -> ObjectPath:
        """Of another suffix."""
        return ObjectPath(self.root, _joined(self._pure.with_suffix(suffix)))

    def relative_to(self, other: ObjectPath) -> PurePosixPath:
        """What comes after `other`."""
        return self._pure.relative_to(other._pure)

    def resolve(self) -> ObjectPath:
        """Itself: it has no links."""
        return self

    # ---- looking

    def exists(self) -> bool:
        """Whether there is such an object, or a folder of them."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is such an object."""
        try:
            return bool(self.key) and self.stat() is not None
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        """Whether any object lies below."""
        with telling(self):
            return any(True for _ in _library().list(self.store, f"{self.key}/" if self.key else None, chunk_size=1))

    def stat(self) -> ObjectStat:
        """Size, time and tag; FileNotFoundError where there is no such object."""
        if self.found is not None:
            return self.found
        with telling(self):
            return _stat(_library().head(self.store, self.key))

    def iterdir(self) -> Iterator[ObjectPath]:
        """Objects and folders right below, by one listing."""
        with telling(self):
            listed = _library().list_with_delimiter(self.store, self.key or None)
        for key in sorted(listed["common_prefixes"]):
            yield ObjectPath(self.root, key.rstrip("/"))
        yield from sorted(self._found(listed["objects"]))

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Objects right below whose names match, by one listing."""
        return (path for path in self.iterdir() if path.found is not None and fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str) -> Iterator[ObjectPath]:
        """Objects at any depth whose names match, by one listing; folders are none."""
        with telling(self):
            listed = _library().list(self.store, self.key or None).collect()
        return (path for path in sorted(self._found(listed)) if fnmatchcase(path.name, pattern))

    def _found(self, listed: Iterable[Any]) -> list[ObjectPath]:
        return [ObjectPath(self.root, one["path"], _stat(one)) for one in listed]

    # ---- reading and writing

    def read_bytes(self) -> bytes:
        """Whole content."""
        with telling(self):
            return bytes(_library().get(self.store, self.key).bytes())

    def read_range(self, start: int, length: int) -> bytes:
        """Some bytes; a negative start counts from the end, and `length` reaches it."""
        with telling(self):
            if start < 0:
                return bytes(_library().get(self.store, self.key, options={"range": {"suffix": -start}}).bytes())
            return bytes(_library().get_range(self.store, self.key, start=start, length=length))

    def read_text(self) -> str:
        """Whole content."""
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes) -> None:
        """Put the object: whole or not at all, and there for every reader when this returns."""
        self._check_writer()
        with telling(self, missing=_NO_BUCKET):
            _library().put(self.store, self.key, content)

    def put_if_absent(self, content: bytes) -> str | None:
        """Put the object if there is none of its name; return its tag, None if there is one."""
        return self._put_if(content, "create")

    def put_if_unchanged(self, content: bytes, e_tag: str) -> str | None:
        """Put the object over the one of that tag; return its new tag, None if there is another or none."""
        return self._put_if(content, {"e_tag": e_tag})

    def _put_if(self, content: bytes, mode: Any) -> str | None:
        obstore = _library()
        with telling(self, missing=_NO_BUCKET):
            try:
                return str(obstore.put(self.store, self.key, content, mode=mode)["e_tag"])
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                return None
            except FileNotFoundError as error:
                if mode == "create" or _tells_of_no_bucket(error):
                    raise
                return None

    def read_with_tag(self) -> tuple[bytes, str]:
        """Whole content, and its tag."""
        with telling(self):
            found = _library().get(self.store, self.key)
            return bytes(found.bytes()), str(found.meta["e_tag"])

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: there are no folders to make."""

    def unlink(self, missing_ok: bool = True) -> None:
        """Delete the object; object stores do not tell whether it was there."""
        remove_objects([self])

    def copy(self, target: ObjectPath) -> None:
        """Copy the object within the store."""
        target._check_writer()
        with telling(self):
            _library().copy(self.store, self.key, target.key)

    def _check_writer(self) -> None:
        for check in list(WRITER_CHECKS.get(self.root, ())):
            check()

    @property
    def store(self) -> Any:
        """The bucket, opened with what the environment says."""
        return _opened(self.root)


WRITER_CHECKS: dict[str, list[Callable[[], None]]] = {}  # by bucket: what raises if this process may not write there any more


def remove_objects(paths: Iterable[ObjectPath], *, checked: bool = True) -> None:
    """Delete objects, many a request; one that is not there is no fault. Not `checked`: also by a process that lost its lease."""
    listed = list(paths)
    for start in range(0, len(listed), _BULK):
        some = listed[start : start + _BULK]
        if checked:
            some[0]._check_writer()
        try:
            with telling(some[0]):
                _library().delete(some[0].store, [path.key for path in some])
        except FileNotFoundError:  # some stores tell; the others of the request may be left
            for path in some if len(some) > 1 else ():
                remove_objects([path], checked=checked)


@contextmanager
def telling(path: object, missing: str = "") -> Iterator[None]:
    """Turn an error of the object store into one line that says where; a secret in an address is left out."""
    try:
        yield
    except FileNotFoundError as error:
        if _tells_of_no_bucket(error):
            missing = _NO_BUCKET
        elif not missing and "Object at location" not in str(error):
            raise
        raise (ObjectStoreError if missing else FileNotFoundError)(f"{path}: {missing or 'not there'}") from None
    except Exception as error:
        if not type(error).__module__.startswith("obstore"):
            raise
        if _tells_of_no_bucket(error):
            raise ObjectStoreError(f"{path}: {_NO_BUCKET}") from None
        found = _hide_secrets(str(error).split("\n\nDebug source")[0])
        raise ObjectStoreError(f"{path}: the object store says: {found}. Check the address, the environment's credentials and the network") from None


def _tells_of_no_bucket(error: Exception) -> bool:
    return any(word in str(error) for word in ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"))


def _hide_secrets(text: str) -> str:
    """One line of it, without the queries of addresses (they may hold signatures) and names before an @."""
    return re.sub(r"//[^/\s@]*@", "//", re.sub(r"\?[^\s\"]*", "", " ".join(text.split())))[:400].rstrip(".")


def _stat(listed: Any) -> ObjectStat:
    modified: datetime = listed["last_modified"]
    return ObjectStat(listed["size"], modified.timestamp(), listed["e_tag"])


def _joined(path: PurePosixPath) -> str:
    return "" if path == PurePosixPath() else path.as_posix()


def _library() -> Any:
    try:
        import obstore  # an optional package, and a hundredth of a second: only where a run is a URL
    except ImportError:
        raise ObjectStoreError(_INSTALL) from None
    return obstore


@lru_cache
def _opened(root: str) -> Any:
    _library()
    from obstore.store import MemoryStore, from_url

    with telling(root):
        return MemoryStore() if root.startswith("memory:") else from_url(root)
