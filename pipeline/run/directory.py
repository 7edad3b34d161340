"""A run's directory: where its products lie, and how to open them."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from pipeline.disk.locks import locked
from pipeline.disk.places import Place, place_of
from pipeline.disk.stamps import stamp
from pipeline.run.manifest import manifest_digest, read_manifest
from pipeline.settings.all import Settings
from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from pipeline.work.share import WHOLE, Share
from stages.schema import SAMPLE_TEXTS


class MissingProductError(FileNotFoundError):
    """A stage's input is not there or not whole; the message names the command that makes it."""


class StaleStoreError(ValueError):
    """Stored features were made with other settings; they are never overwritten unasked."""


@dataclass(frozen=True)
class Run:
    """A run.

    Parameters
    ----------
    directory : Path or ObjectPath
        A text may be given as well, and be a URL.
    settings : Settings
    progress : bool
        Show progress bars.
    share : Share
        The share of the work that this process does.
    """

    directory: Place
    settings: Settings
    progress: bool = True
    share: Share = WHOLE

    def __reduce__(self) -> tuple[Any, ...]:
        """Without what was read: another process reads its own."""
        return Run, (self.directory, self.settings, self.progress, self.share)

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", place_of(self.directory))

    def say(self, text: str) -> None:
        """Tell the user; standard output is for results, progress bars go to standard error."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    @property
    def manifest_path(self) -> Place:
        """One row per image."""
        return self.directory / "manifest.parquet"

    @property
    def features_path(self) -> Place:
        """Zarr store of features."""
        return self.directory / "features.zarr"

    @property
    def cams_path(self) -> Place:
        """Zarr store of heat maps."""
        return self.directory / "cams.zarr"

    @property
    def figures_path(self) -> Place:
        """Zarr store of the figures of images."""
        return self.directory / "figures.zarr"

    @property
    def stats_path(self) -> Place:
        """Zarr store of the figures of checkpoints."""
        return self.directory / "stats.zarr"

    @property
    def pixels_path(self) -> Place:
        """Zarr store of curves in pixel space, of the optional stage."""
        return self.directory / "pixels.zarr"

    @property
    def mosaics_path(self) -> Place:
        """Folder of pictures."""
        return self.directory / "mosaics"

    @property
    def report_path(self) -> Place:
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
        return {name: self.manifest[name].tolist() for name in ("problem", *SAMPLE_TEXTS.values())}

    @cached_property
    def images_stamp(self) -> str:
        """Digest of the list of images."""
        return stamp(self.columns["digest"])

    @cached_property
    def texts_stamp(self) -> str:
        """Digest of what stores tell of their samples in words."""
        return stamp(self.manifest[list(SAMPLE_TEXTS.values())].to_numpy(dtype=object).tolist())

    def locked(self, product: str, *, wait: bool = False, shared: bool = False) -> AbstractContextManager[None]:
        """Hold the lock of a product, such as "manifest" or "features/net_000"; one process at a time may write it, or several that share."""
        return locked(self.directory / "locks" / f"{product}.lock", f"{self.directory}: {product}", wait=wait, shared=shared)

    def ledger(self, product: str) -> Place:
        """Folder of the proofs of a product, such as "stats"."""
        return self.directory / "ledger" / product

    def features(self, name: str) -> GroupStore:
        """Feature store of a checkpoint."""
        return GroupStore(self.features_path, name)

    def cams(self, name: str) -> GroupStore:
        """Heat-map store of a checkpoint."""
        return GroupStore(self.cams_path, name)

    def figures(self, name: str) -> GroupStore:
        """Store of the figures of a checkpoint's images."""
        return GroupStore(self.figures_path, name)
