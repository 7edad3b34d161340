"""Targets that the samples of a checkpoint cannot have: refused before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.cam.references import References
from pipeline.index.missing_views import view_refusal
from pipeline.store.group_store import GroupStore
from stages.naming import suggestion
from stages.targets.names import TargetName
from stages.targets.references import UNDEFINED
from stages.targets.scoring import check_target


def check_targets(features: GroupStore, targets: Sequence[str]) -> None:
    """Refuse targets that no sample of this checkpoint has.

    Raises
    ------
    ValueError
        One line: what the target lacks, and which to use instead.
    """
    references, names = References(features), features.attributes["class_names"]
    architecture = features.attributes["architecture"]
    for text in targets:
        target = check_target(text, architecture["parts"], names or None)
        if (reason := _REFUSALS[target.row.kind](references, features, target)) != "":
            raise ValueError(f"{features}: target {text!r}{reason}")


def _class_refusal(references: References, features: GroupStore, target: TargetName) -> str:
    classes = features.attributes["architecture"]["classes"]
    if target.base in ("label", "class_") and not features.attributes["class_names"]:
        return (
            f" needs the names of the {classes} training classes, and neither the checkpoint nor the manifest's "
            f"training places give them. Index the training split too, or use another target"
        )
    if target.base == "label" and (references.class_index == UNDEFINED).all():
        return ": none of the images shows a trained place. Use target 'match_share' or 'predicted'"
    return ": the network has one class, and no second best. Use 'predicted'" if target.base == "counter" and classes < 2 else ""


def _similarity_refusal(references: References, features: GroupStore, target: TargetName) -> str:
    if target.flip and not features.has("flip_embedding"):
        return " needs flip_embedding, which was not stored. Add it to extract.store and extract again, or leave .flip out"
    if target.row.who in ("match", "best"):
        return view_refusal(references.groups, target)
    if target.row.who == "pair":
        if target.name not in references.sample_ids:
            return f": no image has the id {target.name!r}.{suggestion(target.name, references.sample_ids)} The manifest's column `id` lists them"
        number = references.sample_ids.index(target.name)
        if not bool(features.values("valid")[number]):
            return ": that image is void, and has no embedding. `atlas status --bad` says why"
        if target.row.reading == "contrast" and references.groups.own_family[number] == UNDEFINED:
            return ": there is no gallery of that image's view and split to compare with. Use pair_share_"
    return ""


_REFUSALS: dict[str, Callable[[References, GroupStore, TargetName], str]] = {"class": _class_refusal, "similarity": _similarity_refusal}
