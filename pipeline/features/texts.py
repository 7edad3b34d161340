"""What a store tells of its samples in words, and which of them are void; from what the manifest and the note of the whole say, where they say it.

Every checkpoint of a run tells the same. At 50,000 images reading it again from each store takes longer than all else that a look does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.features.state import layout_notes
from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore
from stages.schema import SAMPLE_TEXTS


def is_of_manifest(run: Run, store: GroupStore) -> bool:
    """Whether a store's samples are the manifest's, in the same words: images, places, views and all."""
    return bool(layout_notes(store).get("texts") == run.texts_stamp)


def texts_of(run: Run, store: GroupStore, name: str) -> list[str]:
    """Return a text of SAMPLE_TEXTS of each of a store's samples."""
    if is_of_manifest(run, store):
        return run.columns[SAMPLE_TEXTS[name]]
    found: list[str] = store.values(name).tolist()
    return found


def valid_samples(run: Run, store: GroupStore) -> NDArray[np.bool_]:
    """Return which of a store's samples are not void, bool [n]."""
    void = store.ledger.whole().get("quarantined")
    if void is None:  # not whole, or of schema version 1
        found: NDArray[np.bool_] = store.values("valid")
        return found
    if not void:
        return np.ones(store.attributes["samples"], bool)
    return np.array([name not in void for name in texts_of(run, store, "sample_id")], bool)
