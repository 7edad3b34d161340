"""Which of a run's images figures and pictures look at: those of the flight heights that `dataset.variants` names."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.feature_state import layout_notes
from pipeline.run import MissingProductError, Run
from pipeline.stores import GroupStore
from stages.variants import narrowed, variants_in


def stored_variants(run: Run, store: GroupStore) -> list[str]:
    """Return the flight heights of a store's samples; all "" where an earlier version made it.

    Raises
    ------
    MissingProductError
        If some of them are to be chosen, and the store is of an earlier version.
    """
    if layout_notes(store)["texts"] == run.texts_stamp:  # the manifest says the same, and is read already
        return run.columns["variant"]
    if store.has("variant"):
        found: list[str] = store.read(["variant"])["variant"].values.tolist()
        return found
    if chosen_of(run, run.columns["variant"], str(run.manifest_path)):
        raise MissingProductError(f"{store}: does not tell its images' flight heights, which dataset.variants chooses by; run `atlas extract` first")
    return [""] * int(store.attributes["samples"])


def chosen_of(run: Run, texts: Sequence[str], where: str) -> list[str]:
    """Return the flight heights that the settings choose of those of some images; empty: all of them.

    Raises
    ------
    MissingProductError
        If one is asked for that no image has.
    """
    asked = run.settings.dataset.variants if run.settings.dataset is not None else ()
    present = variants_in(texts)
    missing = [name for name in asked if name not in present]
    if missing:
        raise MissingProductError(
            f"{where}: dataset.variants asks for [{', '.join(missing)}], but its images have [{', '.join(present)}]. "
            f"Name some of these, or run `atlas index` and `atlas extract` to add what is missing"
        )
    return narrowed(texts, asked)
