"""Images that could not be used: which, why, and since when; and how many are too many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pandas as pd

from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import known_groups


class TooManyBadImagesError(ValueError):
    """More images are void than `extract.max_bad_share` allows."""


@dataclass(frozen=True)
class BadImage:
    """Why an image is void, and when that was first seen (ISO 8601, UTC; empty: before such times were noted)."""

    reason: str
    since: str

    def __str__(self) -> str:
        return self.reason

    def as_dict(self) -> dict[str, str]:
        """As a block's mark holds it."""
        return asdict(self)


def listed_bad_images(manifest: pd.DataFrame) -> dict[str, BadImage]:
    """Return sample id -> fault of the images that the index found to be bad."""
    bad = manifest.loc[manifest["problem"] != ""]
    return {name: BadImage(*fault) for name, *fault in zip(bad["id"], bad["problem"], bad["problem_since"], strict=True)}


def bad_images_of(store: GroupStore) -> dict[str, BadImage]:
    """Return sample id -> fault of the void images of a feature store, from the marks of its blocks."""
    whole = store.ledger.whole()
    notes = [whole] if "quarantined" in whole else store.ledger.records_of(store.ledger.indices())
    faults = {name: fault for note in notes for name, fault in note.get("quarantined", {}).items()}
    return {name: BadImage(fault, "") if isinstance(fault, str) else BadImage(**fault) for name, fault in faults.items()}  # a str: schema version 1


def bad_images(run: Run) -> dict[str, BadImage]:
    """Return sample id -> fault, of all checkpoints and of the manifest."""
    found = listed_bad_images(run.manifest)
    for name in known_groups(run.features_path):
        found |= bad_images_of(run.features(name))
    return found


def check_bad_share(run: Run, problems: Mapping[str, BadImage]) -> None:
    """Raise a TooManyBadImagesError if more than the allowed share of the images is bad."""
    allowed, total = run.settings.extract.max_bad_share, len(run.manifest)
    if len(problems) > allowed * total:
        name, fault = next(iter(problems.items()))
        raise TooManyBadImagesError(
            f"{len(problems)} of {total} images are bad (for instance {name}: {fault.reason}), more than extract.max_bad_share = {allowed} allows. "
            f"Repair the dataset and run `atlas index`, or raise the share"
        )
