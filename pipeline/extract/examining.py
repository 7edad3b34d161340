"""What a checkpoint file must be like to be extracted with these settings: checked before anything is computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.checkpoints.files import CheckpointFile
from pipeline.checkpoints.reading import read_info
from pipeline.extract.layout import class_names
from pipeline.run.directory import Run
from safenet.checkpoint_info import CheckpointInfo
from stages.extract.gradient_plan import asked_gradients
from stages.targets.references import UNDEFINED
from stages.targets.scoring import label_index


def examine(run: Run, file: CheckpointFile) -> CheckpointInfo:
    """Read what a file tells of itself, and refuse what cannot be used."""
    path, settings = file.path, run.settings.extract
    info = read_info(file, settings.told, check=True)
    architecture = info.architecture
    if settings.aligned == "derived" and architecture.sampling != "nearest":
        raise ValueError(f"{path}: extract.aligned = 'derived' needs nearest sampling; this network's is {architecture.sampling}. Set it to 'stored'")
    if settings.blocks and settings.blocks[-1] >= architecture.depth:
        raise ValueError(f"{path}: extract.blocks: block {settings.blocks[-1]} does not exist: the network has blocks 0 to {architecture.depth - 1}")
    _check_gradients(run, info)
    return info


def _check_gradients(run: Run, info: CheckpointInfo) -> None:
    """Refuse heat maps at blocks that the network, or none of the images, can have."""
    try:
        found = asked_gradients(run.settings.extract, info.architecture, class_names(run, info))
    except ValueError as error:
        raise ValueError(f"{info.path}: {error}") from None
    if found is not None and found.needs_label and (_class_index(run, info) == UNDEFINED).all():
        raise ValueError(f"{info.path}: extract.gradient_targets: 'label': none of the images shows a trained place. Use 'predicted'")


def _class_index(run: Run, info: CheckpointInfo) -> NDArray[np.int64]:
    """Class of each image's place, of all images; UNDEFINED where it was not trained."""
    return label_index(run.manifest["place"].tolist(), class_names(run, info))
