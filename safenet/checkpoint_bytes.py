"""The bytes of a checkpoint file, of whatever origin -> what they hold; no code in them is ever run."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from safenet.checkpoint_info import CheckpointError, one_line


def read_content(path: Path) -> Mapping[Any, Any]:
    """Return the mapping that `torch.save` wrote; the numbers of an archive stay on disk until they are used.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If the file is damaged, holds code, no mapping, or is something else than `torch.save` writes.
    """
    if not path.is_file():
        raise FileNotFoundError(one_line(f"{path}: no such checkpoint file"))
    is_archive = zipfile.is_zipfile(path)
    if is_archive:
        _check_archive(path)
    elif _begins_as_archive(path):
        raise _damaged(path, "a zip archive that lacks its end")
    content = _load(path, is_archive)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a state dict")
    return content


def _check_archive(path: Path) -> None:
    """Refuse what `torch.save` does not write; torch itself checks no sum where it maps a file, and unpacks what it is told to."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            claimed = sum(record.file_size for record in records)
            is_packed = claimed > path.stat().st_size or any(record.compress_type != zipfile.ZIP_STORED for record in records)
            spoilt = None if is_packed else archive.testzip()
    except Exception as error:  # noqa: BLE001  (damaged archives make zipfile raise what it likes)
        raise _damaged(path, _reason(error)) from None
    names = {record.filename.partition("/")[2] for record in records}
    if "data.pkl" not in names:
        raise CheckpointError(f"{path}: not a PyTorch checkpoint: a zip archive without data.pkl; give a file of torch.save")
    if "constants.pkl" in names:
        raise CheckpointError(f"{path}: a TorchScript archive, whose code is never run; save the network's state_dict instead")
    if is_packed:
        raise CheckpointError(f"{path}: its records unpack to {claimed:,} bytes, but torch.save never compresses; save it again with torch.save")
    if spoilt:
        raise _damaged(path, f"the checksum of {spoilt} is wrong")


def _begins_as_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _load(path: Path, is_archive: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders at pickles of other making, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            advice = f"they are never run ({code.group(1)}). Save it as a plain state dict, or copy it again if it is one"
            raise CheckpointError(f"{path}: holds pickled objects other than tensors; {advice}") from None
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or damaged ({path.stat().st_size:,} bytes); copy or train it again") from None
    except Exception as error:  # noqa: BLE001  (damaged bytes make unpicklers raise what they like)
        raise _damaged(path, _reason(error)) from None


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: damaged or truncated ({path.stat().st_size:,} bytes): {reason}; copy or train it again")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0][:150] or type(error).__name__
