"""Dataset folders to a manifest: which photos there are, and what place, view, split and role each one has by where it lies."""

import hashlib
import os
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from stages.index.layouts import (
    IMAGE_SUFFIXES,
    LAYOUTS,
    MASKS_FOLDER,
    Given,
    ImageFile,
    detect_layout,
    few,
    natural_key,
    other_places_hint,
    require_folder,
    walk,
)
from stages.index.settings import DatasetSettings
from stages.index.variants import is_chosen

VIEWS_ONLY_BY_NAME = frozenset({"street", "google"})  # no Safe-Net is trained on them
MANIFEST_COLUMNS = (
    "sample", "id", "path", "view", "place", "split", "roles", "variant", "height_px", "width_px", "digest", "mask_path", "problem", "problem_since",
)  # fmt: skip


@dataclass(frozen=True)
class ImageHeader:
    """What reading a file tells.

    Attributes
    ----------
    digest
        blake2b of the bytes, 128 bits in hex; "" if there is no byte to read.
    height_px, width_px
        0 if unknown.
    problem
        Why the photo cannot be used, in one line; "" if it can.
    """

    digest: str = ""
    height_px: int = 0
    width_px: int = 0
    problem: str = ""


def find_images(root: Path, settings: DatasetSettings, known_variants: Collection[str] = ()) -> list[ImageFile]:
    """Return the photos under `root` that `settings` asks for, in an order that no file system changes.

    Parameters
    ----------
    root
    settings
    known_variants
        Flight heights whose photos are listed whatever ``dataset.variants`` says: a manifest knows some of them already.

    Raises
    ------
    FileNotFoundError
        If `root` is no folder, or holds no image where its layout has them.
    ValueError
        If the layout is not recognised, or the settings name places or variants that are not there, or leave no photo.
    """
    return sorted(list_images(root, settings, known_variants), key=_file_order)


def list_images(root: Path, settings: DatasetSettings, known_variants: Collection[str] = ()) -> list[ImageFile]:
    """Return what `find_images` does, in the order of the file system: sorting takes longer than finding."""
    layout = resolve_layout(root, settings)
    if settings.train_places and layout != "sues200_raw":
        raise ValueError(f"{root}: dataset.train_places is for raw SUES-200 only, but this is {layout!r}, whose split is fixed. Leave it out.")
    if settings.pair_lists and layout != "gta_uav":
        raise ValueError(f"{root}: dataset.pair_lists is for GTA-UAV only, but this is {layout!r}. Leave it out.")
    found = list(LAYOUTS[layout].find(root, _given(settings)))
    if not found:
        raise FileNotFoundError(
            f"{root}: no image of layout {layout!r} in it; expected {LAYOUTS[layout].description}, "
            f"files {' '.join(sorted(IMAGE_SUFFIXES))}. {other_places_hint(root)}Check dataset.root and dataset.layout."
        )
    return _limit_places(_select(found, root, settings, known_variants), settings.limit_places)


def resolve_layout(root: Path, settings: DatasetSettings) -> str:
    """Return the layout's name, asking the disk where the settings say ``"auto"``."""
    if settings.layout == "auto":
        return detect_layout(root)
    require_folder(root)
    return settings.layout


def remarks_on(root: Path, settings: DatasetSettings) -> list[str]:
    """Return what a user should know of the dataset beside its photos, a line each."""
    return LAYOUTS[resolve_layout(root, settings)].remarks(root, _given(settings))


def find_masks(root: Path) -> frozenset[str]:
    """Return the masks under ``<root>/masks``, as paths relative to that folder."""
    folder = root / MASKS_FOLDER
    return frozenset(walk(folder)) if folder.is_dir() else frozenset()


def merge_duplicates(files: Iterable[ImageFile], headers: Mapping[str, ImageHeader], masks: Collection[str] = ()) -> pd.DataFrame:
    """Return the manifest: one row per sample, that is, a unique (digest, place, view), whatever roles its bytes serve in.

    Parameters
    ----------
    files
        The photos in reading order; the first of equal ones gives the row its path.
    headers
        What was read of each path.
    masks
        Of `find_masks`.

    Returns
    -------
    DataFrame
        Columns `MANIFEST_COLUMNS`. `sample` counts from 0; `id` is unique text of one line; sizes are as stored, before any EXIF turn (0: unknown);
        `roles` and `variant` join several by "+"; `mask_path` is relative to the root like `path`; `problem` says why a photo
        cannot be used, `problem_since` is left empty.

    Notes
    -----
    Photos of which no byte could be read have no digest to compare; they are the same sample if variant and file name agree.
    """
    groups: dict[tuple[str, ...], list[ImageFile]] = {}
    for file in files:
        digest = headers[file.path].digest
        content = (digest,) if digest else (file.variant, PurePosixPath(file.path).name)
        groups.setdefault((file.place, file.view, *content), []).append(file)
    merged = sorted(((_one_file(same), same) for same in groups.values()), key=lambda pair: _file_order(pair[0]))
    rows = [_manifest_row(first, same, headers[first.path], masks) for first, same in merged]
    ids = _unique_ids([first for first, _ in merged], [row["digest"] for row in rows])
    table = pd.DataFrame([{"sample": sample, "id": ids[sample], **row} for sample, row in enumerate(rows)], columns=list(MANIFEST_COLUMNS))
    return table.astype(dict.fromkeys(("sample", "height_px", "width_px"), "int64"))


