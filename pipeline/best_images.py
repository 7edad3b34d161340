"""What ranks first, in words: pictures of the targets `best` explain a likeness with another image, which they name."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.compared import Compared
from pipeline.run import Run
from stages.references import Ranked
from stages.target_names import NO_TARGET, parse_target


def best_words(run: Run, checkpoint: str, target: str, samples: Sequence[int]) -> list[str]:
    """Name the image that ranks first for each sample, with its score, beside the true one; empty texts for other targets than `best`.

    The score is the mean over all heads of the cosine, by which the gallery is ranked.
    """
    if target == NO_TARGET or parse_target(target).row.who != "best":
        return [""] * len(samples)
    compared = Compared(run.features(checkpoint))
    bank = compared.bank(flip=parse_target(target).flip)
    return [_words(bank.ranked(sample), compared.sample_ids) for sample in samples]


def _words(found: Ranked | None, ids: Sequence[str]) -> str:
    if found is None:
        return ""
    first = f"{ids[found.first]} ({found.first_score:.3f})"
    if found.true is None:
        return f"ranks first: {first}; no image of its place is in the gallery"
    if found.rank == 1:
        return f"ranks first, and is true: {first}"
    return f"ranks first: {first}; true: {ids[found.true]} ({found.true_score:.3f}), rank {found.rank}"
