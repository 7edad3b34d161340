"""Targets that need another view when the manifest lists none: reported before features are extracted for them."""

from __future__ import annotations

from pipeline.run.directory import Run
from stages.cam.map_keys import map_keys_of
from stages.targets.names import NO_TARGET, TargetName, parse_target
from stages.targets.references import UNDEFINED, ReferenceGroups, reference_groups


def missing_views(run: Run) -> str:
    """Which of cam.targets needs another view, where the manifest lists none; in a line, empty where all is there."""
    table = run.manifest
    place, view, split, roles = (table[name].tolist() for name in ("place", "view", "split", "roles"))
    groups = reference_groups(place, view, split, roles, (table["problem"] == "").tolist())
    targets = dict.fromkeys(p.target for p in map_keys_of(run.settings.cam) if p.target != NO_TARGET and not p.is_stored_gradient)
    reasons = ((text, view_refusal(groups, parse_target(text))) for text in targets)
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


def view_refusal(groups: ReferenceGroups, target: TargetName) -> str:
    """Say, to be put behind a target, why no image has it; empty where one has."""
    if target.row.who == "match" and not (groups.wanted != UNDEFINED).any():
        return " needs images of the same place in another view, and there are none. Use target 'predicted'"
    if target.row.who == "best" and not (groups.other_family != UNDEFINED).any():
        return " needs gallery images of another view, and there are none. Use target 'predicted'"
    return ""
