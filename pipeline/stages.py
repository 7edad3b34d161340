"""The stages in order, one row each: what each reads, writes, and where it runs. A stage's modules are imported when it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.work.stops import loading

if TYPE_CHECKING:
    from pipeline.run.directory import Run
    from pipeline.run.outcome import Outcome


@dataclass(frozen=True)
class Stage:
    """A row of STAGES.

    Parameters
    ----------
    name : str
        Of the command.
    summary : str
        What the command does, in a sentence.
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
    summary: str
    bring_up_to_date: Callable[..., Outcome]
    reads: tuple[str, ...]
    writes: str
    worker: Literal["cpu", "gpu"]
    options: tuple[str, ...] = ()
    has_parts: bool = False


def _index(run: Run, **options: Any) -> Outcome:
    with loading():
        from pipeline.index.stage import index
    return index(run, **options)


def _extract(run: Run, **options: Any) -> Outcome:
    with loading():
        from pipeline.extract.stage import extract
    return extract(run, **options)


def _cam(run: Run, **options: Any) -> Outcome:
    with loading():
        from pipeline.cam.stage import cam
    return cam(run, **options)


def _stats(run: Run, **options: Any) -> Outcome:
    with loading():
        from pipeline.stats.stage import stats
    return stats(run, **options)


def _render(run: Run, **options: Any) -> Outcome:
    with loading():
        from pipeline.render.stage import render
    return render(run, **options)


def _report(run: Run, **options: Any) -> Outcome:
    with loading():
        from pipeline.report.stage import report
    return report(run, **options)


def _pixels(run: Run, **options: Any) -> Outcome:
    with loading():
        from pipeline.pixels.stage import pixels
    return pixels(run, **options)


STAGES: Sequence[Stage] = (
    Stage(
        "index", "List the dataset. The manifest is written again only if its samples changed; new samples are appended.", _index,
        ("images",), "manifest", "cpu", ("forget",),
    ),
    Stage(
        "extract", "Bring the features of every checkpoint up to date.", _extract,
        ("images", "checkpoints", "manifest"), "features", "gpu", ("replace", "retry_bad"), has_parts=True,
    ),
    Stage(
        "cam", "Bring the heat maps of every checkpoint up to date. A new method computes only itself.", _cam,
        ("features",), "cams", "cpu", ("partial",), has_parts=True,
    ),
    Stage(
        "stats", "Bring the figures up to date. First those of each checkpoint, then what changes from one to the next.", _stats,
        ("features", "cams"), "stats", "cpu", ("partial",), has_parts=True,
    ),
    Stage(
        "render", "Draw the mosaics that are missing or stale.", _render,
        ("images", "manifest", "features", "cams", "stats"), "mosaics", "cpu", ("partial",), has_parts=True,
    ),
    Stage(
        "report", "Write the page. It links to the mosaics beside it, so the directory of the run can be moved as a whole.", _report,
        ("manifest", "features", "stats", "mosaics"), "report", "cpu",
    ),
)  # fmt: skip
OPTIONAL_STAGES: Sequence[Stage] = (
    Stage(
        "pixels",
        "Measure deletion and insertion in pixel space. Photos are blurred in the order of each map at aligned, and the network runs on them again.",
        _pixels, ("images", "checkpoints", "manifest", "features", "cams"), "pixels", "gpu", ("partial",), has_parts=True,
    ),
)  # fmt: skip
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
