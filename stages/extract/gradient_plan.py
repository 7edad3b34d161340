"""Which heat maps at transformer blocks are asked for, checked against a network before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safenet.architecture import Architecture
from stages.extract.settings import GRADIENT_TARGETS, ExtractSettings, class_target
from stages.naming import known
from stages.targets.head_weights import head_weights
from stages.targets.names import TargetName


@dataclass(frozen=True)
class GradientPlan:
    """Which scores are traced back to which blocks; made, and checked, by `plan_gradients`.

    Attributes
    ----------
    targets : tuple of TargetName
        Of classes.
    blocks : tuple of int
        Ascending, at least one; the lowest is where the graph starts.
    parts : int
    class_names : tuple of str
    """

    targets: tuple[TargetName, ...]
    blocks: tuple[int, ...]
    parts: int
    class_names: tuple[str, ...] = ()

    @property
    def needs_label(self) -> bool:
        """Whether a target is the class of the image's own place."""
        return any(target.base == "label" for target in self.targets)


def asked_gradients(settings: ExtractSettings, architecture: Architecture, class_names: Sequence[str]) -> GradientPlan | None:
    """Check the heat maps at blocks that the settings ask for against a network, as `plan_gradients` does; None where they ask for none."""
    if not settings.gradient_targets:
        return None
    return plan_gradients(settings.gradient_targets, settings.gradient_blocks or range(architecture.depth), architecture, class_names)


def plan_gradients(targets: Sequence[str], blocks: Sequence[int], architecture: Architecture, class_names: Sequence[str]) -> GradientPlan:
    """Check targets and blocks against a network, before anything is computed.

    Parameters
    ----------
    targets : sequence of str
    blocks : sequence of int
        Ascending.
    architecture : Architecture
    class_names : sequence of str
        Training places in the order of the logits; empty where they are not known.

    Raises
    ------
    ValueError
        If a block or part does not exist, a class is unknown, or a target needs more classes or names than there are.
    """
    if blocks[-1] >= architecture.depth:
        raise ValueError(f"extract.gradient_blocks: block {blocks[-1]} does not exist: the network has blocks 0 to {architecture.depth - 1}")
    parsed = tuple(class_target(text) for text in targets)
    for target in parsed:
        _check_target(target, architecture, class_names)
    return GradientPlan(parsed, tuple(blocks), architecture.parts, tuple(class_names))


def _check_target(target: TargetName, architecture: Architecture, class_names: Sequence[str]) -> None:
    try:
        head_weights(target, architecture.parts)
    except ValueError as error:
        raise ValueError(f"{GRADIENT_TARGETS}: {error}") from None
    if target.row.who in ("label", "class") and not class_names:
        raise ValueError(
            f"{GRADIENT_TARGETS}: {str(target)!r} needs the names of the {architecture.classes} training classes, and neither the checkpoint nor the "
            f"manifest's training places give them. Index the training split too, or use 'predicted'"
        )
    if target.row.who == "class":
        known(target.name, class_names, f"{GRADIENT_TARGETS}: class of {str(target)!r}")
    if target.row.who == "counter" and architecture.classes < 2:
        raise ValueError(f"{GRADIENT_TARGETS}: {str(target)!r} needs a second class; the network has {architecture.classes}. Use 'predicted'")
