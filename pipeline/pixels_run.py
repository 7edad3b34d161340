"""The optional stage `pixels`: photos, checkpoints and heat maps -> pixels.zarr, deletion and insertion by the network; no part of `atlas run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.cam_run import finished_stamps
from pipeline.checkpoint_files import CheckpointFile
from pipeline.checkpoint_names import named_files
from pipeline.compared import Compared
from pipeline.completeness import content_stamp, finished_checkpoints
from pipeline.features import read_features
from pipeline.interrupts import check_stop, telling_what_is_left
from pipeline.photo_copies import photo_file, stored_photo
from pipeline.rates import note_rate
from pipeline.run import MissingProductError, Outcome, Run
from pipeline.stamps import stamp
from pipeline.stores import dataset_seal, group_attributes, write_dataset
from pipeline.wanted_maps import wanted_products
from safenet.checkpoint import read_checkpoint
from safenet.preprocess import decode_photo
from safenet.train import pick_device
from stages.cam import needed_features
from stages.deletion import area_under
from stages.extract import AUTOCAST, resolve_precision
from stages.frames import to_photo_frame
from stages.pixels import look, perturbed, step_counts
from stages.products import Product
from stages.spreading import spread
from stages.target_names import NO_TARGET, TargetName, parse_target
from stages.targets import class_of, open_score

VERSION = 2


@dataclass(frozen=True)
class _Inputs:
    """What a checkpoint's curves are made with."""

    name: str
    file: Path
    target: TargetName
    products: Sequence[Product]
    made_with: dict[str, Any]

    @property
    def stamp(self) -> str:
        """Digest of it."""
        return stamp(self.made_with)


def pixels(run: Run, *, partial: bool = False) -> Outcome:
    """Measure deletion and insertion in pixel space: blur photos in the order of each map at aligned, and run the network on them again.

    Parameters
    ----------
    run : Run
    partial : bool
        Leave unfinished checkpoints out instead of refusing.

    Raises
    ------
    MissingProductError
        If heat maps or checkpoint files are missing.
    ValueError
        If there are no maps at aligned, a checkpoint file is not the one that the features were made with, or no image has the target.
    """
    names = finished_checkpoints(run, partial)
    files = named_files(run).files
    inputs = [_inputs(run, name, files.get(name)) for name in names]
    computed, started, notes = 0, perf_counter(), []
    bar = tqdm(inputs, unit="checkpoint", disable=not run.progress)
    with (
        run.locked("pixels"),
        telling_what_is_left(lambda: f"left: pixel curves of {len(inputs) - bar.n} of {len(inputs)} checkpoints", run.directory),
    ):
        for one in bar:
            if group_attributes(run.pixels_path, one.name).get("stamp") != one.stamp or dataset_seal(run.pixels_path, one.name).faults():
                found = _of_checkpoint(run, one)
                about = {"stamp": one.stamp, "made_with": one.made_with, "epoch": run.features(one.name).attributes["epoch"]}
                write_dataset(run.pixels_path, one.name, found, about)
                computed += 1
                notes += [f"{one.name}, {one.target}, deletion / insertion: {_in_words(found)}"]
    note_rate(run.directory, "pixels", computed * run.settings.pixels.samples, perf_counter() - started)
    return Outcome("pixels", computed, len(names) - computed, "checkpoints", tuple(notes))


def _inputs(run: Run, name: str, file: CheckpointFile | None) -> _Inputs:
    features, settings = run.features(name), run.settings.pixels
    if file is None:
        raise MissingProductError(f"{features}: its checkpoint file is not among extract.checkpoints; this stage runs the network again")
    if file.digest != features.attributes["made_with"]["checkpoint"]:
        raise ValueError(f"{file.path}: not the file that {features} was made with; name that one, or extract again with --replace")
    wanted = wanted_products(run, name)
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
    return _Inputs(name, file.path, parse_target(targets[0]), chosen, made_with)


