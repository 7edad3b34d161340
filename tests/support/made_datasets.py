"""Datasets of tiny made-up pictures, and their manifests."""

import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.run.manifest import index_dataset
from stages.index.settings import DatasetSettings


def picture(path: Path, size: tuple[int, int] = (20, 24), content: str | None = None) -> None:
    """A noise picture of (height, width); equal `content` gives equal bytes, and the path alone decides if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32((content or path.as_posix()).encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format=Image.registered_extensions()[path.suffix.lower()])


def pictures(root: Path, *paths: str) -> Path:
    """Pictures whose bytes follow from view, place and file name, so that a gallery's copy of a query is one."""
    for path in paths:
        picture(root / path, content=re.sub("^(train|test)/|query_|gallery_", "", path))
    return root


def indexed(root: Path, **settings) -> pd.DataFrame:
    return index_dataset(DatasetSettings(root=root, **settings), workers=2)


def two_trees(root: Path) -> Path:
    for number, name in enumerate(f"{view}/{place}/a.png" for view in ("drone", "satellite") for place in ("0300", "0301")):
        (root / name).parent.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(root / name)
    return root
