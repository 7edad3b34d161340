"""The arrays of a checkpoint's heat maps: two a map key, the maps and their facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.store.group_store import GroupStore
from pipeline.store.layout import ArrayLayout, array_layout
from safenet.architecture import Architecture
from stages.cam.facts import FACTS, STATUS
from stages.cam.map_keys import MapKey
from stages.cam.methods import METHODS
from stages.cam.names import ON_ALIGNED_GRID
from stages.cam.settings import LOW_CONTRAST_BELOW
from stages.schema import CAMS_SCHEMA_VERSION, Variable

CHUNK_SAMPLES = 32  # of a map: what is read for the sake of one image
_FACT_CHUNK_SAMPLES = 256  # of its facts, which are few: a file is no longer than its images need, up to the last chunk


def lay_out_maps(features: GroupStore, cams: GroupStore, block_samples: int, map_keys: Sequence[MapKey], stamps: Mapping[str, str]) -> None:
    """Make the arrays that are not there, or that were made of other features; make room where the dataset has grown."""
    samples = features.attributes["samples"]
    if not cams.is_laid_out or cams.attributes["samples"] > samples:
        cams.clear()
        lay_out_group(features, cams, samples, block_samples)
    elif cams.attributes["samples"] < samples:
        cams.extend(samples)
    tell_of_checkpoint(features, cams)
    made = cams.attributes_by_array(key for p in map_keys for key in (p.key, p.facts_key))
    missing = [p for p in map_keys if made.get(p.key, {}).get("stamp") != stamps[p.key] or p.facts_key not in made]
    cams.add_arrays(layouts_of(features, cams, missing, stamps))


def tell_of_checkpoint(features: GroupStore, cams: GroupStore) -> None:
    """Bring up to date what the maps tell of their checkpoint, where the features tell something else."""
    told = _told(features)
    if any(cams.attributes.get(key) != value for key, value in told.items()):
        cams.update_attributes(told)


def lay_out_group(features: GroupStore, cams: GroupStore, samples: int, block_samples: int, exactness: Mapping[str, Any] | None = None) -> None:
    """Make the group, without arrays."""
    more = {"exactness": exactness} if exactness else {}
    cams.lay_out(samples, block_samples, {"schema_version": CAMS_SCHEMA_VERSION, **_told(features), **more})


def layouts_of(features: GroupStore, cams: GroupStore, map_keys: Sequence[MapKey], stamps: Mapping[str, str]) -> list[ArrayLayout]:
    """Two arrays a map, as they lie in the group."""
    network = Architecture(**features.attributes["architecture"])
    samples, block_samples = cams.attributes["samples"], cams.attributes["block_samples"]
    grid = network.image_size // network.patch_size
    sizes = {"sample": samples, "y": grid, "x": grid, "fact": len(FACTS)}
    return [
        array_layout(variable, "float32", sizes, block_samples, chunk, attributes={"stamp": stamps[map_key.key], **described})
        for map_key in map_keys
        for (variable, described), chunk in zip(_described(map_key, network.is_linear), (CHUNK_SAMPLES, _FACT_CHUNK_SAMPLES), strict=True)
    ]


def _told(features: GroupStore) -> dict[str, Any]:
    """What the maps tell of their checkpoint."""
    return {"epoch": features.attributes["epoch"], "checkpoint": features.attributes["checkpoint_file"]}


def _described(map_key: MapKey, is_linear: bool) -> list[tuple[Variable, dict[str, Any]]]:
    """The two arrays of a map, and what their attributes tell."""
    method, frame = METHODS[map_key.method], "aligned" if map_key.position in ON_ALIGNED_GRID else "patch"
    what = f"{map_key.method} at {map_key.position}, target {map_key.target}"
    codes = {str(code): row.name for code, row in STATUS.items()}
    facts = {"facts": list(FACTS), "status": codes, "low_contrast_below": LOW_CONTRAST_BELOW}
    return [
        (
            Variable(map_key.key, ("sample", "y", "x"), "float32", what, frame=frame),
            {"kind": method.kind, "additive": map_key.additive, "exact": map_key.exact and is_linear, "source": method.source},
        ),
        (Variable(map_key.facts_key, ("sample", "fact"), "float32", f"facts of {what}"), facts),
    ]
