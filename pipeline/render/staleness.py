"""What a picture was made from, according to its file, and which pictures must be drawn again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from pipeline.disk.places import each
from pipeline.disk.stamps import stamp
from pipeline.render.captions import drawn_colour_maps, image_label, scope_of
from pipeline.render.catalogue import Picture, content_of
from pipeline.render.png_files import png_settings
from pipeline.run.directory import Run
from pipeline.run.series import checkpoint_names
from pipeline.store.groups import JOINED
from pipeline.store.tables import group_attributes
from pipeline.work.stops import loading
from stages.labels import distinct_labels

VERSION = 5
_BOXES = "boxes"  # text chunk of a picture with characters that DejaVu lacks: those that no font had


def stale_pictures(run: Run, pictures: Sequence[Picture]) -> list[Picture]:
    """Those that are missing, damaged, made of other maps, photos or settings, or lettered with boxes for which there is a font now."""
    content = cache(partial(content_of, run))  # many pictures show the same images

    def is_stale(picture: Picture) -> bool:
        noted = png_settings(run.mosaics_path / picture.path)
        return noted.get("stamp") != _stamp(run, picture, content) or _has_needless_boxes(picture, noted)

    stale = each(run.mosaics_path, is_stale, pictures)
    return [picture for picture, found in zip(pictures, stale, strict=True) if found]


def _has_needless_boxes(picture: Picture, noted: Mapping[str, str]) -> bool:
    if picture.words.isascii():
        return False
    with loading():
        from stages.render.fonts import missing_characters, own_face
    boxes = noted.get(_BOXES, own_face().lacks(picture.words))  # earlier versions had DejaVu alone, and noted nothing
    return missing_characters(boxes) != boxes


def _stamp(run: Run, picture: Picture, content: Callable[[str, int], str]) -> str:
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
        "content": [content(name, sample) for name in picture.checkpoints for sample in picture.images["sample"]],
        "figures": figures,
        "version": VERSION,
    }
    return stamp(ingredients)


def _heads(run: Run, picture: Picture) -> list[str | None]:
    """What the picture calls its checkpoints, their series, and how many are left out."""
    series = picture.series and f"series {picture.series}"
    left_out = [f"{picture.left_out} left out"] if picture.left_out else []
    return [series, *(picture.heads or distinct_labels(checkpoint_names(run, picture.checkpoints))), *left_out]


def text_chunks(run: Run, picture: Picture, content: Callable[[str, int], str]) -> dict[str, Any]:
    """What a picture's file notes of it: keyword -> text. `content` gives the digest of a checkpoint's features of an image."""
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
        "stamp": _stamp(run, picture, content),
        **_boxes(picture),
    }


def _boxes(picture: Picture) -> dict[str, str]:
    """Note the characters that no font had, where DejaVu lacks some; it has all of ASCII."""
    if picture.words.isascii():
        return {}
    with loading():
        from stages.render.fonts import missing_characters, own_face
    return {_BOXES: missing_characters(picture.words)} if own_face().lacks(picture.words) else {}
