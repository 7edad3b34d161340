"""What runs of earlier schema versions hold and lack, in one place.

Version 1: no seals; marks without checksum of their own, without images and times; the list of images is vouched for by
one digest of the manifest in `made_with`, and so part of every stamp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from pipeline.disk.records import write_record
from pipeline.disk.stamps import stamp
from pipeline.run.directory import Run
from pipeline.run.manifest import manifest_digest
from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import check_version


def refuse_later(store: GroupStore) -> None:
    """Raise a ValueError if a later version wrote a store, before anything is written over; damaged metadata tell no version, and are made anew."""
    if store.exists and not store.seal.is_open and store.seal.fault("zarr.json") is None:
        check_version(str(store), store.attributes)


def is_unsealed(store: GroupStore) -> bool:
    """Whether a feature store was finished by schema version 1 and not brought up to date since, or has lost its seal."""
    return store.exists and not store.seal.exists and bool(store.attributes.get("created"))


def notes_of_unsealed(store: GroupStore) -> dict[str, Any]:
    """What its seal would note, from the attributes and from how its files are cut."""
    attributes = store.attributes
    array = store.described(attributes["block_arrays"][0])
    return {
        "made_with": attributes["made_with"],
        "samples": attributes["samples"],
        "block_samples": array.file_samples,
        "chunk_samples": array.chunk_samples if array.is_sharded else 0,
        "block_arrays": attributes["block_arrays"],
        "texts": "",
    }


def images_of_version_1(run: Run, notes: Mapping[str, Any], block: Block, stop: int) -> list[str]:
    """Digests of a block's images up to sample `stop`: the manifest's, where the store's digest of the whole list vouches for it."""
    first = run.manifest.iloc[: notes["samples"]]
    digest = run.manifest_digest if len(first) == len(run.manifest) else manifest_digest(first)  # of the whole list: reckoned once a run
    same = digest == notes["made_with"].get("manifest")
    digests: list[str] = first["digest"].tolist()[block.start : stop]
    return digests if same else ["unknown"] * (stop - block.start)


def upgrade_marks(run: Run, store: GroupStore, made_with: Mapping[str, Any]) -> None:
    """Let the marks of an unsealed store name their images, under today's stamp; values are not touched. May be called again."""
    if not is_unsealed(store):
        return
    notes, mark = notes_of_unsealed(store), stamp(made_with)
    for index in store.ledger.indices():
        record = store.ledger.record_of(index)
        if record and not record.get("images"):
            start, stop = record["rows"]
            arrays = {name: {**made, "stamp": mark} for name, made in record["arrays"].items()}
            images = images_of_version_1(run, notes, Block(index, start, stop), stop)
            write_record(store.ledger.directory / f"{index:06d}.json", {**record, "arrays": arrays, "images": images})


def figures_of_today(found: xr.Dataset) -> xr.Dataset:
    """Figures under the names that they have now: what versions up to 3 of `stats` called flat is low contrast."""
    renamed = found.rename({"flat": "low_contrast"}) if "flat" in found else found
    if "status" not in renamed.coords:
        return renamed
    names = ["low contrast" if name == "flat" else name for name in renamed["status"].values]
    return renamed.assign_coords(status=np.array(names, dtype=object))
