"""The image that ranks first, in words: a picture of a target `best` explains the similarity with it, and names it."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.cam.references import References
from pipeline.run.directory import Run
from stages.recent import Recent
from stages.targets.names import NO_TARGET, parse_target
from stages.targets.references import Ranked


def names_the_best(target: str) -> bool:
    """Whether pictures of a target name the image that ranks first."""
    return target != NO_TARGET and parse_target(target).row.who == "best"


class BestImages:
    """Names the image that ranks first for others; remembers what it said, and the embeddings of the last checkpoint.

    Parameters
    ----------
    run : Run
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._last: Recent[str, References] = Recent(1)
        self._said: dict[tuple[str, bool, int], str] = {}

    def words(self, checkpoint: str, target: str, samples: Sequence[int]) -> list[str]:
        """Name the image that ranks first for each sample, with its score, beside the true one; empty texts for other targets than `best`.

        The score is the mean over all heads of the cosine, by which the gallery is ranked.
        """
        if not names_the_best(target):
            return [""] * len(samples)
        flip = parse_target(target).flip
        for sample in samples:
            if (checkpoint, flip, sample) not in self._said:
                references = self._last.get(checkpoint, lambda: References(self._run.features(checkpoint)))
                self._said[checkpoint, flip, sample] = _words(references.bank(flip=flip).ranked(sample), references.sample_ids)
        return [self._said[checkpoint, flip, sample] for sample in samples]


def _words(found: Ranked | None, ids: Sequence[str]) -> str:
    if found is None:
        return ""
    first = f"{ids[found.first]} ({found.first_score:.3f})"
    if found.true is None:
        return f"ranks first: {first}; no image of its place is in the gallery"
    if found.rank == 1:
        return f"ranks first, and is true: {first}"
    return f"ranks first: {first}; true: {ids[found.true]} ({found.true_score:.3f}), rank {found.rank}"
