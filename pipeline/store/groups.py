"""The groups of a store: their names and order, and the store's own metadata. Plain files: no zarr."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.disk.locks import locked
from pipeline.disk.places import Place, each, file_names_in, files_below, folders_in, status_of
from pipeline.disk.records import PARTIAL, write_atomically
from pipeline.disk.unchanged import Unchanged
from pipeline.store.fences import FENCE
from stages.schema import LATEST_SCHEMA_VERSION

METADATA = "zarr.json"
JOINED = "all_checkpoints"  # the group of figures that joins those of every checkpoint
CONSOLIDATED = "consolidated_metadata"
_ATTRIBUTES_FIRST = re.compile(r'\s*\{\s*"attributes"\s*:\s*')
_CONSOLIDATED_NEXT = re.compile(rf'\s*,\s*"zarr_format"\s*:\s*3\s*,\s*"{CONSOLIDATED}"\s*:')
_DECODER = json.JSONDecoder()
_READ: Unchanged[Any] = Unchanged(1024)
_ROOT = b'{"attributes": {}, "zarr_format": 3, "node_type": "group"}'


class DamagedStoreError(ValueError):
    """Bytes of a store that do not match their checksum."""


def make_root(path: Place) -> None:
    """Make the store itself, a group of groups. Checkpoints may be written by several processes: one of them does it at a time."""
    with locked(path.parent / "locks" / f"{path.stem}.root.lock", str(path), wait=True):
        for left in path.glob(f"*{PARTIAL}"):
            left.unlink()
        if not is_whole_root(path):
            write_atomically(path / METADATA, _ROOT)


def is_whole_root(path: Place) -> bool:
    """Whether the store's own metadata is there and undamaged; it is the same in every store."""
    return (path / METADATA).is_file() and json.loads(_ROOT) == read_json(path / METADATA)


def read_json(path: Place) -> Any:
    """Read a file of JSON; None where it is not there, or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def attributes_in(content: bytes) -> dict[str, Any]:
    """Attributes in the metadata of a group, whose bytes were checked; what follows them, the metadata of every array, is not understood in vain."""
    return _begin(content.decode())[0]


def is_consolidated(content: bytes) -> bool:
    """Whether the metadata of a group hold those of its arrays; these are not understood in vain either."""
    text = content.decode()
    return bool(_CONSOLIDATED_NEXT.match(text, _begin(text)[1])) or CONSOLIDATED in json.loads(text)


def _begin(text: str) -> tuple[dict[str, Any], int]:
    """Attributes of a group, and where they end."""
    if first := _ATTRIBUTES_FIRST.match(text):
        return _DECODER.raw_decode(text, first.end())
    return dict(json.loads(text)["attributes"]), 0


def read_attributes(group: Place) -> dict[str, Any]:
    """Read a group's attributes as they are, checked against no seal; empty where they cannot be read."""
    metadata = group / METADATA
    return dict(_READ.get(lambda: _attributes_of(read_json(metadata)), metadata))


def _attributes_of(content: Any) -> dict[str, Any]:
    found = content.get("attributes") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def check_version(where: str, attributes: Mapping[str, Any]) -> None:
    """Raise a ValueError if a store was written by a later version of the schema than this one knows."""
    found = attributes.get("schema_version", 1)
    if found > LATEST_SCHEMA_VERSION:
        raise ValueError(f"{where}: written with schema version {found}; this safenet-atlas reads versions up to {LATEST_SCHEMA_VERSION}. Update it")


def known_groups(path: Place) -> list[str]:
    """Names of the groups that are there, and of those that have marks or a seal: one whose folder is gone is missing, not unknown."""
    return sorted({*group_names(path), *_folders_that(_holds_proofs, path.parent / "ledger" / path.stem)})


def _holds_proofs(folder: Place) -> bool:
    """A fence alone says that a call was about to begin."""
    return any(name.endswith(".json") and name != FENCE for name in file_names_in(folder))


def group_names(path: Place) -> list[str]:
    """Names of the groups right under the store's root; those that begin with a dot are being made."""
    return _folders_that(lambda folder: (folder / METADATA).is_file(), path)


def _folders_that(hold: Callable[[Place], bool], path: Place) -> list[str]:
    folders = [folder for folder in folders_in(path) if not folder.name.startswith(".")]
    return [folder.name for folder, held in zip(folders, each(path, hold, folders), strict=True) if held]


def bytes_on_disk(path: Place) -> int:
    """Size of all files under `path`."""
    return sum(status.st_size for file in files_below(path, "*") if (status := status_of(file)))


def checkpoint_order(attributes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sort checkpoint names by the series, then the epoch that their attributes tell, then by name; those without one come last."""

    def key(name: str) -> tuple[Any, ...]:
        series, epoch = (attributes[name].get(what) for what in ("series", "epoch"))
        return series is None, series or "", epoch is None, epoch or 0, name

    return sorted(attributes, key=key)
