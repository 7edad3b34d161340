"""How each dataset lies on disk, and which place, view, split and role a photo has by its folder."""

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from stages.index.pair_lists import pair_list_files, read_pair_lists, several_tiles_remarks, unpaired_remarks
from stages.index.tree_places import view_and_place

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
class Given:
    """What some layouts are told by the settings, as the disk does not say it.

    Attributes
    ----------
    train_places
        Of raw SUES-200.
    pair_lists
        Of GTA-UAV: "cross-area" or "same-area"; None: the only ones that are there.
    """

    train_places: Collection[str] = ()
    pair_lists: str | None = None


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
        Every photo under a root, in any order; what the disk cannot tell is given beside it.
    pairing
        How drone and satellite photos of a place find each other, for those whose photos do not.
    remarks
        What else a user should know of the dataset under a root, a line each.
    """

    description: str
    recognise: Callable[[Path], bool]
    find: Callable[[Path, Given], Iterator[ImageFile]]
    pairing: str
    remarks: Callable[[Path, Given], list[str]] = lambda root, given: []


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


def _find_branches(branches: tuple[Branch, ...], root: Path, _: Given) -> Iterator[ImageFile]:
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


def _find_denseuav(root: Path, given: Given) -> Iterator[ImageFile]:
    """As University-1652, and the height is in the file's name: ``H80.JPG``, ``H80_old.tif``."""
    for file in _find_branches(_UNIVERSITY_BRANCHES, root, given):
        height = re.match(r"H\d+(?=$|_)", PurePosixPath(file.path).stem)
        yield replace(file, variant=height.group() if height else "")


def _find_sues200_raw(root: Path, given: Given) -> Iterator[ImageFile]:
    files = list(_find_branches(_SUES200_RAW_BRANCHES, root, given))
    missing = sorted(set(given.train_places) - {file.place for file in files}, key=natural_key)
    if files and missing:
        places = sorted({file.place for file in files}, key=natural_key)
        raise ValueError(
            f"{root}: dataset.train_places names [{few(missing)}], which do not exist; it has {len(places)} places, {places[0]} to {places[-1]}. "
            f"Write them as the folders are named."
        )
    for file in files:
        yield file
        trained_on = file.place in given.train_places
        yield replace(file, split="train", role="train") if trained_on else replace(file, role="query")


def _find_sues200_split(root: Path, given: Given) -> Iterator[ImageFile]:
    """The script copies one satellite photo into every height's folder; it is shared by all, as in the raw layout."""
    for file in _find_branches(_SUES200_SPLIT_BRANCHES, root, given):
        yield replace(file, variant="") if file.view == "satellite" else file


def _find_in_any_tree(root: Path, _: Given) -> Iterator[ImageFile]:
    for path in walk(root, leave_out=(MASKS_FOLDER,)):
        view, place = view_and_place(path)
        for role in ("query", "gallery"):
            yield ImageFile(path, view, place, "test", role)


def _find_gta_uav(root: Path, given: Given) -> Iterator[ImageFile]:
    """What the pair lists name, and every satellite tile of the folder, which the test photos are looked for among."""
    lists = read_pair_lists(root, given.pair_lists)
    tested = {pair.tile for pairs in lists for pair in pairs.pairs if pairs.split == "test"}
    for pairs in lists:
        roles = _ROLES_OF_A_SPLIT[pairs.split]
        for pair, role in product(pairs.pairs, roles):
            yield ImageFile(pair.drone, "drone", _stem(pair.tile), pairs.split, role, _height_in_gta_uav(pair.drone))
        for tile in sorted({pair.tile for pair in pairs.pairs}) if pairs.split == "train" else ():
            yield ImageFile(tile, "satellite", _stem(tile), "train", "train")
    folders = frozenset().union(*(pairs.satellite_folders for pairs in lists))
    offered = {(PurePosixPath(folder) / name).as_posix() for folder in folders for name in walk(root / folder)}
    for tile in sorted(tested | offered):
        for role in ("query", "gallery") if tile in tested else ("gallery",):
            yield ImageFile(tile, "satellite", _stem(tile), "test", role)


def _remarks_on_gta_uav(root: Path, given: Given) -> list[str]:
    lists = read_pair_lists(root, given.pair_lists)
    return [*unpaired_remarks(lists), *several_tiles_remarks(lists)]


def _height_in_gta_uav(path: str) -> str:
    """``500`` of ``500_0001_0000025682.png``."""
    height = re.fullmatch(r"(\d+)_\d+_\d+", _stem(path))
    return height[1] if height else ""


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _is_gta_uav(root: Path) -> bool:
    return (root / "drone" / "images").is_dir() and bool(pair_list_files(root))


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
_ROLES_OF_A_SPLIT: Mapping[str, tuple[str, ...]] = MappingProxyType({"train": ("train",), "test": ("query", "gallery")})
_LIKE_FOLDERS = "a place is a class folder: give it the same name under the drone's and the satellite's folder"


LAYOUTS: Mapping[str, Layout] = MappingProxyType({
    "denseuav": Layout(  # before university1652, whose folders it shares
        "train/drone/<6 digits>/H80.JPG, test/query_drone/<6 digits>/H80.JPG",
        _is_denseuav, _find_denseuav, _LIKE_FOLDERS,
    ),
    "university1652": Layout(
        "train/{drone,satellite}/<place>/, test/{query,gallery}_{drone,satellite}/<place>/",
        partial(_has_folders, _UNIVERSITY_BRANCHES), partial(_find_branches, _UNIVERSITY_BRANCHES), _LIKE_FOLDERS,
    ),
    "sues200_raw": Layout(
        "drone_view_512/<place>/<height>/, satellite-view/<place>/",
        partial(_has_folders, _SUES200_RAW_BRANCHES), _find_sues200_raw, _LIKE_FOLDERS,
    ),
    "sues200_split": Layout(
        "Training/<height>/{drone,satellite}/<place>/, Testing/<height>/{query,gallery}_{drone,satellite}/<place>/",
        partial(_has_folders, _SUES200_SPLIT_BRANCHES), _find_sues200_split, _LIKE_FOLDERS,
    ),
    "gta_uav": Layout(
        "drone/images/<height>_<zone>_<n>.png, satellite/, {cross,same}-area-drone2sate-{train,test}.json",
        _is_gta_uav, _find_gta_uav, "a drone photo's place is its best satellite tile in the pair list: check the lists",
        _remarks_on_gta_uav,
    ),
    "folder": Layout(
        "any tree of images (only by name)",
        lambda root: False, _find_in_any_tree,
        "a place is the folders less the one that names the view, or the file's stem: drone/0300/a.jpg and satellite/0300/b.jpg, "
        "0300/drone.jpg and 0300/satellite.jpg, drone/0300.jpg and satellite/0300.jpg",
    ),
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
    images = {entry.name for entry in visible if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES}  # noqa: PTH122  (one of 50,000)
    return sorted(folders), sorted(images - folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _recognised_as(root: Path) -> str | None:
    return next((name for name, layout in LAYOUTS.items() if layout.recognise(root)), None)
