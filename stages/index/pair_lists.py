"""GTA-UAV's pair lists: which satellite tile each drone photo shows best.

The format is that of Ji et al., "Game4Loc: A UAV Geo-Localization Benchmark from Game Data", AAAI 2025, arXiv:2409.16925, as
its repository (Yux1angJi/GTA-UAV) describes and reads it: a JSON list with an entry a drone photo.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stages.wording import counted

_NAME = re.compile(r"(cross-area|same-area)-drone2sate-(train|test)\.json")
_TILES, _WEIGHTS = "pair_pos_sate_img_list", "pair_pos_sate_weight_list"
_TEXTS = ("drone_img_dir", "drone_img_name", "sate_img_dir")


@dataclass(frozen=True)
class Pair:
    """A drone photo and its best positive tile, as paths relative to the dataset's root."""

    drone: str
    tile: str


@dataclass(frozen=True)
class PairList:
    """One list.

    Attributes
    ----------
    split
        "train" or "test".
    pairs
        Of the drone photos that have a positive tile.
    unpaired
        Paths of the drone photos that have none.
    satellite_folders
        Where the tiles lie.
    """

    split: str
    pairs: tuple[Pair, ...]
    unpaired: tuple[str, ...]
    satellite_folders: frozenset[str]


def pair_list_files(root: Path) -> dict[tuple[str, str], Path]:
    """Return (area, split) -> file, of the lists that lie in `root`."""
    found = ((_NAME.fullmatch(path.name), path) for path in sorted(root.glob("*-area-drone2sate-*.json")))
    return {(match[1], match[2]): path for match, path in found if match}


def read_pair_lists(root: Path, area: str | None) -> list[PairList]:
    """Read the training and the test list of an area.

    Parameters
    ----------
    root : Path
    area : {"cross-area", "same-area"} or None
        None: the only one that is there.

    Raises
    ------
    FileNotFoundError
        If there is no such list.
    ValueError
        If both areas are there and none is chosen, or a list is not of the published format or has no pair.
    """
    files = pair_list_files(root)
    areas = sorted({found for found, _ in files})
    if area is None and len(areas) > 1:
        raise ValueError(
            f"{root}: has the pair lists of {' and of '.join(areas)}, which split the photos differently. "
            f"Choose with dataset.pair_lists = 'cross-area' or 'same-area'"
        )
    chosen = [(split, path) for (found, split), path in files.items() if area in (None, found)]
    if not chosen:
        raise FileNotFoundError(
            f"{root}: no {area or '<area>'}-drone2sate-train.json or -test.json in it; found lists of [{', '.join(areas)}]. Check dataset.pair_lists"
        )
    return [_read(root, path, split) for split, path in chosen]


def unpaired_remarks(lists: Sequence[PairList]) -> list[str]:
    """Say how many drone photos are left out, a line a list."""
    return [
        f"{len(found.unpaired):,} drone photos of the {found.split} list have no positive satellite tile and are left out, "
        f"for instance {found.unpaired[0]}"
        for found in lists
        if found.unpaired
    ]


def several_tiles_remarks(lists: Sequence[PairList]) -> list[str]:
    """Warn of drone photos that several entries give different tiles, a line a list."""
    return [
        f"warning: {counted(len(found), 'drone photo')} of the {one.split} list with several best tiles, each of which counts as a place: "
        f"for instance {found[0]}"
        for one in lists
        if (found := [drone for drone, count in Counter(pair.drone for pair in dict.fromkeys(one.pairs)).items() if count > 1])
    ]


def _read(root: Path, path: Path, split: str) -> PairList:
    pairs, unpaired, folders = [], [], set()
    for number, entry in enumerate(_entries(path)):
        where = f"{path}: entry {number}"
        drone, folder, tile = _paths_of(entry, where)
        folders.add(folder)
        if tile:
            pairs.append(Pair(drone, tile))
        else:
            unpaired.append(drone)
    if not pairs:
        raise ValueError(f"{path}: none of its {len(unpaired)} entries has a tile in {_TILES}; expected one at least. Download it again")
    for folder in sorted(folders):
        if not (root / folder).is_dir():
            raise FileNotFoundError(f"{path}: its tiles lie in {folder!r}, and {root / folder} is no folder. Unpack the satellite tiles there")
    return PairList(split, tuple(pairs), tuple(unpaired), frozenset(folders))


def _entries(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({' '.join(str(error).split())}); expected a pair list of GTA-UAV. Download it again") from None
    if not isinstance(found, list):
        raise ValueError(f"{path}: holds a {type(found).__name__}; expected a list with one entry per drone photo")
    return found


def _paths_of(entry: Any, where: str) -> tuple[str, str, str]:
    """Drone photo, folder of the tiles, and the best tile ("" where there is none)."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} is a {type(entry).__name__}; expected {', '.join((*_TEXTS, _TILES))}")
    for key in _TEXTS:
        if not isinstance(entry.get(key), str):
            raise ValueError(f"{where}: {key} is {entry.get(key)!r}; expected a text")
    tiles = entry.get(_TILES)
    if not isinstance(tiles, list) or not all(isinstance(tile, str) and tile for tile in tiles):
        raise ValueError(f"{where}: {_TILES} is {tiles!r}; expected a list of file names")
    drone = _below(entry["drone_img_dir"], entry["drone_img_name"], where)
    folder = _below(entry["sate_img_dir"], "", where)
    return drone, folder, _below(folder, tiles[_best(entry, len(tiles), where)], where) if tiles else ""


def _best(entry: Mapping[str, Any], count: int, where: str) -> int:
    """Number of the tile of the largest weight, which is the overlap; the first where no weights are given, or several are equal."""
    weights = entry.get(_WEIGHTS)
    if weights is None:
        return 0
    if not isinstance(weights, list) or len(weights) != count or not all(_is_number(weight) for weight in weights):
        raise ValueError(f"{where}: {_WEIGHTS} is {weights!r}; expected {counted(count, 'number')}, one per tile")
    return max(range(count), key=lambda number: (weights[number], -number))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _below(folder: str, name: str, where: str) -> str:
    path = PurePosixPath(folder) / name
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{where}: {path} does not lie in the dataset's folder; expected a path below it")
    return path.as_posix()