def _of_checkpoint(run: Run, one: _Inputs) -> xr.Dataset:
    settings, extract = run.settings.pixels, run.settings.extract
    device = torch.device(pick_device(extract.device))
    model = read_checkpoint(one.file, **extract.told).build().to(device)
    precision, few = AUTOCAST.get(resolve_precision(extract.precision, device)), extract.batch_size
    samples = _samples(run, one)
    curves = {kind: np.full((len(one.products), len(samples), settings.steps + 1), np.nan) for kind in ("deletion", "insertion")}
    compared = Compared(run.features(one.name))
    for column, sample in enumerate(samples):
        check_stop()
        photo = _photo(run, one.name, sample)
        for row, heat in enumerate(_heats(run, one, sample)):
            for kind, values in curves.items() if np.isfinite(heat).any() else ():  # a map that is not finite has no order
                photos = perturbed(photo, heat, settings.steps, settings.baseline, insertion=kind == "insertion")
                parts = [look(model, photos[start : start + few], device, precision) for start in range(0, len(photos), few)]
                embedding, logit = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
                values[row, column] = _score(run, one, compared, sample, embedding, logit)
    side = heat.size
    found = {f"{kind}_curve": (("product", "sample", "step"), values) for kind, values in curves.items()}
    found |= {kind: (("product", "sample"), area_under(values)) for kind, values in curves.items()}  # type: ignore[misc]
    ids = run.features(one.name).read(["sample_id"])["sample_id"].values[samples]
    coordinates = {
        "product": np.array([product.key for product in one.products], dtype=object),
        "sample_id": ("sample", ids.astype(object)),
        "share": ("step", step_counts(side, settings.steps) / side),
    }
    return xr.Dataset(found, coords=coordinates)


def _samples(run: Run, one: _Inputs) -> list[int]:
    """Evenly spread samples that have the target."""
    key = next(product for product in one.products if product.target != NO_TARGET).key
    maps = run.cams(one.name).read([key])[key].values
    there = np.flatnonzero(np.isfinite(maps).all(axis=(1, 2)))
    if not len(there):
        raise ValueError(f"{run.cams(one.name)}: no image has the target {str(one.target)!r}; name another in pixels.target")
    return [int(there[index]) for index in spread(len(there), run.settings.pixels.samples)]


def _heats(run: Run, one: _Inputs, sample: int) -> list[NDArray[np.float32]]:
    """Maps of a sample in the photo's frame."""
    rows, features = slice(sample, sample + 1), run.features(one.name)
    frame = features.read(["theta", "source_cell"], rows)
    maps = run.cams(one.name).read([product.key for product in one.products], rows)
    sampling = features.attributes["architecture"]["sampling"]
    return [to_photo_frame(maps[p.key].values, frame["theta"].values, frame["source_cell"].values, sampling, p.additive)[0] for p in one.products]


def _score(run: Run, one: _Inputs, compared: Compared, sample: int, embedding: NDArray, logit: NDArray) -> NDArray[np.float64]:
    """Scores of a sample's altered photos: of the class, and against the references, of the photo as it is."""
    rows = slice(sample, sample + 1)
    needed = [product for product in one.products if product.target != NO_TARGET][:1]
    stored = compared.attach(read_features(run.features(one.name), needed_features(needed), rows), rows, needed)
    block = {str(name): stored[name].values for name in stored}
    target, count = one.target, len(logit)
    if target.row.kind == "class":
        block["class_index"] = class_of(block, target, compared.context.targets)
        target = replace(target, base="label", name="")
    repeated = {name: np.repeat(value, count, axis=0) for name, value in block.items()}
    return open_score({**repeated, "embedding": embedding, "logit": logit}, target, compared.context.targets).value


def _photo(run: Run, name: str, sample: int) -> NDArray[np.uint8]:
    """The photo as the network read it."""
    path = photo_file(run, sample)
    size = run.features(name).attributes["architecture"]["image_size"]
    return decode_photo(path, size) if path is not None else stored_photo(run, name, sample)


def _in_words(found: xr.Dataset) -> str:
    mean = found[["deletion", "insertion"]].mean("sample")
    return ", ".join(
        f"{Product.parse(str(key)).method} {float(mean['deletion'].sel(product=key)):.3f} / {float(mean['insertion'].sel(product=key)):.3f}"
        for key in mean["product"].values
    )
