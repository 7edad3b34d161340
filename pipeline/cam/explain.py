"""Heat maps and figures on request, from the features alone: nothing is stored, and no model runs.

Affine heads make this possible: maps of all classes, mean maps, the split of what training changed, the heads of one checkpoint on the features
of another, deletion curves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.cam.references import OtherHeads, References
from pipeline.cam.target_checks import check_targets
from pipeline.features.finished import finished_checkpoints
from pipeline.features.reading import read_features
from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore
from safenet.architecture import Sampling
from stages.cam.class_maps import CLASS_METHODS, class_maps, mean_class_maps, mean_weighted_cells
from stages.cam.compute import CamContext, compute_cams, needed_features
from stages.cam.frames import image_frame, to_photo_frame
from stages.cam.map_keys import FACTS_PREFIX, MapKey
from stages.cam.pairs import cell_similarity, part_of_cells
from stages.cam.positions import POSITIONS, PositionView
from stages.finite import neutral
from stages.naming import known
from stages.recent import Recent
from stages.stats.deletion import deletion_curve, insertion_curve
from stages.targets.names import NO_TARGET, parse_target
from stages.targets.part_heads import AffineHeads
from stages.targets.scoring import open_score

Samples = Sequence[str] | Sequence[int] | Sequence[str | int] | None
_KEPT = 2  # checkpoints, and heads of each: what `split_change` asks; the targets `best` keep up to 0.5 GB of each
_CHANGE_DIMS = ("before", "after", "features", "head", "interaction")


class Explainer:
    """Heat maps on request from the features of a run: `pipeline.open_run(...).explain`.

    Samples are given by their ids or numbers; None means all. Checkpoints are named as in `atlas status`.

    Parameters
    ----------
    run : Run
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._references: Recent[str, Recent[str, References]] = Recent(_KEPT)

    def maps(self, checkpoint: str, keys: Sequence[str], samples: Samples = None, heads_of: str | None = None) -> xr.Dataset:
        """Compute any heat maps, stored in `cams` or not.

        Parameters
        ----------
        checkpoint : str
            The checkpoint whose features are used.
        keys : sequence of str
            position/target/method, such as "aligned/predicted.part_2/hires_cam".
        samples : sequence of str or int, optional
        heads_of : str, optional
            Another checkpoint whose heads are used instead. Embeddings, logits and references are then computed by these heads.

        Returns
        -------
        Dataset
            One variable per key, float32 (sample, y, x), raw and signed, and facts/<key> (sample, fact); `sample_id` as a coordinate.

        Raises
        ------
        ValueError
            If a key, checkpoint or sample is unknown, or a target is not possible.
        """
        map_keys = [_checked(key) for key in keys]
        features, references = self._store(checkpoint), self._of(checkpoint, heads_of)
        targets = sorted({p.target for p in map_keys if p.target != NO_TARGET and not p.is_stored_gradient})
        if heads_of is not None and any(parse_target(target).flip for target in targets):
            raise ValueError("flip_embedding cannot be computed for other heads, because its features are not stored. Leave out .flip")
        check_targets(self._store(heads_of or checkpoint), targets)
        parts = []
        for rows, chosen in self._rows(features, samples):
            block = references.attach(read_features(features, needed_features(map_keys), rows), rows, map_keys)
            parts.append(compute_cams(block.isel(sample=chosen), map_keys, references.context))
        asked = {name: key for map_key, key in zip(map_keys, keys, strict=True) for name, key in _names(map_key, key)}
        return self._labelled(xr.concat(parts, dim="sample").rename(asked), features, samples)

    def class_maps(
        self,
        checkpoint: str,
        samples: Samples,
        classes: Sequence[str] | None = None,
        position: str = "aligned",
        method: str = "grad_cam",
        heads_of: str | None = None,
    ) -> xr.DataArray:
        """Maps of every class, for its mean logit over the parts, float32 (sample, class, y, x). Classes have their names if these are known.

        Parameters
        ----------
        checkpoint, samples, heads_of
            As in `maps`. All 701 classes of an image of the published network take 0.7 MB.
        classes : sequence of str, optional
            Default: all.
        position : {"patch", "aligned"}
        method : {"grad_cam", "hires_cam"}
        """
        known(method, CLASS_METHODS, "method")
        features, references = self._store(checkpoint), self._of(checkpoint, heads_of)
        heads, names = _affine(references.context, checkpoint), self._class_names(heads_of or checkpoint)
        numbers = None if classes is None else np.array([names.index(known(name, names, "classes")) for name in classes])
        parts = []
        for view in self._views(features, samples, position, references.context):
            maps = class_maps(view.cells.values, _weights(view), heads.folded, method, numbers)
            maps[view.spoilt] = np.nan
            parts.append(maps)
        side = self._grid(features)
        values = np.concatenate(parts).reshape(-1, len(names) if numbers is None else len(numbers), side, side)
        found = xr.Dataset({"maps": (("sample", "class", "y", "x"), values)})
        labels = np.array(names if classes is None else list(classes), dtype=object)
        return self._labelled(found, features, samples)["maps"].assign_coords({"class": labels})

    def mean_class_maps(self, checkpoint: str, samples: Samples = None, position: str = "aligned", method: str = "hires_cam") -> xr.DataArray:
        """Mean signed map of every class over the samples, float64 (class, y, x), from one mean map; parameters as in `class_maps`.

        Bad images, and samples whose map is not finite, are left out.
        """
        known(method, CLASS_METHODS, "method")
        features, references = self._store(checkpoint), self._of(checkpoint, None)
        heads, total, count = _affine(references.context, checkpoint), np.zeros(()), 0
        for view in self._views(features, samples, position, references.context, skip_void=True):
            total = total + mean_weighted_cells(view.cells.values[~view.spoilt], _weights(view)[~view.spoilt], method)
            count += int((~view.spoilt).sum())
        if not count:
            raise ValueError(f"{features}: none of the samples has an image whose map is finite")
        side, names = self._grid(features), self._class_names(checkpoint)
        values = mean_class_maps(total / count, heads.folded).reshape(-1, side, side)
        return xr.DataArray(values, dims=("class", "y", "x"), coords={"class": np.array(names, dtype=object)})

    def split_change(self, before: str, after: str, key: str, samples: Samples = None) -> xr.Dataset:
        """Split the change of a map between two checkpoints exactly.

        M1 A1 - M0 A0 = M0 (A1 - A0) + (M1 - M0) A0 + (M1 - M0)(A1 - A0): what the features changed under the old head, what the head changed on
        the old features, and what only both together changed. Ring boundaries belong to the features.

        Parameters
        ----------
        before, after : str
            Checkpoints with the same images.
        key : str
            position/target/method, with a target that is a class: only a class means the same in both.
        samples : sequence of str or int, optional

        Returns
        -------
        Dataset
            `before`, `after`, `features`, `head`, `interaction`, float32 (sample, y, x): after - before is the sum of the last three.
        """
        map_key = _checked(key)
        if map_key.target == NO_TARGET or parse_target(map_key.target).base not in ("label", "class_"):
            raise ValueError(
                f"{key}: expected a target of one class, label or class_NAME: the question to the head must be the same before and after"
            )
        maps = {(features, heads): self.maps(features, [key], samples, heads)[key] for features in (before, after) for heads in (before, after)}
        old, new = maps[before, before], maps[after, after]
        terms = (old, new, maps[after, before] - old, maps[before, after] - old, new - maps[after, before] - maps[before, after] + old)
        return xr.Dataset(dict(zip(_CHANGE_DIMS, terms, strict=True)))

    def curves(self, checkpoint: str, key: str, samples: Samples = None, target: str | None = None) -> xr.Dataset:
        """Deletion and insertion curves: the score while cells are zeroed, or put back, in the order of a map. Exact, with boundaries held fixed.

        Parameters
        ----------
        checkpoint, samples
            As in `maps`.
        key : str
            The map that gives the order, at patch or aligned.
        target : str, optional
            The score that is measured; default: that of the map.

        Returns
        -------
        Dataset
            `deletion` and `insertion`, float64 (sample, step), steps 0 ... N.
        """
        map_key = _checked(key)
        name = target or map_key.target
        if name == NO_TARGET:
            raise ValueError(f"{key}: a class-free map has no score of its own; name the target whose score is to be measured")
        features, references = self._store(checkpoint), self._of(checkpoint, None)
        check_targets(features, [name])
        wanted, parsed = [map_key, MapKey(map_key.position, name, "hires_cam")], parse_target(name)
        found: dict[str, list[NDArray[np.float64]]] = {"deletion": [], "insertion": []}
        for rows, chosen in self._rows(features, samples):
            block = references.attach(read_features(features, needed_features(wanted), rows), rows, wanted).isel(sample=chosen)
            arrays = {str(key): block[key].values for key in block}
            view, score = _open(map_key.position, arrays, references.context), open_score(arrays, parsed, references.context.targets)
            maps = compute_cams(block, [map_key], references.context)[map_key.key].values
            for way, curve in (("deletion", deletion_curve), ("insertion", insertion_curve)):
                values = curve(score, view.cells.values, _weights(view), maps)
                values[np.isnan(maps).any(axis=(1, 2)) | view.spoilt] = np.nan
                found[way].append(values)
        curves = xr.Dataset({name: (("sample", "step"), np.concatenate(parts)) for name, parts in found.items()})
        return self._labelled(curves, features, samples)

    def pair(self, checkpoint: str, first: str | int, second: str | int) -> xr.Dataset:
        """Compare a pair of images from both sides, in the frames of the photos.

        Parameters
        ----------
        checkpoint : str
        first, second : str or int
            Samples.

        Returns
        -------
        Dataset
            `first_map` (y, x): the exact map of the first image for its cosine with the second, at a fixed norm, and `second_map`, the other way;
            `second_like_first` (cell_y, cell_x, y, x): cosine of every cell (y, x) of the second image with the cell (cell_y, cell_x) of the first,
            through the head of that cell's ring, and `first_like_second`, the other way. NaN outside of what the network read.

        Notes
        -----
        The network compares a part only with the same part: a cell in ring 1 is compared through head 1 with every cell of the other image.
        """
        features, references = self._store(checkpoint), self._of(checkpoint, None)
        heads = _affine(references.context, checkpoint)
        numbers = [*self._numbers(features, [first]), *self._numbers(features, [second])]
        ids = features.values("sample_id")[numbers]
        matrices = [head.embed_matrix for head in heads.folded]
        sampling = references.context.sampling
        found: dict[str, tuple[tuple[str, ...], NDArray[np.float32]]] = {}
        read = [self._cells(features, number, references.context) for number in numbers]
        for name, own, other, whom in (("first", 0, 1, "second"), ("second", 1, 0, "first")):
            key = f"aligned/pair_share_{ids[other]}/hires_cam"
            maps = self.maps(checkpoint, [key], [numbers[own]])[key]
            mine, theirs = ((block["theta"], block["source_cell"]) for _, _, block in (read[own], read[other]))
            found[f"{name}_map"] = (("y", "x"), to_photo_frame(maps.values, *mine, sampling, True)[0])
            similarity = cell_similarity(read[own][0], read[own][1], read[other][0], matrices).astype(np.float32)
            found[f"{whom}_like_{name}"] = (("cell_y", "cell_x", "y", "x"), _both_to_photo(similarity, mine, theirs, sampling))
        return xr.Dataset(found).assign_attrs(first=str(ids[0]), second=str(ids[1]))

    def _cells(self, features: GroupStore, number: int, context: CamContext) -> tuple[NDArray, NDArray, dict[str, NDArray]]:
        """Aligned cells of a sample [N, K], their rings [N], and its block."""
        needed = ["valid", "source_cell", "theta", *POSITIONS["aligned"].needs, *POSITIONS["aligned"].needs_for_gradient]
        read = read_features(features, needed, slice(number, number + 1))
        block = {str(key): read[key].values for key in read}
        view = _open("aligned", block, context)
        return view.cells.values[0], part_of_cells(_weights(view)[0]), block

    def image_frame(self, maps: xr.DataArray, checkpoint: str) -> xr.DataArray:
        """Carry maps of this run to the frame of the photo, as the network read it. Maps that are in this frame are returned unchanged.

        Parameters
        ----------
        maps : DataArray (sample, y, x)
            From `cams` (one checkpoint) or from `maps`, named by its key, with the coordinate `sample_id`.
        checkpoint : str
        """
        map_key, features = MapKey.parse(str(maps.name)), self._store(checkpoint)
        numbers = self._numbers(features, maps["sample_id"].values.tolist())
        read = [features.read(["theta", "source_cell"], slice(number, number + 1)) for number in numbers]
        return image_frame(maps, map_key.position, xr.concat(read, dim="sample"), features.attributes["architecture"]["sampling"], map_key.additive)

    # ---- what is read

    @cached_property
    def _checkpoints(self) -> list[str]:
        return finished_checkpoints(self._run, partial=True)

    def _store(self, checkpoint: str) -> GroupStore:
        return self._run.features(known(checkpoint, self._checkpoints, "checkpoint"))

    def _of(self, checkpoint: str, heads_of: str | None) -> References:
        def open_features() -> References:
            own = heads_of is None or heads_of == checkpoint
            return References(self._store(checkpoint), None if own else self._other_heads(checkpoint, str(heads_of)))

        of_checkpoint = self._references.get(checkpoint, lambda: Recent(_KEPT))
        return of_checkpoint.get(heads_of or checkpoint, open_features)

    def _other_heads(self, checkpoint: str, heads_of: str) -> OtherHeads:
        own, other = (self._store(name).attributes["architecture"] for name in (checkpoint, heads_of))
        if (own["parts"], own["width"]) != (other["parts"], other["width"]):
            said = [f"{size['parts']} parts of width {size['width']}" for size in (other, own)]
            raise ValueError(f"{heads_of}: its heads read {said[0]}, and the features of {checkpoint} are {said[1]}; name one of the same sizes")
        return OtherHeads.of(self._store(heads_of))

    def _class_names(self, checkpoint: str) -> list[str]:
        attributes = self._store(checkpoint).attributes
        return list(attributes["class_names"]) or [str(number) for number in range(attributes["architecture"]["classes"])]

    def _grid(self, features: GroupStore) -> int:
        architecture = features.attributes["architecture"]
        return int(architecture["image_size"] // architecture["patch_size"])

    def _numbers(self, features: GroupStore, samples: Samples) -> list[int]:
        count = features.attributes["samples"]
        if samples is None:
            return list(range(count))
        ids = {name: number for number, name in enumerate(features.values("sample_id").tolist())}
        found = [ids.get(sample, -1) if isinstance(sample, str) else int(sample) for sample in samples]
        for sample, number in zip(samples, found, strict=True):
            if not 0 <= number < count:
                raise ValueError(f"{features}: there is no sample {sample!r}; expected an id of the manifest, or a number from 0 to {count - 1}")
        return found

    def _rows(self, features: GroupStore, samples: Samples) -> Iterator[tuple[slice, list[int]]]:
        """Whole blocks, which are checked against their marks, and which of their samples are wanted, in the order of `samples`."""
        numbers, size = self._numbers(features, samples), len(features.blocks[0])
        start = 0
        while start < len(numbers):
            block = features.blocks[numbers[start] // size]
            stop = start
            while stop < len(numbers) and block.start <= numbers[stop] < block.stop:
                stop += 1
            yield block.rows, [number - block.start for number in numbers[start:stop]]
            start = stop

    def _views(self, features: GroupStore, samples: Samples, position: str, context: CamContext, skip_void: bool = False) -> Iterator[PositionView]:
        known(position, ("patch", "aligned"), "position")
        needed = ["valid", "source_cell", *POSITIONS[position].needs, *POSITIONS[position].needs_for_gradient]
        for rows, chosen in self._rows(features, samples):
            block = read_features(features, needed, rows).isel(sample=chosen)
            if skip_void:
                block = block.isel(sample=block["valid"].values.astype(bool))
            if block.sizes["sample"]:
                yield _open(position, {str(key): block[key].values for key in block}, context)

    def _labelled(self, found: xr.Dataset, features: GroupStore, samples: Samples) -> xr.Dataset:
        ids = features.values("sample_id")[self._numbers(features, samples)]
        return found.assign_coords(sample_id=("sample", ids))


def _checked(key: str) -> MapKey:
    try:
        map_key = MapKey.parse(key)
    except ValueError:
        raise ValueError(f"{key!r} is no heat map; expected position/target/method, such as 'aligned/match/hires_cam'") from None
    return map_key.checked()


def _names(map_key: MapKey, key: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Names of the two variables, as they are computed and as they were asked for."""
    return (map_key.key, key), (map_key.facts_key, f"{FACTS_PREFIX}{key}")


def _open(position: str, arrays: dict[str, NDArray], context: CamContext) -> PositionView:
    """Lay out samples at a position; those whose map or warp is not finite are marked as spoilt, with harmless values in their place."""
    if position not in ("patch", "aligned"):
        raise ValueError(f"{position}: expected patch or aligned, where the score can be computed without a cell")
    if context.pooling != "mean":
        raise ValueError("the parts of this network are maxima over their cells: there is no share of a cell to take out. Use token_deletion")
    usable, odd = neutral(arrays, {"theta"} & set(arrays))
    view = POSITIONS[position].open(usable, context.sampling, context.pooling, True)
    return replace(view, spoilt=np.logical_or.reduce([view.spoilt, *odd.values()]))


def _both_to_photo(
    similarity: NDArray[np.float32], own: tuple[NDArray, NDArray], other: tuple[NDArray, NDArray], sampling: Sampling
) -> NDArray[np.float32]:
    """Carry a matrix [N, M] between two aligned grids to both photos, [y, x, y', x']."""
    (height, width), (rows, columns) = own[1].shape[1:], other[1].shape[1:]

    over_other = to_photo_frame(similarity.reshape(1, -1, rows, columns), *other, sampling, False).reshape(height * width, rows * columns)
    over_own = to_photo_frame(over_other.T.reshape(1, -1, height, width), *own, sampling, False)
    return over_own.reshape(rows, columns, height, width).transpose(2, 3, 0, 1)


def _weights(view: PositionView) -> NDArray[np.floating]:
    assert view.weights is not None
    return view.weights.values


def _affine(context: CamContext, checkpoint: str) -> AffineHeads:
    heads = context.targets.heads
    if not isinstance(heads, AffineHeads):
        raise ValueError(f"{checkpoint}: its heads have no closed form, which maps of all classes need; use `maps` for single classes")
    return heads
