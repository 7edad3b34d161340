"""Which pictures there are: one function and one row per kind of mosaic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from pipeline.cam.staleness import finished_stamps
from pipeline.cam.wanted import wanted_map_keys
from pipeline.disk.file_names import file_name
from pipeline.features.bad_images import bad_images
from pipeline.features.finished import block_content, check_same_images
from pipeline.features.variants import chosen_of
from pipeline.run.directory import Run
from pipeline.run.series import checkpoint_names
from safenet.architecture import Architecture
from stages.cam.map_keys import MapKey
from stages.cam.names import block_number
from stages.index.variants import chosen_samples
from stages.labels import distinct_labels, series_of
from stages.naming import known
from stages.render.choice import choose_drawn, choose_images, choose_places
from stages.render.settings import MosaicKind
from stages.spreading import spread
from stages.targets.names import NO_TARGET, parse_target

ALL_METHODS = "methods"
PAIR = "pair"
_UNLIKE = "their networks differ in width, parts or grid, so the heads of one cannot read the features of the other"
_WHY_NONE: Mapping[str, str] = MappingProxyType(
    {
        "depth": "there are no maps at blocks. Add block_<i> to cam.positions, and what they are made of to [extract]",
        "change": "it takes two checkpoints of a series and a target that means the same in both: label (of a trained place) or class_NAME",
    }
)


@dataclass(frozen=True)
class Picture:
    """A mosaic to draw: what it shows, and the stamps of the maps it is made of.

    `series` is what an epoch strip or a change is of, where the run has several series; None: of all there are, or of those that have one checkpoint.
    `heads` are the labels of its checkpoints among all that it could be of, in the kinds that show them; `left_out` counts what has no column.
    """

    kind: MosaicKind
    place: str
    method: str
    target: str
    checkpoints: tuple[str, ...]
    stamps: tuple[str, ...]
    images: pd.DataFrame = field(compare=False, repr=False)
    series: str | None = None
    heads: tuple[str, ...] = ()
    left_out: int = 0

    @property
    def path(self) -> Path:
        """Within the mosaics folder."""
        of_series = [] if self.series is None else [self.series] if self.series else ["", "series"]  # a name that no series can have
        within = {"epochs": of_series}.get(self.kind, self.checkpoints)  # not the checkpoints: a strip may change with each epoch
        folder = Path(self.kind, file_name(within)) if within else Path(self.kind)
        image = [self.images["id"].iloc[0]] if self.kind == "methods" else []
        target = [] if self.target == NO_TARGET else [self.target]
        return folder / f"{file_name([self.place, *image, self.method, *target])}.png"

    @property
    def words(self) -> str:
        """The names that users gave and that stand on it: of place, target, checkpoints and images."""
        stems = (Path(path).stem for path in self.images["path"])
        return " ".join([self.place, self.target, self.series or "", *self.checkpoints, *self.images["variant"], *stems])

    @property
    def style(self) -> tuple[str, str]:
        """Method and target."""
        return self.method, self.target


class Strip(NamedTuple):
    """Checkpoints side by side: of which series, those that have a column, what they are called among all of them, and how many have none."""

    series: str | None
    names: tuple[str, ...]
    heads: tuple[str, ...]
    left_out: int


@dataclass(frozen=True)
class _Plan:
    """A run as its pictures see it."""

    run: Run
    names: Sequence[str]

    @cached_property
    def series(self) -> dict[str, list[str]]:
        """Series -> its checkpoints, in order."""
        found = series_of(checkpoint_names(self.run, self.names))
        return {name: [self.names[index] for index in numbers] for name, numbers in found.items()}

    @cached_property
    def strips(self) -> list[Strip]:
        """Each epoch strip; series of one checkpoint stand side by side in one, which is of none (None)."""
        if len(self.series) == 1:
            return [self._strip(None, self.names)]
        long = [self._strip(name, names) for name, names in self.series.items() if len(names) > 1]
        alone = [name for names in self.series.values() if len(names) == 1 for name in names]
        return [*long, *([self._strip(None, alone)] if alone else [])]

    def _strip(self, series: str | None, names: Sequence[str]) -> Strip:
        heads, shown = distinct_labels(checkpoint_names(self.run, names)), spread(len(names), self.run.settings.render.columns)
        return Strip(series, tuple(names[i] for i in shown), tuple(heads[i] for i in shown), len(names) - len(shown))

    @cached_property
    def chosen(self) -> tuple[str, ...]:
        """Checkpoints of all other kinds: those asked for, or the last of each series."""
        asked = self.run.settings.render.checkpoints
        return tuple(known(name, self.names, "render.checkpoints") for name in asked) or tuple(names[-1] for names in self.series.values())

    @cached_property
    def map_keys(self) -> dict[str, list[MapKey]]:
        """Of every checkpoint that is drawn."""
        drawn = dict.fromkeys([*(name for strip in self.strips for name in strip.names), *self.chosen])
        return {name: wanted_map_keys(self.run, name) for name in drawn}

    @cached_property
    def stamps(self) -> dict[str, dict[str, str]]:
        """Stamps of their maps, by key."""
        return {name: finished_stamps(self.run, name, map_keys) for name, map_keys in self.map_keys.items()}

    @cached_property
    def drawn(self) -> list[tuple[str, str]]:
        """(method, target) pairs."""
        return choose_drawn(self.map_keys[self.chosen[0]], self.run.settings.render)

    def holds(self, name: str, map_key: MapKey) -> bool:
        """Whether a checkpoint has such maps."""
        return map_key in self.map_keys[name]

    def marks(self, names: Sequence[str], method: str | None, target: str) -> tuple[str, ...]:
        """Stamps of the maps of a style (any method: None), in a fixed order."""
        targets = {target, NO_TARGET} if method is None else {target}
        keys = [(name, key, MapKey.parse(key)) for name in names for key in sorted(self.stamps[name])]
        return tuple(self.stamps[name][key] for name, key, p in keys if p.target in targets and method in (None, p.method))


def wanted_pictures(run: Run, names: Sequence[str]) -> list[Picture]:
    """List the pictures of a run, place by place."""
    plan = _Plan(run, names)
    for name in plan.stamps:
        check_same_images(run, name)
    usable = usable_images(run)
    return [
        picture
        for place in choose_places(usable, run.settings.render)
        for kind in run.settings.render.mosaics
        for picture in _KINDS[kind](plan, place, choose_images(usable, place, run.settings.render))
    ]


def undrawn(run: Run, names: Sequence[str], pictures: Sequence[Picture]) -> list[str]:
    """Say why kinds that are asked for are not drawn, a line each."""
    plan, missing = _Plan(run, names), set(run.settings.render.mosaics) - {picture.kind for picture in pictures}
    bent = [name for name in plan.chosen if not _is_linear(run, name)]
    notes = []
    if "pair" in run.settings.render.mosaics and bent:
        notes.append(f"pair: not drawn for {', '.join(bent)}: heads with an activation, or max pooling, give a cell no embedding of its own")
    if unlike := [names for _, names, *_ in plan.strips if len(names) > 1 and _sizes(run, names[0]) != _sizes(run, names[-1])]:
        notes += [f"change: not drawn from {names[0]} to {names[-1]}: {_UNLIKE}" for names in unlike if "change" in run.settings.render.mosaics]
        missing -= {"change"}
    return [*notes, *(f"{kind}: not drawn: {why}" for kind, why in _WHY_NONE.items() if kind in missing)]


def usable_images(run: Run) -> pd.DataFrame:
    """Return the manifest's rows of the chosen flight heights, with the faults that extraction found: what is void in the stores is not drawn."""
    table, void = run.manifest.copy(), bad_images(run)
    table["problem"] = [str(void.get(name, "")) for name in table["id"]]
    variant = run.columns["variant"]
    return table[chosen_samples(variant, chosen_of(run, variant, str(run.manifest_path)))]


