"""Training on the training split of a dataset: makes the checkpoints that the other stages use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.disk.places import local_folder
from pipeline.run.directory import Run
from pipeline.run.manifest import index_dataset
from pipeline.work.progress import Progress
from pipeline.work.stops import loading
from safenet.needs_network import require_network
from safenet.training.places import TrainingPlace

if TYPE_CHECKING:
    from safenet.training.loop import EpochResult, Step


def train_run(run: Run) -> list[EpochResult]:
    """Train by the tables [dataset], [model] and [train]; checkpoints go to `<run>/checkpoints`.

    Raises
    ------
    ValueError
        If no dataset is configured, or it has no training places with both views.
    NetworkNotInstalledError
        If torch, timm or torchvision is not installed.
    """
    require_network("train")
    settings = run.settings
    if settings.dataset is None:
        raise ValueError(
            "dataset.root is not set; name the photos' folder in the [dataset] table of the configuration, or pass --set dataset.root=FOLDER"
        )
    folder = local_folder(run.directory, "atlas train")
    table = index_dataset(settings.dataset.model_copy(update={"splits": ("train",)}))
    places = training_places(table)
    if not places:
        raise ValueError(f"{table.attrs['root']}: no training place has a usable image; `atlas index` lists what was found")
    with loading():
        from safenet.training.loop import train
    results = []
    with _shown(run.progress) as watch:
        for result in train(places, settings.model.architecture(), settings.train, folder / "checkpoints", watch=watch):
            results.append(result)
            figures = ", ".join(f"{name} {value:.3g}" for name, value in result.metrics.items())
            run.say(f"epoch {result.epoch}: {figures}")
    return results


@contextmanager
def _shown(shown: bool) -> Iterator[Callable[[Step], None]]:
    """A bar an epoch, which goes with it."""
    with ExitStack() as bars:
        progress: Progress

        def watch(step: Step) -> None:
            nonlocal progress
            if step.batch == 1:
                progress = bars.enter_context(Progress(f"epoch {step.epoch}", step.batches, "batch", shown=shown, stays=False))
            progress.add(1)
            progress.note(f"loss={step.loss:.3f}")
            if step.batch == step.batches:
                bars.close()

        yield watch


def training_places(table: pd.DataFrame) -> list[TrainingPlace]:
    """Group the usable training photos by place, sorted by name: class i is the i-th place, as ImageFolder numbers them."""
    root = Path(table.attrs["root"])
    rows = table[(table["split"] == "train") & (table["problem"] == "")]
    paths = {view: rows[rows["view"] == view].groupby("place")["path"].apply(list).to_dict() for view in ("satellite", "drone")}
    names = sorted(rows["place"].unique())
    return [TrainingPlace(name, *(tuple(root / path for path in paths[view].get(name, ())) for view in ("satellite", "drone"))) for name in names]
