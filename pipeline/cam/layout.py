"""The arrays of a checkpoint's heat maps: two per product, the maps and their facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.features.state import layout_notes
from pipeline.store.group_store import GroupStore
from pipeline.store.layout import array_layout
from safenet.architecture import Architecture
from stages.cam.facts import FACTS, STATUS
from stages.cam.map_keys import MapKey
from stages.cam.methods import METHODS
from stages.cam.names import ON_ALIGNED_GRID
from stages.cam.settings import LOW_CONTRAST_BELOW
from stages.schema import Variable


def lay_out_maps(features: GroupStore, cams: GroupStore, map_keys: Sequence[MapKey], stamps: Mapping[str, str]) -> None:
    """Make the arrays that are not there, or that were made of other features; make room where the dataset has grown."""
    attributes = features.attributes
    samples, block_samples = attributes["samples"], layout_notes(features)["block_samples"]
    told = {"epoch": attributes["epoch"], "checkpoint": attributes["checkpoint_file"]}
    if not cams.is_laid_out or cams.attributes["block_samples"] != block_samples or cams.attributes["samples"] > samples:
        cams.clear()
        cams.lay_out(samples, block_samples, told)
    elif cams.attributes["samples"] < samples:
        cams.extend(samples)
    if any(cams.attributes.get(key) != value for key, value in told.items()):  # the features' were brought up to date
        cams.update_attributes(told)
    grid = attributes["architecture"]["image_size"] // attributes["architecture"]["patch_size"]
    sizes = {"sample": samples, "y": grid, "x": grid, "fact": len(FACTS)}
    is_linear = Architecture(**attributes["architecture"]).is_linear
    made = cams.attributes_by_array(key for p in map_keys for key in (p.key, p.facts_key))
    missing = [p for p in map_keys if made.get(p.key, {}).get("stamp") != stamps[p.key] or p.facts_key not in made]
    cams.add_arrays(
        [
            array_layout(variable, "float32", sizes, block_samples, attributes={"stamp": stamps[map_key.key], **described})
            for map_key in missing
            for variable, described in _described(map_key, is_linear)
        ]
    )


def _described(map_key: MapKey, is_linear: bool) -> list[tuple[Variable, dict[str, Any]]]:
    """The two arrays of a product, and what their attributes tell."""
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
