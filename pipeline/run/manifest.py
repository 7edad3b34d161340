"""The manifest of a dataset: every photo's digest and size read by a pool of threads, stored as one Parquet file."""

import hashlib
import json
import os
import stat
import struct
import warnings
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import pandas as pd
import pyarrow as pa
from PIL import Image

from pipeline.disk.places import Place
from pipeline.disk.stamps import stamp
from pipeline.store.seals import BrokenSealError, Seal
from safenet.photos import FORMATS, PhotoTooLargeError, open_photo
from stages.index.manifest import MANIFEST_COLUMNS, ImageHeader, find_images, find_masks, list_images, merge_duplicates, resolve_layout
from stages.index.settings import DatasetSettings

MINIMUM_SIDE_PX = 16  # one patch token: a smaller photo says nothing
DIGESTED_COLUMNS = ("id", "digest", "view", "place", "split", "roles", "variant", "problem")
UNREADABLE_HEADER = (
    ValueError, SyntaxError, struct.error, EOFError, LookupError, TypeError, ArithmeticError, MemoryError, NotImplementedError,
)  # fmt: skip # what Pillow's readers are known to raise on damaged bytes, besides OSError


def index_dataset(
    settings: DatasetSettings,
    workers: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
    known_variants: Collection[str] = (),
) -> pd.DataFrame:
    """Read every photo once and return the manifest; a bad photo becomes a row with its `problem` and never stops the run.

    Parameters
    ----------
    settings
        The ``[dataset]`` table.
    workers
        Threads that read.
    progress
        Called after each file with the number done and the number of all.
    known_variants
        As `find_images`.

    Returns
    -------
    DataFrame
        As of `merge_duplicates`; its ``attrs`` hold the absolute ``root`` that paths are relative to, and the ``layout``.

    Raises
    ------
    FileNotFoundError, ValueError
        As `find_images`.
    """
    root = settings.root.expanduser().absolute()
    files = find_images(root, settings, known_variants)
    paths = list(dict.fromkeys(file.path for file in files))
    table = merge_duplicates(files, _read_all(root, paths, workers, progress), find_masks(root))
    table.attrs = {"root": str(root), "layout": resolve_layout(root, settings), "listing": _listing(root, paths)}
    return table


def listing_stamp(settings: DatasetSettings, known_variants: Collection[str] = ()) -> str:
    """Digest of the names and sizes of the photos that the settings ask for: a look at the folders, no photo is read."""
    root = settings.root.expanduser().absolute()
    return _listing(root, {file.path for file in list_images(root, settings, known_variants)})


def _listing(root: Path, paths: Collection[str]) -> str:
    return stamp([(os.fsencode(path).hex(), _size(f"{root}/{path}")) for path in sorted(paths)])


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116  (of 50,000, of which a Path each takes four times as long)
    except OSError:
        return -1


def read_header(path: Path) -> ImageHeader:
    """Return digest and size of one image file, or why it cannot be used; raises nothing for a bad file.

    Notes
    -----
    Pixels are not decoded: a fault behind the header shows when the photo is extracted.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return ImageHeader(problem="its name is not UTF-8; rename the file")
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return ImageHeader(problem="not a regular file")
        return _read_regular_file(path)
    except OSError as error:
        return ImageHeader(problem=f"cannot be read: {error.strerror or ' '.join(str(error).split())}")


def write_manifest(path: Place, table: pd.DataFrame) -> None:
    """Write the manifest with its ``attrs``, and seal it; `path` holds the old file or the whole new one, never a part."""
    content = BytesIO()
    table.to_parquet(content, index=False)
    manifest_seal(path).replace(path.name, content.getvalue())


def manifest_seal(path: Place) -> Seal:
    """Seal of a run's manifest."""
    return Seal(path.parent / "ledger" / "manifest.json", path.parent)


def read_manifest(path: Place) -> pd.DataFrame:
    """Return the manifest with ``attrs["root"]`` and ``attrs["layout"]``.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If the file is not a manifest of ours, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no manifest; run `atlas index` first")
    try:
        manifest_seal(path).check(path.name)
        table = pd.read_parquet(BytesIO(path.read_bytes()))
    except BrokenSealError as error:
        raise ValueError(f"{error} Run `atlas index` again, or restore it") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a readable manifest ({reason}). Run `atlas index` again.") from error
    if "problem_since" not in table:  # schema version 1
        table["problem_since"] = ""
    missing = [column for column in MANIFEST_COLUMNS if column not in table]
    if missing or "root" not in table.attrs:
        lacks = ", ".join(missing) or "the dataset's root"
        raise ValueError(f"{path}: a Parquet file, but not a manifest of this version; it lacks {lacks}. Run `atlas index` again.")
    return table


def manifest_digest(table: pd.DataFrame) -> str:
    """Return a blake2b digest (128 bits, hex) of what defines the samples and their order; where the photos lie has no part in it."""
    rows = table[list(DIGESTED_COLUMNS)].to_numpy(dtype=object).tolist()
    return hashlib.blake2b(json.dumps([DIGESTED_COLUMNS, rows]).encode(), digest_size=16).hexdigest()


def _read_all(root: Path, paths: list[str], workers: int, progress: Callable[[int, int], None]) -> dict[str, ImageHeader]:
    headers: dict[str, ImageHeader] = {}
    pool = ThreadPoolExecutor(workers)
    with warnings.catch_warnings():  # around the pool: warning filters belong to the process, not to a thread
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            for path, header in zip(paths, pool.map(read_header, (root / path for path in paths)), strict=True):
                headers[path] = header
                progress(len(headers), len(paths))
        finally:
            pool.shutdown(cancel_futures=True)  # so that an interrupt need not wait for the whole dataset
    return headers


def _read_regular_file(path: Path) -> ImageHeader:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()
        if file.tell() == 0:
            return ImageHeader(problem="zero bytes")
        file.seek(0)
        try:
            with open_photo(file) as image:
                width, height = image.size
        except PhotoTooLargeError as error:
            return ImageHeader(digest, problem=str(error))
        except Image.UnidentifiedImageError:
            return ImageHeader(digest, problem=f"not an image, or its header is damaged; expected {', '.join(FORMATS)}")
        except (OSError, *UNREADABLE_HEADER) as error:
            return ImageHeader(digest, problem=f"its header is damaged: {' '.join(str(error).split())[:200] or type(error).__name__}")
    if min(height, width) < MINIMUM_SIDE_PX:
        return ImageHeader(digest, height, width, f"too small: {height} x {width} px (height x width), at least {MINIMUM_SIDE_PX} needed")
    return ImageHeader(digest, height, width)
