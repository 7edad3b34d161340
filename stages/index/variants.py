"""Flight heights: which ones a photo belongs to, and which photos of a run are used."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.index.layouts import natural_key


def variants_of(text: str) -> list[str]:
    """Return the heights of a photo: "150+200" lies in the folders of both; "" is shared by all heights and has none of its own."""
    return [name for name in text.split("+") if name]


def variants_in(texts: Iterable[str]) -> list[str]:
    """Return all heights of some photos, in natural order."""
    return sorted({name for text in set(texts) for name in variants_of(text)}, key=natural_key)


def is_chosen(text: str, chosen: Collection[str]) -> bool:
    """Whether a photo of these heights is looked at; none chosen: all are, and what is shared by all always is."""
    return not chosen or not text or any(name in chosen for name in variants_of(text))


def chosen_samples(texts: Sequence[str], chosen: Collection[str]) -> NDArray[np.bool_]:
    """`is_chosen` of each."""
    return np.array([is_chosen(text, chosen) for text in texts], bool)


def narrowed(texts: Sequence[str], asked: Collection[str]) -> list[str]:
    """Return the heights that are chosen of those of some photos; empty where that is all of them."""
    present = variants_in(texts)
    return [] if set(asked) >= set(present) else [name for name in present if name in asked]


def in_several_variants(table: pd.DataFrame) -> list[str]:
    """Return "id (heights)" of the drone photos of a manifest that belong to several heights, which no photo was taken from."""
    drones = table[(table["view"] == "drone") & table["variant"].str.contains("+", regex=False)]
    return [f"{name} ({variant})" for name, variant in zip(drones["id"], drones["variant"], strict=True)]
