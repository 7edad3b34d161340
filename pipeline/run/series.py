"""What distinguishes the checkpoints of a run, according to their stores."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.run.directory import Run
from stages.labels import CheckpointName


def checkpoint_names(run: Run, names: Sequence[str]) -> list[CheckpointName]:
    """Name, epoch, series and digest of extracted checkpoints; stores of earlier versions note no series."""
    found = []
    for name in names:
        attributes = run.features(name).attributes
        digest = attributes.get("made_with", {}).get("checkpoint", "")
        found.append(CheckpointName(name, attributes["epoch"], attributes.get("series", ""), digest))
    return found
