"""How each dataset lies on disk, and which place, view, split and role a photo has by its folder."""

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from stages.tree_places import view_and_place

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
MASKS_FOLDER = "masks"


@dataclass(frozen=True)
class ImageFile:
    """One photo in one role. A file that serves in two roles without lying on disk twice is listed twice.

    Attributes
    ----------
    path
        Relative to the dataset's root, with forward slashes.
    place
        The class folder's name, as text: ``"0839"``.
    role
        ``"train"``, ``"query"`` or ``"gallery"``.
    variant
        The flight height as the dataset writes it (``"150"``, ``"H80"``), or ``""`` where there is none.
    """

    path: str
    view: str
    place: str
    split: str
    role: str
    variant: str = ""


@dataclass(frozen=True)
class Branch:
    """Class folders that mean one thing; `pattern` is relative to the root and names its folders ``{place}`` and ``{variant}``."""

    pattern: str
    view: str
    split: str
    role: str


@dataclass(frozen=True)
class Layout:
    """One way to lay a dataset out on disk.

    Attributes
    ----------
    description
        The marker folders, for error texts.
    recognise
        Whether a root looks like this layout.
    find
        Every photo under a root, in any order; also takes the training places, for the layout without a split.
    """

    description: str
    recognise: Callable[[Path], bool]
    find: Callable[[Path, Collection[str]], Iterator[ImageFile]]


def detect_layout(root: Path) -> str:
    """Return the name of the first layout that recognises `root`.

    Raises
    ------
    FileNotFoundError
        If `root` is no folder.
    ValueError
        If no layout recognises it; the text lists the marker folders of each.
    """
    require_folder(root)
    name = _recognised_as(root)
    if name is None:
        folders, images = _scan(root)
        known = "; ".join(f"{name}: {layout.description}" for name, layout in LAYOUTS.items())
        raise ValueError(
            f"{root}: the layout is not recognised; found folders [{few(folders)}] and {len(images)} images. Expected one of: {known}. "
            f"{other_places_hint(root)}Name the folder that holds these, or set dataset.layout = 'folder' to take every image below it."
        )
    return name


