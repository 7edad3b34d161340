"""Which images each checkpoint's curves are measured on: the same ones for all checkpoints, except those whose maps are not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.pixels.inputs import CurveInputs
from pipeline.run.directory import Run
from stages.cam.facts import FACTS, STATUS
from stages.spreading import spread
from stages.targets.names import NO_TARGET, TargetName
from stages.wording import counted

_CODES = {row.name: code for code, row in STATUS.items()}


@dataclass(frozen=True)
class ChosenImages:
    """What a checkpoint's maps say of the images that are looked at, as their numbers.

    Attributes
    ----------
    used : list of int
        A map of the target is finite.
    spoilt : list of int
        They have the target, and no map of it is finite.
    without : list of int
        They do not have the target.
    methods : tuple of str
        Methods whose maps are not finite for any of them.
    """

    used: list[int]
    spoilt: list[int]
    without: list[int]
    methods: tuple[str, ...]

    def why_none(self, target: TargetName) -> str:
        """Why no image can be used, in words; empty where one can."""
        if self.used:
            return ""
        if self.spoilt:
            return f"no map of {target} is finite, on {counted(len(self.spoilt), 'image')} that have it"
        return f"no image has the target {str(target)!r}"


def choose_images(run: Run, inputs: Sequence[CurveInputs]) -> dict[str, ChosenImages]:
    """Spread over the images that have the target in any checkpoint, finite or not, so that all checkpoints are measured on the same ones."""
    status = {one.name: _status(run, one) for one in inputs}
    there = sorted({sample for found in status.values() for sample in np.flatnonzero((found.of_target != _CODES["absent"]).any(axis=0)).tolist()})
    chosen = [there[index] for index in spread(len(there), run.settings.pixels.samples)]
    return {one.name: _judge(one, status[one.name], chosen) for one in inputs}


@dataclass(frozen=True)
class _Status:
    """Status of all maps of a checkpoint, and of those that have the target: codes [product, sample]."""

    of_all: NDArray[np.floating]
    of_target: NDArray[np.floating]


def _status(run: Run, one: CurveInputs) -> _Status:
    facts = run.cams(one.name).read([map_key.facts_key for map_key in one.map_keys])
    codes = np.stack([facts[map_key.facts_key].values[:, FACTS.index("status")] for map_key in one.map_keys])
    return _Status(codes, codes[[map_key.target != NO_TARGET for map_key in one.map_keys]])


def _judge(one: CurveInputs, status: _Status, chosen: Sequence[int]) -> ChosenImages:
    rows = np.array([sample for sample in chosen if sample < status.of_all.shape[1]], np.int64)  # the dataset may have grown since
    bad = [_CODES["absent"], _CODES["not finite"]]
    used = rows[~np.isin(status.of_target[:, rows], bad).all(axis=0)]
    without = rows[(status.of_target[:, rows] == _CODES["absent"]).all(axis=0)]
    spoilt = sorted({*rows.tolist()} - {*used.tolist()} - {*without.tolist()})
    lost = np.asarray(np.isin(status.of_all[:, used], bad))
    methods = tuple(map_key.method for map_key, row in zip(one.map_keys, lost, strict=True) if row.all())
    return ChosenImages(used.tolist(), spoilt, without.tolist(), methods)


def why_nothing(run: Run, inputs: Sequence[CurveInputs], images: Mapping[str, ChosenImages]) -> str:
    """The refusal where no checkpoint has an image that can be used: of one whose maps are not finite, if there is one."""
    one = max(inputs, key=lambda one: len(images[one.name].spoilt))
    remedy = "`atlas status` says what is not finite" if images[one.name].spoilt else "name another in pixels.target"
    return f"{run.cams(one.name)}: {images[one.name].why_none(one.target)}; {remedy}"


def left_out(run: Run, one: CurveInputs, images: ChosenImages) -> Iterator[str]:
    """A line where the checkpoint is left out; else one for the methods, and one a reason for the images, that are."""
    if reason := images.why_none(one.target):
        yield f"{one.name} is left out: {reason}"
        return
    if images.methods:
        yield f"{one.name}: left out: {', '.join(images.methods)}, not finite for any of its {counted(len(images.used), 'image')}"
    ids = run.features(one.name).values("sample_id")
    for samples, why in ((images.spoilt, "maps that are not finite"), (images.without, f"lack of the target {str(one.target)!r}")):
        if samples:
            shown = ", ".join(ids[samples[:3]]) + (", ..." if len(samples) > 3 else "")
            yield f"{one.name}: {counted(len(samples), 'image')} left out for {why}: {shown}"
