"""The render stage: stored maps and photos -> mosaics as PNG, each with its settings inside; fresh pictures are left alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter
from typing import Any

from pipeline.disk.records import sweep
from pipeline.disk.stamps import stamp
from pipeline.features.finished import finished_checkpoints
from pipeline.render.catalogue import Picture, content_of, planned_pictures, undrawn
from pipeline.render.drawing import Shared, draw_picture, drawn_colour_maps, scope_of
from pipeline.render.png_files import png_settings, write_png
from pipeline.render.views import image_label
from pipeline.run.directory import Outcome, Run
from pipeline.run.rates import note_rate
from pipeline.run.series import checkpoint_names
from pipeline.store.groups import JOINED
from pipeline.store.seals import Seal
from pipeline.store.tables import group_attributes
from pipeline.work.executors import run_groups
from pipeline.work.pieces import Group
from pipeline.work.progress import Progress
from pipeline.work.stops import check_stop, telling_what_is_left
from stages.labels import distinct_labels
from stages.render.fonts import missing_characters, own_face

VERSION = 4
INDEX = "index.json"
_BOXES = "boxes"  # text chunk of a picture with characters that DejaVu lacks: those that no font had
_SHOWN_CHARACTERS = 20


def render(run: Run, *, partial: bool = False) -> Outcome:
    """Draw the configured mosaics that are missing or stale.

    Parameters
    ----------
    run : Run
    partial : bool
        Leave unfinished checkpoints out instead of refusing.

    Raises
    ------
    MissingProductError
        If heat maps (or, for scales over a checkpoint or the dataset, figures) are missing or stale.
    ValueError
        If a place, method, target or checkpoint is asked for that the run does not have.
    """
    names = finished_checkpoints(run, partial)
    pictures = planned_pictures(run, names)
    mine, started = run.part.share(pictures), perf_counter()
    with run.preparing("mosaics") as preparation:
        if preparation.alone:
            index_seal(run).sweep()
            sweep(run.mosaics_path)
        preparation.let_in()
        stale = stale_pictures(run, mine)
        with (
            Progress("render", len(stale), "picture", shown=run.progress) as progress,
            telling_what_is_left(lambda: f"left: {progress.left} of {len(mine)} pictures", run.directory),
        ):
            for done in run_groups(run.settings.compute, PictureWork(run), _groups(stale), directory=run.directory, say=run.say):
                check_stop()
                progress.add(1, done.worker, done.seconds)
            with run.finishing("mosaics"):
                if run.part.is_whole or not stale_pictures(run, pictures):
                    _write_index(run, pictures)
    note_rate(run.directory, "render", len(stale), perf_counter() - started)
    notes = (f"in {run.mosaics_path}", *undrawn(run, names, pictures), *_told_of_boxes(pictures))
    return Outcome("render", len(stale), len(mine) - len(stale), "pictures", notes)


def _groups(pictures: Sequence[Picture]) -> list[Group]:
    """Those of the same checkpoints together."""
    found: dict[str, list[Picture]] = {}
    for picture in pictures:
        found.setdefault(", ".join(picture.checkpoints), []).append(picture)
    return [Group(name, chosen) for name, chosen in found.items()]


@dataclass(frozen=True)
class PictureWork:
    """The render stage's work, as `pipeline.work.executors` takes it."""

    run: Run

    def open(self) -> Callable[[Picture], None]:
        """Once in each process."""
        shared, one_at_a_time = Shared(self.run), threading.Lock()  # matplotlib and what a view remembers know no threads

        def draw(picture: Picture) -> None:
            with one_at_a_time:
                write_png(self.run.mosaics_path / picture.path, draw_picture(self.run, picture, shared), _text_chunks(self.run, picture))

        return draw


def stale_pictures(run: Run, pictures: Sequence[Picture]) -> list[Picture]:
    """Those that are missing, damaged, made of other maps, photos or settings, or lettered with boxes for which there is a font now."""
    made = ((picture, png_settings(run.mosaics_path / picture.path)) for picture in pictures)
    return [picture for picture, noted in made if noted.get("stamp") != _stamp(run, picture) or _has_needless_boxes(picture, noted)]


