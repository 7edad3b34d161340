"""How a target is written, and what each word of it means: `predicted`, `class_0012.part_2`, `match_share.flip`, `label.softmax`, ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Literal
from urllib.parse import quote

from stages.naming import known

Kind = Literal["class", "similarity"]
Reading = Literal["gradient", "share", "contrast"]
NO_TARGET = "none"


@dataclass(frozen=True)
class TargetBase:
    """A row of BASES.

    Parameters
    ----------
    kind : {"class", "similarity"}
        A class score, or the cosine with other images of the run.
    who : str
        Whose class or image: label, predicted, counter, class; match, best, pair.
    reading : {"gradient", "share", "contrast"}
        Of a similarity: through the norm, at a fixed norm, or that less the mean over all places; see stages/targets/scoring.py.
    meaning : str
        In one line, for `atlas methods`.
    """

    kind: Kind
    who: str
    reading: Reading
    meaning: str


_CLASS_ROWS = {
    "label": "the class of the place that the image shows",
    "predicted": "the class with the highest mean logit over the parts",
    "counter": "the class with the second highest mean logit over the parts: what supports the runner-up",
    "class_": "the class of that name",
}
_SIMILARITY_ROWS = {
    "match": "the true images of the other view",
    "best": "the gallery image of the other view that ranks first",
    "pair": "the image with that id",
}
_READINGS: Mapping[str, tuple[Reading, str]] = {
    "": ("gradient", "cosine with {}; its gradient passes through the norm"),
    "_share": ("share", "cosine with {}, with the norm held fixed; hires_cam adds up to it"),
    "_contrast": ("contrast", "cosine with {}, minus the mean over all places of that view and split"),
}


def _similarity_rows() -> dict[str, TargetBase]:
    rows = {}
    for who, whom in _SIMILARITY_ROWS.items():
        for suffix, (reading, words) in _READINGS.items():
            rows[f"{who}{suffix}{'_' if who == 'pair' else ''}"] = TargetBase("similarity", who, reading, words.format(whom))
    return rows


BASES: Mapping[str, TargetBase] = MappingProxyType(
    {**{key: TargetBase("class", key.removesuffix("_"), "gradient", words) for key, words in _CLASS_ROWS.items()}, **_similarity_rows()}
)
MODIFIERS: Mapping[str, str] = MappingProxyType(
    {
        "part_<p>": "the score of part p only (1: the centre), instead of the mean over the parts",
        "global": "the score of the global head only; it reads CLS, so it has a gradient only at transformer blocks",
        "whole": "the mean over all heads, including the global one: the whole descriptor",
        "softmax": "for a class: its probability instead of its logit",
        "flip": "for a similarity: uses the descriptor of the image plus that of the flipped image, as the published test does; needs flip_embedding",
    }
)


@dataclass(frozen=True)
class TargetName:
    """A target, taken apart.

    Attributes
    ----------
    base : str
        Key of BASES.
    name : str
        The class's name or the image's id, for the bases that end in "_".
    heads : str
        "parts" (their mean), "part_<p>", "global" or "whole".
    softmax, flip : bool
        The modifiers.
    """

    base: str
    name: str = ""
    heads: str = "parts"
    softmax: bool = False
    flip: bool = False

    @property
    def row(self) -> TargetBase:
        """What the base means."""
        return BASES[self.base]

    @property
    def is_linear(self) -> bool:
        """Whether the score is affine in the map (for an affine head), so that the cells of hires_cam add up to it."""
        return not self.softmax and (self.row.kind == "class" or self.row.reading != "gradient")

    def __str__(self) -> str:
        words = [f"{self.base}{self.name}", *([self.heads] if self.heads != "parts" else [])]
        return ".".join([*words, *(["softmax"] if self.softmax else []), *(["flip"] if self.flip else [])])


@lru_cache(4096)  # a target may name an image, and there are many
def parse_target(text: str, where: str = "cam.targets") -> TargetName:
    """Take a target apart.

    Parameters
    ----------
    text : str
        A base of BASES (those ending in "_" followed by a name), then modifiers of MODIFIERS, joined by dots.
    where : str
        The setting, for the message.

    Raises
    ------
    ValueError
        If a word is unknown (the nearest known one is named), or modifiers contradict the base or each other.
    """
    rest, modifiers = text, list[str]()
    while (cut := rest.rpartition("."))[0] and _is_modifier(cut[2]):
        rest, modifiers = cut[0], [cut[2], *modifiers]
    base = next((key for key in sorted(BASES, key=len, reverse=True) if key.endswith("_") and rest.startswith(key)), None)
    if base is None:
        shown = [f"{key}<{'class' if BASES[key].kind == 'class' else 'id'}>" if key.endswith("_") else key for key in BASES]
        name = rest if rest in BASES else known(rest, shown, where)
        return _modified(TargetName(name), modifiers, text, where)
    if rest == base:
        raise ValueError(f"{where}: {text!r} lacks a name; expected {base}<{'class' if BASES[base].kind == 'class' else 'id'}>")
    return _modified(TargetName(base, rest.removeprefix(base)), modifiers, text, where)


@cache
def folder_of(target: str) -> str:
    """Return the folder's name of a target in a store: a slash is written %2F."""
    return quote(target, safe="")


def _is_modifier(word: str) -> bool:
    return word in MODIFIERS or (word.startswith("part_") and word.removeprefix("part_").isdecimal())


def _modified(target: TargetName, modifiers: Sequence[str], text: str, where: str) -> TargetName:
    heads = [word for word in modifiers if word not in ("softmax", "flip")]
    if len(heads) > 1 or len(set(modifiers)) < len(modifiers):
        raise ValueError(f"{where}: {text!r}: {', '.join(modifiers)} contradict each other; name one of part_<p>, global, whole, and each word once")
    found = replace(target, heads=heads[0] if heads else "parts", softmax="softmax" in modifiers, flip="flip" in modifiers)
    if found.softmax and found.row.kind != "class":
        raise ValueError(f"{where}: {text!r}: softmax is of a class; this target is a similarity. Leave it out")
    if found.flip and found.row.kind != "similarity":
        raise ValueError(f"{where}: {text!r}: flip is of a similarity; this target is a class. Leave it out")
    return found
