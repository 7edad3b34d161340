"""The layout of a checkpoint's feature store: the settings that matter, its arrays, and its attributes."""

from __future__ import annotations

import platform
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checkpoints.files import CheckpointFile
from pipeline.disk.stamps import stamp
from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore
from pipeline.store.layout import ArrayLayout, array_layout
from safenet.checkpoint_info import CheckpointInfo
from safenet.devices import device_model, pick_device
from stages.extract.precision import resolve_precision
from stages.extract.settings import LATER_SETTINGS, RESOURCE_SETTINGS, ExtractSettings
from stages.schema import GRADIENT_METHODS, HEAD_PREFIX, MASKS, SAMPLE_TEXTS, dim_sizes, feature_variables

if TYPE_CHECKING:
    from safenet.model import SafeNet

VERSION = 1
_LIBRARIES = ("torch", "timm", "zarr", "numpy", "pillow", "safenet-atlas")


def ingredients(run: Run, digest: str) -> dict[str, Any]:
    """Everything that the numbers of one image depend on, given the checkpoint file's digest.

    Resources, and which other images there are, are left out.

    So are LATER_SETTINGS at their defaults: features that were made before there were such settings keep their stamp.
    """
    settings = run.settings.extract
    unset = {name for name in LATER_SETTINGS if getattr(settings, name) == ExtractSettings.model_fields[name].default}
    chosen = settings.model_dump(mode="json", exclude={*RESOURCE_SETTINGS, *unset, "store", "precision"})
    precision = resolve_precision(settings.precision, pick_device(settings.device))  # one store, one precision
    return {**chosen, "precision": precision, "store": sorted(requested(run)), "checkpoint": digest, "version": VERSION}


def requested(run: Run) -> frozenset[str]:
    """Name the variables on request: the configured ones, and the masks where the dataset has some."""
    masks = MASKS if (run.manifest["mask_path"] != "").any() else ()
    return run.settings.extract.requested | set(masks)


def image_bytes(run: Run, info: CheckpointInfo) -> int:
    """Bytes that one image takes in the store."""
    sizes = _sizes(run, info, 1)
    layouts = [array_layout(v, _dtype(run, v.dtype), sizes, 1) for v in feature_variables(requested(run)) if v.per_sample]
    return sum(int(np.prod(layout.shape)) * np.dtype(layout.dtype).itemsize for layout in layouts if layout.dtype != "str")


def lay_out_features(
    run: Run, store: GroupStore, info: CheckpointInfo, network: SafeNet, made_with: Mapping[str, Any], block_samples: int, chunk: int
) -> None:
    """Make the store's metadata, texts and heads; blocks that it holds stay as they are."""
    table = run.manifest
    variables = feature_variables(requested(run))
    sizes = _sizes(run, info, len(table))
    whole = {name: table[column].to_numpy(dtype=object) for name, column in SAMPLE_TEXTS.items()} | _heads(network)
    whole |= _coordinates(run.settings.extract, info.architecture.depth)
    arrays: list[ArrayLayout] = [array_layout(v, _dtype(run, v.dtype), sizes, block_samples, chunk, values=whole.get(v.name)) for v in variables]
    attributes = _provenance(run, info, made_with)
    block_arrays = [v.name for v in variables if v.name not in whole]
    attributes["block_arrays"] = block_arrays
    notes = {
        "made_with": dict(made_with),
        "samples": len(table),
        "block_samples": block_samples,
        "chunk_samples": chunk,
        "block_arrays": block_arrays,
        "texts": run.texts_stamp,
    }
    store.lay_out(len(table), block_samples, attributes, arrays, notes)


def class_names(run: Run, info: CheckpointInfo) -> list[str]:
    """Take the file's own names, else the sorted training places where their number fits: upstream numbers classes so."""
    if info.class_names:
        return list(info.class_names)
    table = run.manifest
    places = sorted(table.loc[table["split"] == "train", "place"].unique())
    return places if len(places) == info.architecture.classes else []


def told_by_file(run: Run, info: CheckpointInfo) -> dict[str, Any]:
    """What a checkpoint file tells that no number of the features depends on: attributes that may be brought up to date at any time."""
    file = CheckpointFile(info.path)
    return {
        "checkpoint_file": info.path.name,
        "checkpoint_folder": file.folder,
        "epoch": info.epoch,
        "series": file.series(run.settings.extract.series),
        "taken": {"network": info.taken.name, "left_out": list(info.taken.left)},
    }


def _sizes(run: Run, info: CheckpointInfo, samples: int) -> dict[str, int]:
    found = _coordinates(run.settings.extract, info.architecture.depth)
    counts = {name: len(found.get(name, ())) for name in ("block", "gradient_target", "gradient_block")}
    return dim_sizes(info.architecture, samples, *counts.values())


def _coordinates(settings: ExtractSettings, depth: int) -> dict[str, NDArray[Any]]:
    """What the dims of the maps on request hold, of a network of `depth` blocks: whole arrays of the store."""
    found: dict[str, NDArray[Any]] = {"block": np.array(settings.blocks, np.int16)} if settings.blocks else {}
    if settings.gradient_targets:
        found["gradient_target"] = np.array(settings.gradient_targets, object)
        found["gradient_block"] = np.array(settings.gradient_blocks or range(depth), np.int16)
        found["gradient_method"] = np.array(GRADIENT_METHODS, object)
    return found


def _dtype(run: Run, dtype: str) -> str:
    return run.settings.extract.map_dtype if dtype == "map" else dtype


def _heads(network: SafeNet) -> dict[str, Any]:
    arrays = [head.arrays() for head in network.heads]
    return {HEAD_PREFIX + name: np.stack([head[name] for head in arrays]) for name in arrays[0]}


def _provenance(run: Run, info: CheckpointInfo, made_with: Mapping[str, Any]) -> dict[str, Any]:
    device = pick_device(run.settings.extract.device)
    return {
        "stamp": stamp(made_with),
        "made_with": dict(made_with),
        "config": run.settings.model_dump(mode="json"),
        "manifest": run.manifest_digest,
        **told_by_file(run, info),
        "metrics": dict(info.metrics),
        "architecture": info.architecture.as_dict(),
        "head_names": list(info.architecture.head_names),
        "class_names": class_names(run, info),
        "device": device,
        "device_name": device_model(device),
        "precision": resolve_precision(run.settings.extract.precision, device),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