def _has_needless_boxes(picture: Picture, noted: Mapping[str, str]) -> bool:
    boxes = noted.get(_BOXES, own_face().lacks(picture.words))  # earlier versions had DejaVu alone, and noted nothing
    return missing_characters(boxes) != boxes


def _told_of_boxes(pictures: Sequence[Picture]) -> list[str]:
    """Say once which characters of the pictures no font has."""
    missing = missing_characters("".join(picture.words for picture in pictures))
    if not missing:
        return []
    shown = missing if len(missing) <= _SHOWN_CHARACTERS else f"{missing[:_SHOWN_CHARACTERS]}... ({len(missing)} in all)"
    remedy = "Install one that has, such as fonts-noto-cjk, and call `atlas render` again"
    return [f"no font of this machine has {shown}: they are boxes in the pictures. {remedy}"]


def index_seal(run: Run) -> Seal:
    """Seal of the list of pictures; each picture carries its own checksums."""
    return Seal(run.directory / "ledger" / "mosaics.json", run.mosaics_path)


def _write_index(run: Run, pictures: Sequence[Picture]) -> None:
    index = [
        {
            "path": picture.path.as_posix(),
            "kind": picture.kind,
            "place": picture.place,
            "method": picture.method,
            "target": picture.target,
            "checkpoints": picture.checkpoints,
            "series": picture.series,
        }
        for picture in pictures
    ]
    content, path = json.dumps(index, indent=1).encode(), run.mosaics_path / INDEX
    if not index_seal(run).holds(INDEX) or path.read_bytes() != content:
        index_seal(run).replace(INDEX, content)


def _stamp(run: Run, picture: Picture) -> str:
    """Digest of what the picture shows; the scale of a wider scope comes from the figures of all images."""
    chosen = {"mosaics", "methods", "targets", "places", "place_count", "checkpoints", "columns"} | (
        {"pair_cells"} if picture.kind != "pair" else set()
    )
    scope = scope_of(run, picture.kind)
    figures = group_attributes(run.stats_path, JOINED).get("stamp") if scope in ("checkpoint", "dataset") else None
    ingredients = {
        "maps": picture.stamps,
        "checkpoints": picture.checkpoints,
        "heads": _heads(run, picture),
        "settings": run.settings.render.model_dump(mode="json", exclude=chosen),
        "low_contrast_below": run.settings.stats.low_contrast_below,
        "images": picture.images["digest"].tolist(),
        "labels": [image_label(row) for _, row in picture.images.iterrows()],
        "content": [content_of(run, name, sample) for name in picture.checkpoints for sample in picture.images["sample"]],
        "figures": figures,
        "version": VERSION,
    }
    return stamp(ingredients)


def _heads(run: Run, picture: Picture) -> list[str | None]:
    """What the picture calls its checkpoints, their series, and how many are left out."""
    series = picture.series and f"series {picture.series}"
    left_out = [f"{picture.left_out} left out"] if picture.left_out else []
    return [series, *(picture.heads or distinct_labels(checkpoint_names(run, picture.checkpoints))), *left_out]


def _text_chunks(run: Run, picture: Picture) -> dict[str, Any]:
    settings = run.settings.render
    return {
        "Software": f"safenet-atlas {version('safenet-atlas')}",
        "Title": f"{picture.kind} of place {picture.place}",
        "run": run.directory.name,
        "checkpoints": ", ".join(picture.checkpoints),
        "method": picture.method,
        "target": picture.target,
        "position": settings.position if picture.kind in ("epochs", "paper") else "all",
        "scope": scope_of(run, picture.kind),
        "colour_map": ", ".join(drawn_colour_maps(run, picture)),
        "alpha": settings.alpha,
        "settings": settings.model_dump_json(),
        "stamp": _stamp(run, picture),
        **({_BOXES: missing_characters(picture.words)} if own_face().lacks(picture.words) else {}),
    }
