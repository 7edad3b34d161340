"""The network of a checkpoint file, which must be the very file that a stage began with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.disk.stamps import file_digest
from safenet.checkpoint import read_checkpoint
from safenet.checkpoint_info import CheckpointError, CheckpointInfo
from safenet.model import SafeNet


class ChangedCheckpointError(CheckpointError):
    """A checkpoint file that was replaced or written over since the stage began."""


def load_network(path: Path, digest: str, told: Mapping[str, Any]) -> tuple[CheckpointInfo, SafeNet]:
    """Load the network of a file of known bytes.

    Parameters
    ----------
    path : Path
    digest : str
        Of the bytes, as the stage's stamps name it.
    told : mapping
        Keywords of `read_checkpoint`.

    Returns
    -------
    CheckpointInfo
    SafeNet
        In evaluation mode, float32, on the CPU.

    Raises
    ------
    ChangedCheckpointError
        If the file holds other bytes by now, or was written over while it was read.

    Notes
    -----
    The weights are copied out of the mapped file, and then its bytes are digested, from memory as a rule. A file that is
    the same one, of the same length and times, before and after both, was read and digested as one.
    """
    before = _state(path)
    try:
        checkpoint = read_checkpoint(path, **told)
        network = checkpoint.build()
    except CheckpointError:
        if _state(path) == before and file_digest(path) == digest:
            raise
        raise _changed(path) from None
    if file_digest(path) != digest or _state(path) != before:
        raise _changed(path)
    return checkpoint.info, network


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _changed(path: Path) -> ChangedCheckpointError:
    return ChangedCheckpointError(
        f"{path}: not the file any more that this call began with: it was replaced or written over. "
        f"What is done so far was made with the former file. Call again, and leave the file alone meanwhile"
    )