def content_of(run: Run, name: str, sample: int) -> str:
    """Digest of the block that a sample's features lie in."""
    store = run.features(name)
    return block_content(store, store.blocks[sample // len(store.blocks[0])])


def _positions(plan: _Plan, place: str, images: pd.DataFrame) -> Iterator[Picture]:
    for method, target in plan.drawn:
        for name in plan.chosen:
            yield Picture("positions", place, method, target, (name,), plan.marks((name,), method, target), images)


def _epochs(plan: _Plan, place: str, images: pd.DataFrame) -> Iterator[Picture]:
    position = plan.run.settings.render.position
    for method, target in plan.drawn:
        for series, names, heads, left_out in plan.strips:
            if plan.holds(names[-1], MapKey(position, target, method)):
                marks = plan.marks(names, method, target)
                yield Picture("epochs", place, method, target, names, marks, images, series, heads, left_out)


def _paper(plan: _Plan, place: str, images: pd.DataFrame) -> Iterator[Picture]:
    position = plan.run.settings.render.position
    for method, target in plan.drawn:
        for name in plan.chosen:
            if plan.holds(name, MapKey(position, target, method)):
                yield Picture("paper", place, method, target, (name,), plan.marks((name,), method, target), images)


def _methods(plan: _Plan, place: str, images: pd.DataFrame) -> Iterator[Picture]:
    """One an image and target: the place's satellite image, and its first drone image."""
    targets = list(dict.fromkeys(target for _, target in plan.drawn if target != NO_TARGET)) or [NO_TARGET]
    for name in plan.chosen:
        for target in targets:
            for index in range(min(2, len(images))):
                yield Picture("methods", place, ALL_METHODS, target, (name,), plan.marks((name,), None, target), images.iloc[[index]])


def _depth(plan: _Plan, place: str, images: pd.DataFrame) -> Iterator[Picture]:
    for method, target in plan.drawn:
        for name in plan.chosen:
            if any(block_number(p.position) is not None and (p.method, p.target) == (method, target) for p in plan.map_keys[name]):
                yield Picture("depth", place, method, target, (name,), plan.marks((name,), method, target), images)


def _pair(plan: _Plan, place: str, images: pd.DataFrame) -> Iterator[Picture]:
    """The first image of each of two views; where the heads have a closed form, which similarity of cells rests on."""
    pair = images.drop_duplicates("view").head(2)
    for name in plan.chosen:
        if len(pair) == 2 and _is_linear(plan.run, name):
            yield Picture("pair", place, PAIR, NO_TARGET, (name,), (), pair)  # of the features alone, which every stamp names


def _change(plan: _Plan, place: str, images: pd.DataFrame) -> Iterator[Picture]:
    """From a series' first checkpoint to its last, of targets that mean the same in both; of the features alone, which every stamp names."""
    for series, names, heads, _ in plan.strips:
        ends = (names[0], names[-1])
        if not _can_be_split(plan, series, names):
            continue
        trained = [plan.run.features(name).attributes["class_names"] for name in ends]
        for method, target in plan.drawn:
            base = "" if target == NO_TARGET else parse_target(target).base
            if base == "class_" or (base == "label" and all(place in names_of_one for names_of_one in trained)):
                yield Picture("change", place, method, target, ends, (), images, series, (heads[0], heads[-1]))


def _can_be_split(plan: _Plan, series: str | None, names: Sequence[str]) -> bool:
    """Whether there are two checkpoints of one training, whose heads read what the other's features are."""
    return len(names) > 1 and (series is not None or len(plan.series) == 1) and len({_sizes(plan.run, name) for name in (names[0], names[-1])}) == 1


def _sizes(run: Run, name: str) -> tuple[int, int, int]:
    """Width, parts and grid of a checkpoint's network."""
    network = Architecture(**run.features(name).attributes["architecture"])
    return network.width, network.parts, network.grid


def _is_linear(run: Run, name: str) -> bool:
    return Architecture(**run.features(name).attributes["architecture"]).is_linear


_KINDS: Mapping[MosaicKind, Callable[[_Plan, str, pd.DataFrame], Iterator[Picture]]] = MappingProxyType(
    {"positions": _positions, "epochs": _epochs, "paper": _paper, "methods": _methods, "depth": _depth, "pair": _pair, "change": _change}
)
