"""The stages in order, one row each: what each reads, writes, and where it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.index.stage import index
from pipeline.pixels.stage import pixels
from pipeline.render.stage import render
from pipeline.report.stage import report
from pipeline.run.outcome import Outcome
from pipeline.stats.stage import stats


@dataclass(frozen=True)
class Stage:
    """A row of STAGES.

    Parameters
    ----------
    name : str
        Of the command.
    bring_up_to_date : callable
        Takes a Run (and the options in `options`) and returns an Outcome.
    reads, writes : tuple of str
        Products by name; "images" and "checkpoints" come from outside.
    worker : {"cpu", "gpu"}
        A CPU stage never starts a GPU stage: it says which command is missing.
    options : tuple of str
        Keyword arguments that it takes.
    has_parts : bool
        Whether several processes can share its work: by --part, or on a cluster.
    """

    name: str
    bring_up_to_date: Callable[..., Outcome]
    reads: tuple[str, ...]
    writes: str
    worker: Literal["cpu", "gpu"]
    options: tuple[str, ...] = ()
    has_parts: bool = False


STAGES: Sequence[Stage] = (
    Stage("index", index, ("images",), "manifest", "cpu", ("forget",)),
    Stage("extract", extract, ("images", "checkpoints", "manifest"), "features", "gpu", ("replace", "retry_bad"), has_parts=True),
    Stage("cam", cam, ("features",), "cams", "cpu", ("partial",), has_parts=True),
    Stage("stats", stats, ("features", "cams"), "stats", "cpu", ("partial",), has_parts=True),
    Stage("render", render, ("images", "manifest", "features", "cams", "stats"), "mosaics", "cpu", ("partial",), has_parts=True),
    Stage("report", report, ("manifest", "features", "stats", "mosaics"), "report", "cpu"),
)
OPTIONAL_STAGES: Sequence[Stage] = (
    Stage("pixels", pixels, ("images", "checkpoints", "manifest", "features", "cams"), "pixels", "gpu", ("partial",)),
)
OUTSIDE = ("images", "checkpoints")


def check_one_way(stages: Sequence[Stage]) -> None:
    """Raise a ValueError if a stage reads what no earlier stage writes, or two stages write the same."""
    written = set(OUTSIDE)
    for stage in stages:
        missing = [name for name in stage.reads if name not in written]
        if missing:
            raise ValueError(f"stage {stage.name} reads {missing[0]}, which no earlier stage writes")
        if stage.writes in written:
            raise ValueError(f"stage {stage.name} writes {stage.writes}, which an earlier stage writes already")
        written.add(stage.writes)


check_one_way((*STAGES, *OPTIONAL_STAGES))
