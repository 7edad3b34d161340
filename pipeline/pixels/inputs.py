"""What the curves of a checkpoint are made from, and whether stored curves are up to date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cam.staleness import finished_stamps
from pipeline.cam.wanted import wanted_map_keys
from pipeline.checkpoints.files import CheckpointFile
from pipeline.disk.stamps import stamp
from pipeline.features.finished import content_stamp
from pipeline.run.directory import MissingProductError, Run
from pipeline.store.tables import is_made_of
from stages.cam.map_keys import MapKey
from stages.targets.names import NO_TARGET, TargetName, parse_target

VERSION = 4


@dataclass(frozen=True)
class CurveInputs:
    """What a checkpoint's curves are made with."""

    name: str
    file: Path
    target: TargetName
    map_keys: Sequence[MapKey]
    made_with: dict[str, Any]

    @property
    def stamp(self) -> str:
        """Digest of it."""
        return stamp(self.made_with)

    def on(self, samples: Sequence[int]) -> CurveInputs:
        """The same, on these images."""
        return replace(self, made_with={**self.made_with, "samples": list(samples)})


def inputs_of(run: Run, name: str, file: CheckpointFile | None) -> CurveInputs:
    """Say what a checkpoint's curves are to be made of.

    Raises
    ------
    MissingProductError
        If heat maps or the checkpoint's file are missing.
    ValueError
        If there are no maps of the target at aligned, or the file is not the one that the features were made with.
    """
    features, settings = run.features(name), run.settings.pixels
    if file is None:
        raise MissingProductError(f"{features}: its checkpoint file is not among extract.checkpoints; this stage runs the network again")
    if file.digest != features.attributes["made_with"]["checkpoint"]:
        raise ValueError(f"{file.path}: not the file that {features} was made with; name that one, or extract again with --replace")
    wanted = wanted_map_keys(run, name)
    targets = [settings.target] if settings.target else list(run.settings.cam.targets)
    chosen = [p for p in wanted if p.position == "aligned" and p.target in (targets[0], NO_TARGET)] if targets else []
    if not any(p.target != NO_TARGET for p in chosen):
        raise ValueError(
            f"pixels.target: there are no maps of {targets[0] if targets else 'any target'} at aligned; add it to cam.targets, or name another"
        )
    if parse_target(targets[0]).flip:
        raise ValueError(f"pixels.target: {targets[0]!r}: the flipped photo would have to be altered as well. Leave .flip out")
    stamps = finished_stamps(run, name, wanted)
    made_with = {
        "maps": {p.key: stamps[p.key] for p in chosen},
        "features": content_stamp(features),
        "settings": settings.model_dump(mode="json"),
        "version": VERSION,
    }
    return CurveInputs(name, file.path, parse_target(targets[0]), chosen, made_with)


def is_fresh(run: Run, one: CurveInputs) -> bool:
    """Whether the stored curves of a checkpoint are made of this, and undamaged."""
    return is_made_of(run.pixels_path, one.name, one.stamp)
