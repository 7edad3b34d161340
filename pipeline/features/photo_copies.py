"""The photo of a sample after extraction: its file if that is available and unchanged, else the copy in the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.disk.stamps import file_digest
from pipeline.run.directory import MissingProductError, Run


def photo_file(run: Run, sample: int) -> Path | None:
    """Return the photo's file, None where it is not there or not the same any more."""
    path = _path(run, sample)
    return path if path.is_file() and file_digest(path) == run.columns["digest"][sample] else None


def stored_photo(run: Run, name: str, sample: int) -> NDArray[np.uint8]:
    """Return the photo as a checkpoint's network read it, uint8 [S, S, 3].

    Raises
    ------
    MissingProductError
        If the store has no copies.
    """
    features = run.features(name)
    if not features.has("image"):
        where = f"{_path(run, sample)}: the photo is not here, and {features} holds no copy"
        raise MissingProductError(f"{where}. Bring the photos back, or extract with 'image' in extract.store")
    found: NDArray[np.uint8] = features.values("image", slice(sample, sample + 1))[0]
    return found


def _path(run: Run, sample: int) -> Path:
    return Path(run.manifest.attrs["root"]) / run.manifest["path"].iloc[sample]
