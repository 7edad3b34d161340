"""Which view and which place a photo of any folder tree shows, by its path alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

UNKNOWN = "unknown"
_ROLES = ("query", "gallery")  # folders of these names alone say what a photo serves for, and no more of its place than a view does
_WORDS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "drone": re.compile(r"drones?|(?<![a-z])uavs?", re.IGNORECASE),  # not: "guava"
        "satellite": re.compile(r"satellites?|(?<![a-z])sat(?![a-z])", re.IGNORECASE),  # not: "saturn"
    }
)
_BESIDE = re.compile(
    r"(?<![a-z])(query|gallery|train|training|test|testing|views?|images?|imgs?|imagery|photos?|pictures?|shots?|frames?|my|data|dataset)(?![a-z])",
    re.IGNORECASE,
)


def view_and_place(path: str) -> tuple[str, str]:
    """Tell what a photo shows.

    Parameters
    ----------
    path : str
        Relative to the dataset's root, with forward slashes.

    Returns
    -------
    view : str
        Of the nearest path component that is a view's name ("query_drone", "satellite-view"), the file's own first; failing that, of
        the nearest that mentions one ("roofs from the drone"). "unknown" where none does.
    place : str
        The folders, without those that name the view, or are called query or gallery; where none is left, the file's stem without the
        view's name. Views that lie in trees of their own so share their places: ``drone/0300/a.jpg``, ``satellite/0300/b.jpg`` and
        ``0300/drone_01.jpg`` all show 0300.
    """
    *folders, stem = PurePosixPath(path).with_suffix("").parts
    nearest_first = [stem, *reversed(folders)]
    for names in (_is_view, _mentions_view):
        view = next((found for part in nearest_first if (found := names(part))), "")
        if view:
            left = [folder for folder in folders if names(folder) != view and folder.casefold() not in _ROLES]
            return view, "/".join(left) or _without_view(stem, view)
    return UNKNOWN, "/".join(folders) or stem


def _mentions_view(part: str) -> str:
    return next((view for view, word in _WORDS.items() if word.search(part)), "")


def _is_view(part: str) -> str:
    """The view, where a component says nothing else: a park called "Satellite Beach" is a place."""
    view = _mentions_view(part)
    rest = _BESIDE.sub("", _WORDS[view].sub(" ", part)) if view else "something else"
    return "" if any(character.isalpha() for character in rest) else view


def _without_view(stem: str, view: str) -> str:
    """``0300`` of ``drone_0300``; "." where nothing is left, so that drone.jpg and satellite.jpg show one place."""
    rest = [part.strip(" _-.") for part in _WORDS[view].split(stem)]
    return "_".join(part for part in rest if part) or "."
