"""A run as pictures read it: its stores are opened once, and the photos of a place are read once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore
from stages.recent import Recent

_CHECKPOINTS = 256  # of an epoch strip, and their neighbours
_PHOTOS = 64  # of a few places


class OpenedRun(Run):
    """A run whose stores nobody writes while it is read; what was opened or read last is kept."""

    @classmethod
    def of(cls, run: Run) -> OpenedRun:
        """Open a run anew."""
        return cls(run.directory, run.settings, run.progress, run.share)

    def features(self, name: str) -> GroupStore:
        """Features of a checkpoint."""
        return self._features.get(name, lambda: Run.features(self, name))

    def cams(self, name: str) -> GroupStore:
        """Heat maps of a checkpoint."""
        return self._cams.get(name, lambda: Run.cams(self, name))

    @cached_property
    def photos(self) -> Recent[int, NDArray[np.uint8] | None]:
        """Photos by the number of their image, uint8 [H, W, 3]; None where the file is not at hand."""
        return Recent(_PHOTOS)

    @cached_property
    def _features(self) -> Recent[str, GroupStore]:
        return Recent(_CHECKPOINTS)

    @cached_property
    def _cams(self) -> Recent[str, GroupStore]:
        return Recent(_CHECKPOINTS)
