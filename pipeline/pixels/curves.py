"""The curves of one checkpoint: photos are blurred in the order of each map, and the network runs on them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from pipeline.cam.references import References
from pipeline.checkpoints.networks import load_network
from pipeline.features.photo_copies import photo_file, stored_photo
from pipeline.features.reading import read_features
from pipeline.pixels.inputs import CurveInputs
from pipeline.pixels.pieces import CurvePiece, Measured
from pipeline.run.directory import Run
from pipeline.store.fences import Fence
from pipeline.store.tables import write_dataset
from pipeline.work.log import log
from pipeline.work.stops import check_stop
from safenet.devices import pick_device
from safenet.photos import decode_photo
from stages.cam.compute import needed_features
from stages.cam.frames import to_photo_frame
from stages.cam.map_keys import MapKey
from stages.extract.batch import AUTOCAST
from stages.extract.precision import resolve_precision
from stages.stats.deletion import area_under
from stages.stats.pixels import look, perturbed, step_counts
from stages.targets.names import NO_TARGET
from stages.targets.scoring import class_of, open_score
from stages.wording import counted


def measure(run: Run, fence: Fence, tell: Callable[[int], None], piece: CurvePiece) -> Measured:
    """Measure the curves of a checkpoint and write them."""
    one = piece.inputs
    fence.check()  # before anything is computed in vain
    found = curves_of(run, one, piece.samples)
    about = {"stamp": one.stamp, "made_with": one.made_with, "epoch": run.features(one.name).attributes["epoch"]}
    write_dataset(run.pixels_path, one.name, found, about, fence)
    log(f"{run.pixels_path.name}/{one.name}: curves written")
    tell(1)
    images = found.sizes["sample"]
    return Measured(images, f"{one.name}, {one.target}, {counted(images, 'image')}, deletion / insertion: {_in_words(found)}")


def curves_of(run: Run, one: CurveInputs, samples: Sequence[int]) -> xr.Dataset:
    """Run the network on the altered photos of some images, dims (product, sample, step)."""
    settings, extract = run.settings.pixels, run.settings.extract
    device = torch.device(pick_device(extract.device))
    _, network = load_network(one.file, run.features(one.name).attributes["made_with"]["checkpoint"], extract.told)
    model = network.to(device)
    precision, few = AUTOCAST.get(resolve_precision(extract.precision, str(device))), extract.batch_size
    curves = {kind: np.full((len(one.map_keys), len(samples), settings.steps + 1), np.nan) for kind in ("deletion", "insertion")}
    references = References(run.features(one.name))
    for column, sample in enumerate(samples):
        check_stop()
        photo = _photo(run, one.name, sample)
        for row, heat in enumerate(_heats(run, one, sample)):
            for kind, values in curves.items() if np.isfinite(heat).any() else ():  # a map that is not finite has no order
                photos = perturbed(photo, heat, settings.steps, settings.baseline, insertion=kind == "insertion")
                parts = [look(model, photos[start : start + few], device, precision) for start in range(0, len(photos), few)]
                embedding, logit = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
                values[row, column] = _score(run, one, references, sample, embedding, logit)
    side = heat.size
    found = {f"{kind}_curve": (("product", "sample", "step"), values) for kind, values in curves.items()}
    found |= {kind: (("product", "sample"), area_under(values)) for kind, values in curves.items()}  # type: ignore[misc]
    ids = run.features(one.name).values("sample_id")[list(samples)]
    coordinates = {
        "product": np.array([map_key.key for map_key in one.map_keys], dtype=object),
        "sample_id": ("sample", ids.astype(object)),
        "share": ("step", step_counts(side, settings.steps) / side),
    }
    return xr.Dataset(found, coords=coordinates)


def _heats(run: Run, one: CurveInputs, sample: int) -> list[NDArray[np.float32]]:
    """Maps of a sample in the photo's frame."""
    rows, features = slice(sample, sample + 1), run.features(one.name)
    frame = features.read(["theta", "source_cell"], rows)
    maps = run.cams(one.name).read([map_key.key for map_key in one.map_keys], rows)
    sampling = features.attributes["architecture"]["sampling"]
    return [to_photo_frame(maps[p.key].values, frame["theta"].values, frame["source_cell"].values, sampling, p.additive)[0] for p in one.map_keys]


def _score(run: Run, one: CurveInputs, references: References, sample: int, embedding: NDArray, logit: NDArray) -> NDArray[np.float64]:
    """Scores of a sample's altered photos: of the class, and against the references, of the photo as it is."""
    rows = slice(sample, sample + 1)
    needed = [map_key for map_key in one.map_keys if map_key.target != NO_TARGET][:1]
    stored = references.attach(read_features(run.features(one.name), needed_features(needed), rows), rows, needed)
    block = {str(name): stored[name].values for name in stored}
    target, count = one.target, len(logit)
    if target.row.kind == "class":
        block["class_index"] = class_of(block, target, references.context.targets)
        target = replace(target, base="label", name="")
    repeated = {name: np.repeat(value, count, axis=0) for name, value in block.items()}
    return open_score({**repeated, "embedding": embedding, "logit": logit}, target, references.context.targets).value


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
    method = MapKey.parse(str(found["product"].item())).method
    return f"{method} {float(found['deletion'].mean()):.3f} / {float(found['insertion'].mean()):.3f}{of_few}"