def walk(folder: Path, leave_out: Collection[str] = (), above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Yield the images at any depth, relative to `folder`; a link back to a folder above is not followed. `leave_out` holds for the first level."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    folders, images = _scan(folder)
    yield from images
    for name in folders:
        if name not in leave_out:
            yield from (f"{name}/{path}" for path in walk(folder / name, above=(*above, here)))


def require_folder(root: Path) -> None:
    """Raise FileNotFoundError if `root` is no folder."""
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise FileNotFoundError(f"{root}: expected a dataset's folder, found {found} there. Set dataset.root to the folder with the images.")


def other_places_hint(root: Path) -> str:
    """Return a word on a recognised dataset one level below or above, the usual slip; "" if there is none."""
    for folder in (*(root / name for name in _scan(root)[0]), root.absolute().parent):
        with contextlib.suppress(OSError):  # what may not be looked into gives no hint
            if name := _recognised_as(folder):
                return f"{folder} looks like {name}. "
    return ""


def few(names: Iterable[str]) -> str:
    """Return the first names and the number of all, for error texts."""
    ordered = sorted(names, key=natural_key)
    return ", ".join(ordered[:8]) + (f", ... {len(ordered)} in all" if len(ordered) > 8 else "")


def natural_key(text: str) -> tuple[Any, ...]:
    """Return a sorting key that puts ``image-2`` before ``image-10``."""
    parts = re.split(r"([0-9]+)", text)
    return tuple(int(part) if index % 2 else part.casefold() for index, part in enumerate(parts)), text


# ---- finding photos by their folders


def _find_branches(branches: tuple[Branch, ...], root: Path, _: Collection[str]) -> Iterator[ImageFile]:
    for branch in branches:
        for folder, names in _class_folders(root, branch.pattern):
            for name in _scan(root / folder)[1]:
                yield ImageFile(f"{folder}/{name}", branch.view, names["place"], branch.split, branch.role, names.get("variant", ""))


def _class_folders(root: Path, pattern: str) -> list[tuple[str, dict[str, str]]]:
    """Folders that fit a branch's pattern, relative to the root, with the names they give."""
    found: list[tuple[str, dict[str, str]]] = [("", {})]
    for part in pattern.split("/"):
        if part.startswith("{"):
            found = [(f"{folder}{name}/", {**names, part[1:-1]: name}) for folder, names in found for name in _scan(root / folder)[0]]
        else:
            found = [(f"{folder}{part}/", names) for folder, names in found if (root / folder / part).is_dir()]
    return [(folder.rstrip("/"), names) for folder, names in found]


def _find_denseuav(root: Path, train_places: Collection[str]) -> Iterator[ImageFile]:
    """As University-1652, and the height is in the file's name: ``H80.JPG``, ``H80_old.tif``."""
    for file in _find_branches(_UNIVERSITY_BRANCHES, root, train_places):
        height = re.match(r"H\d+(?=$|_)", PurePosixPath(file.path).stem)
        yield replace(file, variant=height.group() if height else "")


def _find_sues200_raw(root: Path, train_places: Collection[str]) -> Iterator[ImageFile]:
    files = list(_find_branches(_SUES200_RAW_BRANCHES, root, train_places))
    missing = sorted(set(train_places) - {file.place for file in files}, key=natural_key)
    if files and missing:
        places = sorted({file.place for file in files}, key=natural_key)
        raise ValueError(
            f"{root}: dataset.train_places names [{few(missing)}], which are not there; it has {len(places)} places, {places[0]} to {places[-1]}. "
            f"Write them as the folders are called."
        )
    for file in files:
        yield file
        trained_on = file.place in train_places
        yield replace(file, split="train", role="train") if trained_on else replace(file, role="query")


def _find_sues200_split(root: Path, train_places: Collection[str]) -> Iterator[ImageFile]:
    """The script copies one satellite photo into every height's folder; it is shared by all, as in the raw layout."""
    for file in _find_branches(_SUES200_SPLIT_BRANCHES, root, train_places):
        yield replace(file, variant="") if file.view == "satellite" else file


def _find_in_any_tree(root: Path, _: Collection[str]) -> Iterator[ImageFile]:
    for path in walk(root, leave_out=(MASKS_FOLDER,)):
        view, place = view_and_place(path)
        for role in ("query", "gallery"):
            yield ImageFile(path, view, place, "test", role)


def _has_folders(branches: tuple[Branch, ...], root: Path) -> bool:
    return any(_class_folders(root, branch.pattern) for branch in branches)


def _is_denseuav(root: Path) -> bool:
    """University-1652's folders with six-digit places, or with DenseUAV's lists of positions beside them."""
    places = [folder.rpartition("/")[2] for branch in _UNIVERSITY_BRANCHES for folder, _ in _class_folders(root, branch.pattern)]
    has_lists = any(root.glob("Dense_GPS_*.txt"))
    return bool(places) and (has_lists or all(re.fullmatch(r"[0-9]{6}", place) for place in places))


# ---- the layouts


_UNIVERSITY_BRANCHES = (
    *(Branch(f"train/{view}/{{place}}", view, "train", "train") for view in ("drone", "satellite", "street", "google")),
    *(Branch(f"test/{role}_{view}/{{place}}", view, "test", role) for role in ("query", "gallery") for view in ("drone", "satellite", "street")),
)
_SUES200_RAW_BRANCHES = (
    Branch("drone_view_512/{place}/{variant}", "drone", "test", "gallery"),
    Branch("satellite-view/{place}", "satellite", "test", "gallery"),
)
_SUES200_SPLIT_BRANCHES = (
    Branch("Training/{variant}/drone/{place}", "drone", "train", "train"),
    Branch("Training/{variant}/satellite/{place}", "satellite", "train", "train"),
    *(Branch(f"Testing/{{variant}}/{role}_{view}/{{place}}", view, "test", role) for role in ("query", "gallery") for view in ("drone", "satellite")),
)


LAYOUTS: Mapping[str, Layout] = MappingProxyType({
    "denseuav": Layout(  # before university1652, whose folders it shares
        "train/drone/<6 digits>/H80.JPG, test/query_drone/<6 digits>/H80.JPG",
        _is_denseuav, _find_denseuav,
    ),
    "university1652": Layout(
        "train/{drone,satellite}/<place>/, test/{query,gallery}_{drone,satellite}/<place>/",
        partial(_has_folders, _UNIVERSITY_BRANCHES), partial(_find_branches, _UNIVERSITY_BRANCHES),
    ),
    "sues200_raw": Layout(
        "drone_view_512/<place>/<height>/, satellite-view/<place>/",
        partial(_has_folders, _SUES200_RAW_BRANCHES), _find_sues200_raw,
    ),
    "sues200_split": Layout(
        "Training/<height>/{drone,satellite}/<place>/, Testing/<height>/{query,gallery}_{drone,satellite}/<place>/",
        partial(_has_folders, _SUES200_SPLIT_BRANCHES), _find_sues200_split,
    ),
    "folder": Layout("any tree of images (only by name)", lambda root: False, _find_in_any_tree),
})  # fmt: skip


# ---- looking at the disk


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the images in `folder`, hidden ones left out; a broken link to an image is an image, whose reading will say so."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except PermissionError as error:
        remedy = "Allow reading it, or move it out of the dataset."
        raise PermissionError(f"{folder}: this folder cannot be listed ({error.strerror}). {remedy}") from error
    folders = {entry.name for entry in visible if _is_folder(entry)}
    images = {entry.name for entry in visible if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES}
    return sorted(folders), sorted(images - folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _recognised_as(root: Path) -> str | None:
    return next((name for name, layout in LAYOUTS.items() if layout.recognise(root)), None)
