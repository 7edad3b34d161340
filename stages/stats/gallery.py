"""Retrieval between the views of a dataset: who asks, who is looked for, and what is found in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stages.finite import finite_rows, whole_or_nothing
from stages.stats.bootstrap import PlaceBootstrap
from stages.stats.intervals import BOUNDS
from stages.stats.retrieval import JUNK, QUERY_FIGURES, RETRIEVAL_FIGURES, descriptors, outcomes, search, summary

RETRIEVAL_COUNTS = ("queries", "queries_unmatched", "queries_not_finite", "gallery_not_finite")
DIRECTIONS: Mapping[str, tuple[str, str]] = {"drone to satellite": ("drone", "satellite"), "satellite to drone": ("satellite", "drone")}
Embedding = Callable[[NDArray[np.intp]], Sequence[NDArray[np.floating]]]


@dataclass(frozen=True)
class Gallery:
    """The images of a checkpoint as queries and gallery images.

    Parameters
    ----------
    embedding : callable
        Numbers of images, ascending -> their embeddings [n, head, E]; several arrays are added up, as image and flipped image.
    place, view : str [sample]
    valid : bool [sample]
        Images that are looked at.
    queries, offered : bool [sample]
        Which of them ask, and which are looked for.
    finite : bool [sample]
        Whether all embeddings of an image are finite.
    """

    embedding: Embedding
    place: NDArray[np.str_]
    view: NDArray[np.str_]
    valid: NDArray[np.bool_]
    queries: NDArray[np.bool_]
    offered: NDArray[np.bool_]
    finite: NDArray[np.bool_]

    @classmethod
    def of(cls, embedding: Embedding, place: Sequence[str], view: Sequence[str], roles: Sequence[str], valid: Sequence[bool]) -> Gallery:
        """Look at the embeddings once, some images at a time."""
        usable = np.asarray(valid, bool)
        query, offered = (np.array([role in text.split("+") for text in roles], bool) & usable for role in ("query", "gallery"))
        parts = np.array_split(np.arange(len(place)), max(1, -(-len(place) // 1024)))
        finite = np.concatenate([np.all([finite_rows(values) for values in embedding(part)], axis=0) for part in parts])
        return cls(embedding, np.asarray(place), np.asarray(view), usable, query, offered, finite)

    def among(self, chosen: NDArray[np.bool_]) -> Gallery:
        """Leave the other images out."""
        return replace(self, valid=self.valid & chosen, queries=self.queries & chosen, offered=self.offered & chosen)

    def queries_of(self, views: tuple[str, str]) -> NDArray[np.bool_]:
        """Which images ask, of the first of two views."""
        return self.queries & (self.view == views[0])

    def gallery_of(self, views: tuple[str, str]) -> NDArray[np.bool_]:
        """Which images are looked for, of the second of two views."""
        return self.offered & (self.view == views[1])

    def figures(self) -> NDArray[np.float64]:
        """Figures of every query, float64 [sample, 4], the columns of QUERY_FIGURES.

        NaN of images that are no query, whose embedding is not finite, or for which there is no gallery.
        """
        found = np.full((len(self.place), len(QUERY_FIGURES)), np.nan)
        _, number = np.unique(self.place, return_inverse=True)
        for views in DIRECTIONS.values():
            gallery = self.gallery_of(views)
            asked = np.flatnonzero(self.queries_of(views) & self.finite)
            if gallery.any() and len(asked):
                found[asked] = search(self._descriptors, number, asked, np.flatnonzero(gallery & self.finite & (self.place != JUNK)))
        return found

    def reduced(self, figures: NDArray[np.floating], bootstrap: PlaceBootstrap | None = None) -> xr.Dataset:
        """Recall and average precision in both directions, dims (direction,); NaN where there are no queries or no gallery.

        Parameters
        ----------
        figures : float [sample, 4]
            Of `figures`.
        bootstrap : PlaceBootstrap, optional
            Of all images. With it there are `retrieval_interval` (direction, retrieval, bound), and `retrieval_draws` (direction, retrieval, draw),
            the figures over each draw: differences between checkpoints are those of their draws.

        Returns
        -------
        Dataset
            The figures of `summary`, and counts: `queries`; `queries_unmatched`, of places without a gallery image; `queries_not_finite`,
            which count as misses as those do; `gallery_not_finite`, images that are left out of the gallery.
        """
        rows = [self._one_direction(figures, self.queries_of(views), self.gallery_of(views)) for views in DIRECTIONS.values()]
        names = (*RETRIEVAL_FIGURES, *RETRIEVAL_COUNTS)
        found = {name: ("direction", np.array([row.get(name, np.nan) for row in rows])) for name in names}
        told = xr.Dataset(found, coords={"direction": np.array(list(DIRECTIONS), dtype=object)})
        return told.merge(self._certainty(figures, bootstrap)) if bootstrap else told

    def _certainty(self, figures: NDArray[np.floating], bootstrap: PlaceBootstrap) -> xr.Dataset:
        """Draws of both directions, float32 because they are only compared, and their intervals."""
        draws, bounds, places = [], [], []
        for views in DIRECTIONS.values():
            asking, gallery = np.flatnonzero(self.queries_of(views)), self.gallery_of(views)
            values = outcomes(figures[asking], int((gallery & self.finite).sum()))
            there = asking if gallery.any() else asking[:0]
            draws.append(bootstrap.means(bootstrap.sums(values[: len(there)], there)))
            bounds.append(bootstrap.interval(draws[-1], there))
            places.append(len(np.unique(bootstrap.place[there])))
        names = {"retrieval": list(RETRIEVAL_FIGURES), "bound": list(BOUNDS), "direction": list(DIRECTIONS)}
        return xr.Dataset(
            {
                "retrieval_interval": (("direction", "retrieval", "bound"), np.stack(bounds)),
                "retrieval_places": ("direction", np.array(places)),
                "retrieval_draws": (("direction", "retrieval", "draw"), np.stack(draws).swapaxes(1, 2).astype(np.float32)),
            },
            coords={dim: np.array(values, dtype=object) for dim, values in names.items()},
        )

    def _one_direction(self, figures: NDArray[np.floating], query: NDArray[np.bool_], gallery: NDArray[np.bool_]) -> dict[str, float]:
        counts = {
            "queries": query.sum(),
            "queries_unmatched": (query & ~np.isin(self.place, self.place[gallery])).sum(),
            "queries_not_finite": (query & ~self.finite).sum(),
            "gallery_not_finite": (gallery & ~self.finite).sum(),
        }
        told = {name: float(count) for name, count in counts.items()}
        if not (query.any() and gallery.any()):
            return told
        offered = int((gallery & self.finite).sum())
        return {**summary(figures[query & self.finite], offered, int(counts["queries_not_finite"])), **told}

    def _descriptors(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        return descriptors(np.sum([whole_or_nothing(values) for values in self.embedding(rows)], axis=0))


def in_memory(*embeddings: NDArray[np.floating]) -> Embedding:
    """Embeddings that lie in memory, [sample, head, E] each."""

    def read(rows: NDArray[np.intp]) -> Sequence[NDArray[np.floating]]:
        return [values[rows] for values in embeddings]

    return read
