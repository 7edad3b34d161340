"""A run's directory: where its products lie, and how to open them."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from pipeline.blocks import Block
from pipeline.config import Settings
from pipeline.index import manifest_digest, read_manifest
from pipeline.locks import locked
from pipeline.stamps import stamp
from pipeline.stores import GroupStore
from stages.schema import SAMPLE_TEXTS


class MissingProductError(FileNotFoundError):
    """A stage's input is not there or not whole; the message names the command that makes it."""


class StaleStoreError(ValueError):
    """Stored features were made with other settings; they are never overwritten unasked."""


@dataclass(frozen=True)
class Outcome:
    """What a stage did, in a line."""

    stage: str
    computed: int
    fresh: int
    unit: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        work = f"{self.computed} {self.unit} computed" if self.computed else "nothing to compute"
        return f"{self.stage}: {work}, {self.fresh} up to date" + "".join(f"\n  {note}" for note in self.notes)


@dataclass(frozen=True)
class Run:
    """A run.

    Parameters
    ----------
    directory : Path
    settings : Settings
    progress : bool
        Show progress bars.
    """

    directory: Path
    settings: Settings
    progress: bool = True

    def say(self, text: str) -> None:
        """Tell the user; standard output is for results, progress bars go to standard error."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    @property
    def manifest_path(self) -> Path:
        """One row an image."""
        return self.directory / "manifest.parquet"

    @property
    def features_path(self) -> Path:
        """Zarr store of features."""
        return self.directory / "features.zarr"

    @property
    def cams_path(self) -> Path:
        """Zarr store of heat maps."""
        return self.directory / "cams.zarr"

    @property
    def stats_path(self) -> Path:
        """Zarr store of figures."""
        return self.directory / "stats.zarr"

    @property
    def pixels_path(self) -> Path:
        """Zarr store of curves in pixel space, of the optional stage."""
        return self.directory / "pixels.zarr"

    @property
    def mosaics_path(self) -> Path:
        """Folder of pictures."""
        return self.directory / "mosaics"

    @property
    def report_path(self) -> Path:
        """The page."""
        return self.directory / "report" / "index.html"

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """The manifest; FileNotFoundError where there is none."""
        return read_manifest(self.manifest_path)

    @cached_property
    def manifest_digest(self) -> str:
        """Digest of what defines the samples."""
        return manifest_digest(self.manifest)

    def images(self, block: Block) -> list[str]:
        """Digests of a block's images."""
        return self.columns["digest"][block.rows]

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """The manifest's columns of text as lists, for what is asked block by block."""
        return {name: self.manifest[name].tolist() for name in ("id", "digest", "problem")}

    @cached_property
    def texts_stamp(self) -> str:
        """Digest of what stores tell of their samples in words."""
        return stamp(self.manifest[list(SAMPLE_TEXTS.values())].to_numpy(dtype=object).tolist())

    def locked(self, product: str) -> AbstractContextManager[None]:
        """Hold the lock of a product, such as "manifest" or "features/net_000"; one process at a time may write it."""
        return locked(self.directory / "locks" / f"{product}.lock", f"{self.directory}: {product}")

    def features(self, name: str) -> GroupStore:
        """Feature store of a checkpoint."""
        return GroupStore(self.features_path, name)

    def cams(self, name: str) -> GroupStore:
        """Heat-map store of a checkpoint."""
        return GroupStore(self.cams_path, name)
