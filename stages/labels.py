"""What a checkpoint is called in columns, rows and sentences; and which checkpoints are of one series, such as a training run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

_DIGITS = 8  # of a digest: enough to tell the files of a run apart


@dataclass(frozen=True)
class CheckpointName:
    """What tells a checkpoint from others.

    Parameters
    ----------
    name : str
        Its name in the stores.
    epoch : int or None
        Below 0: untrained. None: not known, and the name is shown.
    series : str
        The training that it is of: the name of its folder, or what extract.series finds.
    digest : str
        Of its file.
    """

    name: str
    epoch: int | None = None
    series: str = ""
    digest: str = ""

    @property
    def short(self) -> str:
        """What it is called where nothing else is called so."""
        if self.epoch is None:
            return self.name
        return "untrained" if self.epoch < 0 else f"epoch {self.epoch}"


_ADDITIONS: tuple[Callable[[CheckpointName], str], ...] = (
    lambda one: one.series,
    lambda one: one.name,
    lambda one: ", ".join(filter(None, (one.name, one.digest[:_DIGITS]))),
    lambda one: ", ".join(filter(None, (one.name, one.series, one.digest))),
)


def distinct_labels(checkpoints: Sequence[CheckpointName]) -> list[str]:
    """Label checkpoints so that no two labels are alike.

    Parameters
    ----------
    checkpoints : sequence of CheckpointName

    Returns
    -------
    list of str
        The epoch, or the name where there is none: "epoch 119". Where two share that, all get what tells them apart with the fewest words: the
        series, "epoch 119 (seed1)"; else only those that are alike get their name, or name and digest.

    Raises
    ------
    ValueError
        If two of them are the same in everything.
    """
    found = [one.short for one in checkpoints]
    if len(set(found)) < len(found) and len({one.series for one in checkpoints}) > 1:
        found = [_with(label, one.series) for label, one in zip(found, checkpoints, strict=True)]
    for addition in _ADDITIONS[1:]:
        count = Counter(found)
        found = [_with(one.short, addition(one)) if count[label] > 1 else label for label, one in zip(found, checkpoints, strict=True)]
    if len(set(found)) < len(found):
        twice = next(label for label, number in Counter(found).items() if number > 1)
        raise ValueError(f"two checkpoints are the same in name, epoch, series and digest ({twice}); expected each of them once")
    return found


def _with(label: str, addition: str) -> str:
    return f"{label} ({addition})" if addition else label


def series_of(checkpoints: Sequence[CheckpointName]) -> dict[str, list[int]]:
    """Series -> numbers of its checkpoints, in order."""
    found: dict[str, list[int]] = {}
    for number, one in enumerate(checkpoints):
        found.setdefault(one.series, []).append(number)
    return found


def is_a_course(checkpoints: Sequence[CheckpointName]) -> bool:
    """Whether checkpoints of a series follow each other, so that a line may be drawn through them: no epoch is there twice."""
    epochs = [one.epoch for one in checkpoints if one.epoch is not None]
    return len(set(epochs)) == len(epochs)


def names_in(stats: xr.Dataset) -> list[CheckpointName]:
    """Checkpoints of joined figures; those of earlier versions tell no series."""
    series = stats["series"].values if "series" in stats.coords else [""] * stats.sizes["checkpoint"]
    epochs = [None if np.isnan(epoch) else int(epoch) for epoch in stats["epoch"].values.astype(float)]
    rows = zip(stats["checkpoint"].values, epochs, series, strict=True)
    return [CheckpointName(str(name), epoch, str(of)) for name, epoch, of in rows]


def display_name(stats: xr.Dataset, index: int) -> str:
    """Name a checkpoint of joined figures so that no other one of them has that name."""
    return distinct_labels(names_in(stats))[index]


def each_series(stats: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """Joined figures cut into their series: (name, figures); one without a name where there is one series alone."""
    found = series_of(names_in(stats))
    if len(found) < 2:
        return [("", stats)]
    return [(name, stats.isel(checkpoint=numbers)) for name, numbers in found.items()]
