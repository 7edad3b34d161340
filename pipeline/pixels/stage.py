"""The optional stage `pixels`: photos, checkpoints and heat maps -> pixels.zarr, deletion and insertion by the network; no part of `atlas run`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.cam.references import Compared
from pipeline.cam.stage import finished_stamps
from pipeline.cam.wanted import wanted_products
from pipeline.checkpoints.files import CheckpointFile
from pipeline.checkpoints.names import named_files
from pipeline.disk.stamps import stamp
from pipeline.features.finished import content_stamp, finished_checkpoints
from pipeline.features.photo_copies import photo_file, stored_photo
from pipeline.features.reading import read_features
from pipeline.run.directory import MissingProductError, Outcome, Run
from pipeline.run.rates import note_rate
from pipeline.store.tables import dataset_seal, group_attributes, write_dataset
from pipeline.work.stops import check_stop, telling_what_is_left
from safenet.checkpoint import read_checkpoint
from safenet.devices import pick_device
from safenet.photos import decode_photo
from stages.cam.compute import needed_features
from stages.cam.facts import FACTS, STATUS
from stages.cam.frames import to_photo_frame
from stages.cam.products import Product
from stages.extract.batch import AUTOCAST
from stages.extract.precision import resolve_precision
from stages.spreading import spread
from stages.stats.deletion import area_under
from stages.stats.pixels import look, perturbed, step_counts
from stages.targets.names import NO_TARGET, TargetName, parse_target
from stages.targets.scoring import class_of, open_score
from stages.wording import counted

VERSION = 3
_CODES = {row.name: code for code, row in STATUS.items()}


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

    def on(self, samples: Sequence[int]) -> _Inputs:
        """The same, on these images."""
        return replace(self, made_with={**self.made_with, "samples": list(samples)})


@dataclass(frozen=True)
class _Images:
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
        If there are no maps at aligned, a checkpoint file is not the one that the features were made with, or no checkpoint has an image that
        has the target and finite maps of it.
    """
    names = finished_checkpoints(run, partial)
    files = named_files(run).files
    everything = [_inputs(run, name, files.get(name)) for name in names]
    images = _choose_images(run, everything)
    inputs = [one.on(images[one.name].used) for one in everything if images[one.name].used]
    if not inputs:
        raise ValueError(_why_nothing(run, everything, images))
    computed, started, notes, used = 0, perf_counter(), [], 0
    bar = tqdm(inputs, unit="checkpoint", disable=not run.progress)
    with (
        run.locked("pixels"),
        telling_what_is_left(lambda: f"left: pixel curves of {len(inputs) - bar.n} of {len(inputs)} checkpoints", run.directory),
    ):
        for one in bar:
            if group_attributes(run.pixels_path, one.name).get("stamp") != one.stamp or dataset_seal(run.pixels_path, one.name).faults():
                found = _of_checkpoint(run, one, images[one.name].used)
                about = {"stamp": one.stamp, "made_with": one.made_with, "epoch": run.features(one.name).attributes["epoch"]}
                write_dataset(run.pixels_path, one.name, found, about)
                computed += 1
                used += found.sizes["sample"]
                notes += [f"{one.name}, {one.target}, {counted(found.sizes['sample'], 'image')}, deletion / insertion: {_in_words(found)}"]
    note_rate(run.directory, "pixels", used, perf_counter() - started)
    notes += [line for one in everything for line in _left_out(run, one, images[one.name])]
    return Outcome("pixels", computed, len(inputs) - computed, "checkpoints", tuple(notes))


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


def _of_checkpoint(run: Run, one: _Inputs, samples: Sequence[int]) -> xr.Dataset:
    settings, extract = run.settings.pixels, run.settings.extract
    device = torch.device(pick_device(extract.device))
    model = read_checkpoint(one.file, **extract.told).build().to(device)
    precision, few = AUTOCAST.get(resolve_precision(extract.precision, str(device))), extract.batch_size
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


def _choose_images(run: Run, inputs: Sequence[_Inputs]) -> dict[str, _Images]:
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


def _status(run: Run, one: _Inputs) -> _Status:
    facts = run.cams(one.name).read([product.facts_key for product in one.products])
    codes = np.stack([facts[product.facts_key].values[:, FACTS.index("status")] for product in one.products])
    return _Status(codes, codes[[product.target != NO_TARGET for product in one.products]])


def _judge(one: _Inputs, status: _Status, chosen: Sequence[int]) -> _Images:
    rows = np.array([sample for sample in chosen if sample < status.of_all.shape[1]], np.int64)  # the dataset may have grown since
    bad = [_CODES["absent"], _CODES["not finite"]]
    used = rows[~np.isin(status.of_target[:, rows], bad).all(axis=0)]
    without = rows[(status.of_target[:, rows] == _CODES["absent"]).all(axis=0)]
    spoilt = sorted({*rows.tolist()} - {*used.tolist()} - {*without.tolist()})
    lost = np.asarray(np.isin(status.of_all[:, used], bad))
    methods = tuple(product.method for product, row in zip(one.products, lost, strict=True) if row.all())
    return _Images(used.tolist(), spoilt, without.tolist(), methods)


def _why_nothing(run: Run, inputs: Sequence[_Inputs], images: Mapping[str, _Images]) -> str:
    """The refusal where no checkpoint has an image that can be used: of one whose maps are not finite, if there is one."""
    one = max(inputs, key=lambda one: len(images[one.name].spoilt))
    remedy = "`atlas status` says what is not finite" if images[one.name].spoilt else "name another in pixels.target"
    return f"{run.cams(one.name)}: {images[one.name].why_none(one.target)}; {remedy}"


def _left_out(run: Run, one: _Inputs, images: _Images) -> Iterator[str]:
    """A line where the checkpoint is left out; else one for the methods, and one a reason for the images, that are."""
    if reason := images.why_none(one.target):
        yield f"{one.name} is left out: {reason}"
        return
    if images.methods:
        yield f"{one.name}: left out: {', '.join(images.methods)}, not finite for any of its {counted(len(images.used), 'image')}"
    ids = run.features(one.name).read(["sample_id"])["sample_id"].values
    for samples, why in ((images.spoilt, "maps that are not finite"), (images.without, f"want of the target {str(one.target)!r}")):
        if samples:
            shown = ", ".join(ids[samples[:3]]) + (", ..." if len(samples) > 3 else "")
            yield f"{one.name}: {counted(len(samples), 'image')} left out for {why}: {shown}"


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
    return ", ".join(
        _method_in_words(found.sel(product=key)) for key in found["product"].values if np.isfinite(found["deletion"].sel(product=key)).any()
    )


def _method_in_words(found: xr.Dataset) -> str:
    """A method's means, and of how many images where not of all."""
    defined = int(np.isfinite(found["deletion"]).sum())
    of_few = f" ({counted(defined, 'image')})" if defined < found.sizes["sample"] else ""
    method = Product.parse(str(found["product"].item())).method
    return f"{method} {float(found['deletion'].mean()):.3f} / {float(found['insertion'].mean()):.3f}{of_few}"
