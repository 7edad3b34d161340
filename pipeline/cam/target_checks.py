"""Targets that the samples of a checkpoint cannot have: refused before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.cam.references import Compared
from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore
from stages.cam.products import products_of
from stages.naming import suggestion
from stages.targets.names import NO_TARGET, TargetName, parse_target
from stages.targets.references import UNDEFINED, ReferenceGroups, reference_groups
from stages.targets.scoring import check_target


def check_targets(features: GroupStore, targets: Sequence[str]) -> None:
    """Refuse targets that no sample of this checkpoint has.

    Raises
    ------
    ValueError
        One line: what the target lacks, and which to use instead.
    """
    compared, names = Compared(features), features.attributes["class_names"]
    architecture = features.attributes["architecture"]
    for text in targets:
        target = check_target(text, architecture["parts"], names or None)
        if (reason := _REFUSALS[target.row.kind](compared, features, target)) != "":
            raise ValueError(f"{features}: target {text!r}{reason}")


def missing_views(run: Run) -> str:
    """Which of cam.targets needs another view, where the manifest lists none; in a line, empty where all is there."""
    table = run.manifest
    place, view, split, roles = (table[name].tolist() for name in ("place", "view", "split", "roles"))
    groups = reference_groups(place, view, split, roles, (table["problem"] == "").tolist())
    targets = dict.fromkeys(p.target for p in products_of(run.settings.cam) if p.target != NO_TARGET and not p.is_stored_gradient)
    reasons = ((text, _view_refusal(groups, parse_target(text))) for text in targets)
    return next((f"{run.manifest_path}: cam.targets: {text!r}{reason}" for text, reason in reasons if reason), "")


def check_views(run: Run) -> None:
    """Refuse targets of cam.targets that need another view where the manifest lists none, before features are extracted for them.

    Raises
    ------
    ValueError
        One line: what the target lacks, and which to use instead.
    """
    if reason := missing_views(run):
        raise ValueError(reason)


def _class_refusal(compared: Compared, features: GroupStore, target: TargetName) -> str:
    classes = features.attributes["architecture"]["classes"]
    if target.base in ("label", "class_") and not features.attributes["class_names"]:
        return (
            f" needs the names of the {classes} training classes, and neither the checkpoint nor the manifest's "
            f"training places give them. Index the training split too, or use another target"
        )
    if target.base == "label" and (compared.class_index == UNDEFINED).all():
        return ": none of the images shows a trained place. Use target 'match_share' or 'predicted'"
    return ": the network has one class, and no second best. Use 'predicted'" if target.base == "counter" and classes < 2 else ""


def _similarity_refusal(compared: Compared, features: GroupStore, target: TargetName) -> str:
    if target.flip and not features.has("flip_embedding"):
        return " needs flip_embedding, which was not stored. Add it to extract.store and extract again, or leave .flip out"
    if target.row.who in ("match", "best"):
        return _view_refusal(compared.groups, target)
    if target.row.who == "pair":
        if target.name not in compared.sample_ids:
            return f": no image has the id {target.name!r}.{suggestion(target.name, compared.sample_ids)} The manifest's column `id` lists them"
        number = compared.sample_ids.index(target.name)
        if not bool(features.read(["valid"])["valid"].values[number]):
            return ": that image is void, and has no embedding. `atlas status --bad` says why"
        if target.row.reading == "contrast" and compared.groups.own_family[number] == UNDEFINED:
            return ": there is no gallery of that image's view and split to compare with. Use pair_share_"
    return ""


def _view_refusal(groups: ReferenceGroups, target: TargetName) -> str:
    if target.row.who == "match" and not (groups.wanted != UNDEFINED).any():
        return " needs images of the same place in another view, and there are none. Use target 'predicted'"
    if target.row.who == "best" and not (groups.other_family != UNDEFINED).any():
        return " needs gallery images of another view, and there are none. Use target 'predicted'"
    return ""


_REFUSALS: dict[str, Callable[[Compared, GroupStore, TargetName], str]] = {"class": _class_refusal, "similarity": _similarity_refusal}