def _given(settings: DatasetSettings) -> Given:
    return Given(settings.train_places, settings.pair_lists)


# ---- rows of the manifest


def _one_file(same: list[ImageFile]) -> ImageFile:
    """The first of equal photos, with the split and the variants of all."""
    variants = sorted({file.variant for file in same} - {""}, key=natural_key)
    split = "train" if any(file.role == "train" for file in same) else "test"
    return replace(same[0], split=split, variant="+".join(variants))


def _manifest_row(first: ImageFile, same: list[ImageFile], header: ImageHeader, masks: Collection[str]) -> dict[str, Any]:
    wanted_masks = (PurePosixPath(file.path).with_suffix(".png").as_posix() for file in same)
    mask = next((path for path in wanted_masks if path in masks), None)
    return {
        "path": _legible(first.path),
        "view": first.view,
        "place": _one_line(first.place),
        "split": first.split,
        "roles": "+".join(sorted({file.role for file in same})),
        "variant": _one_line(first.variant),
        "height_px": header.height_px,
        "width_px": header.width_px,
        "digest": header.digest,
        "mask_path": "" if mask is None else _legible(f"{MASKS_FOLDER}/{mask}"),
        "problem": header.problem,
        "problem_since": "",
    }


def _unique_ids(files: list[ImageFile], digests: list[str]) -> list[str]:
    """Short ids; where some would be equal, each of them gets its file's suffix, and failing that its digest, so that order never matters."""
    ids = [_short_id(file) for file in files]
    for index in _repeated(ids):
        ids[index] += PurePosixPath(_legible(files[index].path)).suffix
    for index in _repeated(ids):
        digest = digests[index] or hashlib.blake2b(os.fsencode(files[index].path), digest_size=16).hexdigest()
        ids[index] += f"~{digest[:12]}"
    return ids


def _short_id(file: ImageFile) -> str:
    """``drone/0839/image-01``; the flight height joins in where the file name does not begin with it."""
    stem = PurePosixPath(file.path).stem
    parts = (file.view, file.place, "" if stem.startswith(file.variant) else file.variant, stem)
    return _one_line("/".join(part for part in parts if part))


def _repeated(ids: list[str]) -> list[int]:
    counts = pd.Series(ids, dtype=object).duplicated(keep=False)
    return [int(index) for index in counts.index[counts]]


def _legible(text: str) -> str:
    r"""Return file names that are not UTF-8 with their odd bytes written as ``\xff``, so that they can be stored and printed."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _one_line(text: str) -> str:
    r"""Return legible text with its control characters and line breaks written as ``\n``; a path keeps them, for opening the file."""
    return "".join(character.encode("unicode_escape").decode() if _breaks_lines(character) else character for character in _legible(text))


def _breaks_lines(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Zl", "Zp")


# ---- selecting


def _select(found: list[ImageFile], root: Path, settings: DatasetSettings, known_variants: Collection[str]) -> list[ImageFile]:
    variants = {file.variant for file in found} - {""}
    unknown = sorted(set(settings.variants) - variants, key=natural_key)
    if unknown:
        raise ValueError(
            f"{root}: dataset.variants asks for [{few(unknown)}], but it has [{few(variants)}]. Name some of these, or leave it empty for all."
        )
    listed = {*settings.variants, *known_variants} if settings.variants else ()
    kept = [file for file in found if _is_wanted(file, settings) and is_chosen(file.variant, listed)]
    if not kept:
        raise ValueError(
            f"{root}: none of its {len(found)} images is selected; it has views [{few({file.view for file in found})}] and splits "
            f"[{few({file.split for file in found})}], but dataset.views = [{few(settings.views)}] and dataset.splits = [{few(settings.splits)}]. "
            f"Widen these (street and google are used only if named)."
        )
    return kept


def _is_wanted(file: ImageFile, settings: DatasetSettings) -> bool:
    view_wanted = file.view in settings.views if settings.views else file.view not in VIEWS_ONLY_BY_NAME
    return file.split in settings.splits and view_wanted


def _limit_places(files: list[ImageFile], limit: int | None) -> list[ImageFile]:
    """The first places of each split; a gallery-only place comes last, as a quick try needs some that are queried."""
    if limit is None:
        return files
    roles: dict[str, set[str]] = {}
    for file in files:
        roles.setdefault(file.place, set()).add(file.role)
    ordered = sorted(roles, key=lambda place: (roles[place] == {"gallery"}, natural_key(place)))
    train = [place for place in ordered if "train" in roles[place]]
    test = [place for place in ordered if "train" not in roles[place]]
    kept = {*train[:limit], *test[:limit]}
    return [file for file in files if file.place in kept]


def _file_order(file: ImageFile) -> tuple[Any, ...]:
    path = PurePosixPath(file.path)
    natural = (natural_key(text) for text in (file.place, file.variant, path.name, file.path))
    return file.split, file.view, *natural, file.role
