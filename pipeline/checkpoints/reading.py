"""The information in checkpoint files, read with torch once and noted for every later call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.checkpoints.files import CheckpointFile
from pipeline.work.stops import loading
from safenet.checkpoint_info import READING, CheckpointInfo
from safenet.needs_network import require_network


def read_info(file: CheckpointFile, told: Mapping[str, Any], *, check: bool = False) -> CheckpointInfo:
    """Return what a file tells of itself; a file whose bytes are known is not opened.

    Parameters
    ----------
    file : CheckpointFile
    told : mapping
        What its shapes do not tell: ExtractSettings.told.
    check : bool
        Whether its weights must fit the network, and be finite.

    Raises
    ------
    CheckpointError
        If the file cannot be used.
    NetworkNotInstalledError
        If it has to be read, and torch is not installed.
    """
    if file.notes is None:
        return _read(file, told, check)
    key = json.dumps([READING, file.stem, dict(told)])  # the epoch may stand in the name alone

    def read() -> dict[str, Any]:
        return {"info": _read(file, told, check).as_dict(), "checked": check}

    noted = file.notes.told(file.path, key, read, is_enough=lambda noted: noted["checked"] or not check)
    return CheckpointInfo.from_dict(file.path, noted["info"])


def _read(file: CheckpointFile, told: Mapping[str, Any], check: bool) -> CheckpointInfo:
    require_network(f"reading {file.path}")
    with loading():
        from safenet.checkpoint import read_checkpoint
    checkpoint = read_checkpoint(file.path, **told)
    if check:
        checkpoint.check()
    return checkpoint.info
