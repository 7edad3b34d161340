"""A batch that does not fit on the device is halved, and the rest of the work goes on with the smaller one."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor

from safenet.architecture import Architecture
from stages.extract.batch import FeatureExtractor


class HalvingExtractor:
    """A FeatureExtractor that goes on when the device is out of memory.

    Parameters
    ----------
    extractor : FeatureExtractor
    tell : callable
        Told once, in words, whenever the batch is halved.

    Notes
    -----
    Rows come back as one batch, whatever it was cut into. Numbers of a halved batch differ from those of the whole one
    as batch sizes make them differ: by rounding.
    """

    def __init__(self, extractor: FeatureExtractor, tell: Callable[[str], None] = lambda text: None) -> None:
        self._extractor = extractor
        self._tell = tell
        self._most: int | None = None

    @property
    def architecture(self) -> Architecture:
        """Of the network."""
        return self._extractor.architecture

    def __call__(self, photos: Tensor, class_index: Tensor) -> dict[str, Tensor]:
        """As FeatureExtractor, for `photos` [B, S, S, 3] and `class_index` [B].

        Raises
        ------
        torch.OutOfMemoryError
            If the device runs out of memory with one image.
        """
        while (found := self._try(photos, class_index)) is None:
            size = min(self._most or len(photos), len(photos))
            self._most = max(1, size // 2)
            gc.collect()  # here, outside the handler: a traceback holds the tensors of the frames that it passed
            if self._extractor.device.type == "cuda":
                torch.cuda.empty_cache()
            self._tell(f"{self._extractor.device} runs out of memory with {size} images at once; continuing with {self._most}")
        return found

    def _try(self, photos: Tensor, class_index: Tensor) -> dict[str, Tensor] | None:
        size = self._most or len(photos)
        try:
            pieces = [self._extractor(photos[start : start + size], class_index[start : start + size]) for start in range(0, len(photos), size)]
        except torch.OutOfMemoryError:
            if min(size, len(photos)) == 1:
                raise
            return None
        return pieces[0] if len(pieces) == 1 else {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
