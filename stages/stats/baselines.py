"""What pointing and energy would be if maps knew nothing of the photo at hand: chance is not the mask's share of the photo.

Maps and targets both tend to lie in the middle. Two baselines take that into account: the same maps against the masks of the other places of their
group, and the group's mean map against each mask. All is told by sums over the images of each place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.stats.bootstrap import PlaceSums
from stages.stats.heat import Heat

Float = NDArray[np.floating]
KINDS = ("pointing", "energy")


@dataclass(frozen=True)
class MaskSums:
    """Sums over the images of each pair of a group and a place.

    Attributes
    ----------
    pairs : int [pair]
        Numbers of the pairs.
    count : float [map, pair]
        Images that have the map and a mask.
    heat : float [2, map, pair, N]
        For each of KINDS, the share of the hottest point that each cell has (1, or less where cells tie), and of the heat; zeros of a map without
        heat. In the photo's frame, N = H x W.
    masks : float [2, pair, N]
        For each of KINDS, whether the cell's centre lies in the mask, and the share of the cell under it, of images that have a mask.
    masked : float [pair]
        How many have one.
    """

    pairs: NDArray[np.intp]
    count: Float
    heat: Float
    masks: Float
    masked: Float

    @classmethod
    def of(cls, heats: Sequence[Heat], pair: NDArray[np.integer]) -> MaskSums:
        """Sum the maps of some images, all with the same masks; `pair` [n] is -1 for images that are in none."""
        masks = heats[0].masks
        assert masks is not None
        there = np.isfinite(masks.share).all(axis=1) & (pair >= 0)
        centre, share = np.where(there[:, None], masks.centre == 1, 0), np.where(there[:, None], masks.share, 0)
        pairs = np.unique(pair[pair >= 0])
        rows = (pairs[:, None] == pair).astype(np.float64)
        count = np.stack([rows @ heat.inside[0] for heat in heats])
        heat = np.array([[rows @ heat.hottest for heat in heats], [rows @ heat.shares for heat in heats]])
        return cls(pairs, count, heat, np.stack([rows @ centre, rows @ share]), rows @ there)

    @classmethod
    def nothing(cls, maps: int, pairs: int, cells: int) -> MaskSums:
        """Sums of no image, to `include` others in; float32, because they are large."""
        shapes = ((maps, pairs), (2, maps, pairs, cells), (2, pairs, cells), (pairs,))
        return cls(np.arange(pairs), *(np.zeros(shape, np.float32) for shape in shapes))

    def include(self, part: MaskSums) -> None:
        """Add the sums of more images to these, in place."""
        self.count[:, part.pairs] += part.count
        self.heat[:, :, part.pairs] += part.heat
        self.masks[:, part.pairs] += part.masks
        self.masked[part.pairs] += part.masked

    def shuffled(self, group: NDArray[np.integer], number: int) -> list[PlaceSums]:
        """Figures of the maps of a group against the masks of its other places: their exact expectation, not a draw.

        Parameters
        ----------
        group : int [pair]
            Group of each pair.
        number : int
            Of the group.

        Returns
        -------
        list of PlaceSums
            A row for each of KINDS, figures [pair of the group, map]. No image where there is no mask of another place.
        """
        own = group == number
        masks, masked = self.masks[:, own], self.masked[own]
        others = masked.sum() - masked
        mean = (masks.sum(axis=1, keepdims=True) - masks) / np.where(others > 0, others, np.nan)[:, None]
        count = np.where(others > 0, self.count[:, own], 0).T
        total = [np.einsum("mpn,pn->pm", self.heat[kind][:, own], mean[kind], dtype=np.float64) for kind in range(len(KINDS))]
        return [PlaceSums(count.astype(np.float64), np.nan_to_num(of_kind)) for of_kind in total]

    def of_mean_map(self, group: NDArray[np.integer], number: int) -> Float:
        """Figures of the mean map of a group against its masks, float64 [2, map]: its hottest point, and its heat; NaN without maps or masks."""
        own = group == number
        mask = self.masks[:, own].sum(axis=1, dtype=np.float64) / max(self.masked[own].sum(), 1)
        heat = self.heat[1][:, own].sum(axis=1, dtype=np.float64)
        hottest = (heat == heat.max(axis=1, keepdims=True)) / np.maximum((heat == heat.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True), 1)
        total = heat.sum(axis=1)
        energy = heat @ mask[1] / np.where(total > 0, total, np.nan)
        return np.where((total > 0) & (self.masked[own].sum() > 0), np.stack([hottest @ mask[0], energy]), np.nan)
