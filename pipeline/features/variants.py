"""Which images figures and pictures use: those of the flight heights that `dataset.variants` names."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.disk.stamps import stamp
from pipeline.features.state import layout_notes
from pipeline.features.texts import is_of_manifest, texts_of
from pipeline.run.directory import MissingProductError, Run
from pipeline.store.group_store import GroupStore
from stages.index.variants import narrowed, variants_in


def stored_variants(run: Run, store: GroupStore) -> list[str]:
    """Return the flight heights of a store's samples; those that the manifest tells where an earlier version made the store."""
    if is_of_manifest(run, store) or store.has("variant"):
        return texts_of(run, store, "variant")
    listed = dict(zip(run.columns["id"], run.columns["variant"], strict=True))
    return [listed.get(name, "") for name in store.values("sample_id").tolist()]


def texts_digest(run: Run, store: GroupStore) -> str:
    """Digest of what figures know of a store's samples in words."""
    own = str(layout_notes(store)["texts"])
    return own if store.has("variant") else stamp([own, run.texts_stamp])


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
