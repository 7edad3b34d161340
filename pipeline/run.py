"""A run's directory: where its products lie, and how to open them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.blocks import Ledger
from pipeline.config import Settings
from pipeline.index import manifest_digest, read_manifest
from pipeline.stores import GroupStore, checkpoint_order, group_names


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

    def ledger(self, store: str, name: str) -> Ledger:
        """Records of a store's group."""
        return Ledger(self.directory / "ledger" / store / name)

    def features(self, name: str) -> GroupStore:
        """Feature store of a checkpoint."""
        return GroupStore(self.features_path, name)

    def cams(self, name: str) -> GroupStore:
        """Heat-map store of a checkpoint."""
        return GroupStore(self.cams_path, name)

    def checkpoints(self, partial: bool = False) -> list[str]:
        """Names of the extracted checkpoints, by epoch.

        Raises
        ------
        MissingProductError
            If there are none, or one is unfinished (and `partial` is not set).
        """
        epochs = {}
        for name in group_names(self.features_path):
            attributes = self.features(name).attributes
            missing = self.missing_blocks(name, attributes)
            if missing and not partial:
                total = -(-attributes["samples"] // attributes["block_samples"])
                raise MissingProductError(
                    f"{self.features_path}/{name}: unfinished, {missing} of {total} blocks missing; run `atlas extract` again, or pass --partial"
                )
            if not missing:
                epochs[name] = attributes["epoch"]
        if not epochs:
            raise MissingProductError(f"{self.features_path}: no features; run `atlas extract` first")
        return checkpoint_order(epochs)

    def check_same_images(self, name: str) -> None:
        """Raise a StaleStoreError if a checkpoint's features were made of another list of images than the manifest's."""
        if self.features(name).attributes["made_with"]["manifest"] != self.manifest_digest:
            raise StaleStoreError(
                f"{self.features_path}/{name}: made of another list of images than {self.manifest_path} now holds. "
                f"Run `atlas extract --replace`, or index the former images again"
            )

    def missing_blocks(self, name: str, attributes: dict[str, Any]) -> int:
        """Count the blocks of a checkpoint's features that are not proven done."""
        ledger, store = self.ledger("features", name), self.features(name)
        stamps = dict.fromkeys(attributes["block_arrays"], attributes["stamp"])
        return sum(not (ledger.is_done(block, stamps) and store.holds(stamps, block)) for block in store.blocks)
