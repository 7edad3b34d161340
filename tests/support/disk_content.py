"""The bytes of a run, to compare two of them."""

import json
from pathlib import Path

TIME_SAVERS = {"rates.json", "checkpoint_files.json"}  # of the ledger: no product rests on them
FENCE = "fence.json"  # whose number tells when a call began
VOLATILE = {"created", "finished", "made_by", "host", "pid", "noted", "since", "fence"}  # who made it, and when


def content(folder: Path) -> dict[str, object]:
    """Every file under `folder`, but for the locks, what only saves time or tells it, and what tells who wrote a store and when."""
    return {
        name: _stable(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not (name := path.relative_to(folder).as_posix()).startswith("locks/") and path.name not in {*TIME_SAVERS, FENCE}
    }


def _stable(path: Path) -> object:
    data = path.read_bytes()
    if path.suffix != ".json":
        return data
    is_record = "ledger" in path.parts or path.parent.name == "ledger" or path.name == "layout.json"
    found = _without_volatile(json.loads(data.partition(b"\n")[0] if is_record else data))  # a record's second line is the checksum of the first
    if path.name == "layout.json":
        found["files"] = {name: check for name, check in found["files"].items() if name != "zarr.json"}  # whose attributes tell the times
    return found


def _without_volatile(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_volatile(item) for key, item in value.items() if key not in VOLATILE}
    return [_without_volatile(item) for item in value] if isinstance(value, list) else value
