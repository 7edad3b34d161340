"""Which font has a text's characters: DejaVu Sans, which Matplotlib brings along, else one that is installed on this machine."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path

import matplotlib
from matplotlib.font_manager import findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font

_BOXES_ON_PURPOSE = ("Last Resort", "Adobe Blank", "Adobe NotDef")  # families that have every character, and draw none
_PLAIN_STYLES = ("Regular", "Book", "Normal", "Roman", "Bold")
_INVISIBLE = "CZ"  # Unicode's categories of controls and spaces
_VARIANTS = range(0xFE00, 0xFE10)  # choose a form of the character before; drawn by no glyph


@dataclass(frozen=True, eq=False)
class Face:
    """A font's file, family and style, and the code points of the characters that it has."""

    file: str
    family: str
    style: str
    characters: frozenset[int]

    def lacks(self, text: str) -> str:
        """Return the visible characters of `text` that it has no glyph for, sorted, each once."""
        return "".join(character for character in visible(text) if ord(character) not in self.characters)


def visible(text: str) -> str:
    """Return the characters of a text that leave ink, sorted, each once."""
    return "".join(sorted(c for c in set(text) if unicodedata.category(c)[0] not in _INVISIBLE and ord(c) not in _VARIANTS))


@lru_cache(4096)
def runs_of(text: str, bold: bool = False) -> Sequence[tuple[str, Face]]:
    """Cut a text where its font changes: one piece, unless no font has all of it."""
    main = face_for(text, bold)
    faces = {character: face_for(character, bold) for character in main.lacks(text)}
    return [("".join(run), face) for face, run in groupby(text, key=lambda character: faces.get(character, main))]


@lru_cache(4096)
def face_for(text: str, bold: bool = False) -> Face:
    """Return DejaVu Sans if it has the whole text, else the first font of the machine that has, else the one that has most of it."""
    own = own_face(bold)
    if text.isascii() or not own.lacks(text):  # most texts are, and are not looked at
        return own
    faces = [own, *sorted(machine_faces(), key=lambda face: ("Bold" in face.style) != bold)]
    return min(faces, key=lambda face: len(face.lacks(text)))


def missing_characters(text: str) -> str:
    """Return the characters of a text that are in no font of this machine, sorted, each once."""
    rest = own_face().lacks(text)
    for face in machine_faces() if rest else ():
        rest = face.lacks(rest)
    return rest


@contextmanager
def lettering_of_plots(text: str) -> Iterator[None]:
    """Let Matplotlib write `text` with fonts that have its characters; where none has, the reader's browser finds one."""
    faces = {face.file: face for _, face in runs_of(text) if face is not own_face()}
    known = {entry.fname for entry in fontManager.ttflist}
    for file in faces.keys() - known:
        fontManager.addfont(file)
    families = [*matplotlib.rcParams["font.family"], *(face.family for face in faces.values())]
    with matplotlib.rc_context({"font.family": families}), warnings.catch_warnings():
        if missing_characters(text):
            matplotlib.rcParams["svg.fonttype"] = "none"  # text, not outlines
            warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from")
        yield


def own_face(bold: bool = False) -> Face:
    """Return DejaVu Sans: Pillow's own font has no accents, Greek letters or dashes, and no bold."""
    face = _read_face(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf"))
    if face is None:
        raise FileNotFoundError(f"{matplotlib.get_data_path()}: Matplotlib's own font DejaVu Sans is not there; install Matplotlib again")
    return face


@cache
def machine_faces() -> Sequence[Face]:
    """Read the fonts that are installed on this machine, upright ones of usual weight first; slow, so that DejaVu is asked before."""
    faces = [face for file in sorted(findSystemFonts()) if (face := _read_face(file)) is not None]
    return sorted(faces, key=lambda face: (face.style not in _PLAIN_STYLES, face.family, face.file))


@cache
def _read_face(file: str) -> Face | None:
    """Read a font; None where it is none that letters can be drawn with at any size."""
    try:
        font = FT2Font(file)
        code_points = frozenset(font.get_charmap())
    except (OSError, RuntimeError, ValueError):
        return None
    usable = font.scalable and not font.num_fixed_sizes and not font.family_name.startswith(_BOXES_ON_PURPOSE)
    return Face(file, font.family_name, font.style_name, code_points) if usable else None
