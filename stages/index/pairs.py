"""Whether the photos of a manifest pair up: which places have both views, and which queries have nothing to find."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

_OTHER_VIEW = {"drone": "satellite", "satellite": "drone"}


@dataclass(frozen=True)
class PairCounts:
    """Photos that can be used, of the views drone and satellite, counted.

    Attributes
    ----------
    places
        Places that have photos.
    complete
        Places with photos of both views.
    queries
        Photos that serve as a query.
    misses
        Queries without a gallery photo of their place in the other view: retrieval counts each as a miss.
    """

    places: int
    complete: int
    queries: int
    misses: int

    def __str__(self) -> str:
        text = f"{self.complete:,} of {self.places:,} places have both drone and satellite photos"
        if self.queries:
            text += f"; {self.misses:,} of {self.queries:,} queries have no gallery photo of their place in the other view"
        return text + (" and count as misses" if self.misses else "")


def count_pairs(table: pd.DataFrame) -> PairCounts:
    """Count the pairs of a manifest (columns view, place, roles, problem)."""
    usable = table[(table["problem"] == "") & table["view"].isin(list(_OTHER_VIEW))]
    gallery, queries = (usable[[role in text.split("+") for text in usable["roles"]]] if len(usable) else usable for role in ("gallery", "query"))
    offered = set(zip(gallery["view"], gallery["place"], strict=True))
    misses = sum((_OTHER_VIEW[view], place) not in offered for view, place in zip(queries["view"], queries["place"], strict=True))
    views = usable.groupby("place")["view"].nunique()
    return PairCounts(len(views), int((views == 2).sum()), len(queries), misses)
