"""What an image is compared with: mean unit embeddings of the images of a place, of the image that ranks first, or of a named one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.finite import finite_rows, whole_or_nothing
from stages.recent import Recent
from stages.targets.names import TargetName

UNDEFINED = -1
NEIGHBOURS = 3
Role = Literal["own", "all", "rivals"]
_OTHER_VIEW = {"drone": "satellite", "satellite": "drone"}
_AT_ONCE = 256
_NAMED = 64  # images that targets name, at a time: 10 kB each of the full-size network
Float = NDArray[np.float32]
EmbeddingBlocks = Callable[[], Iterable[Float]]


def reference_name(target: TargetName, role: Role) -> str:
    """Name of the per-sample variable [sample, head, embed] that a similarity target reads.

    Parameters
    ----------
    target : TargetName
    role : {"own", "all", "rivals"}
        What the image is compared with; the mean over all places of its view and split; the mean of the places most like it.
    """
    who = f"{target.row.who}:{target.name}" if target.name else target.row.who
    return f"reference_{role}_{who}{'_flip' if target.flip else ''}"


@dataclass(frozen=True)
class ReferenceGroups:
    """Which mean embedding a sample is compared with, and which samples make it up.

    Parameters
    ----------
    member : int64 [sample, 2]
        Groups that the sample's embedding contributes to: of its own split, and of the test gallery where a training image serves there, too;
        UNDEFINED for none.
    wanted : int64 [sample]
        Group that the sample is compared with: its place in the other view; UNDEFINED where there is none.
    family : int64 [group]
        View and split of each group, as a number: groups of one family compete with each other.
    own_family, other_family : int64 [sample]
        Family of the sample's own view and split, and of the other view and the same split; UNDEFINED where that has no group.
    """

    member: NDArray[np.int64]
    wanted: NDArray[np.int64]
    family: NDArray[np.int64]
    own_family: NDArray[np.int64]
    other_family: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.family)

    def gallery(self, family: int) -> NDArray[np.bool_]:
        """Which samples make up a family's groups, [sample]."""
        return np.asarray((_rows_of(self.family, self.member) == family).any(axis=1))

    def within(self, samples: NDArray[np.int64], family: NDArray[np.int64]) -> NDArray[np.int64]:
        """Group of each sample that is of a family; UNDEFINED for none."""
        members = _rows_of(self.member, samples)
        return np.where(_rows_of(self.family, members) == family[:, None], members, UNDEFINED).max(axis=1, initial=UNDEFINED)

    def of_group(self, group: int) -> NDArray[np.bool_]:
        """Which samples make up a group, [sample]."""
        return np.asarray((self.member == group).any(axis=1))


def reference_groups(place: Sequence[str], view: Sequence[str], split: Sequence[str], roles: Sequence[str], valid: Sequence[bool]) -> ReferenceGroups:
    """Group the possible references by (place, view, split); test images are compared with gallery images only, training places among them."""
    rows = list(zip(place, view, split, roles, valid, strict=True))
    served = [_served(s, role.split("+")) if ok else [] for _, _, s, role, ok in rows]
    keys = sorted({(p, v, s) for (p, v, *_), splits in zip(rows, served, strict=True) for s in splits})
    number = {key: index for index, key in enumerate(keys)}
    member = np.full((len(rows), 2), UNDEFINED)
    for row, ((p, v, *_), splits) in enumerate(zip(rows, served, strict=True)):
        member[row, : len(splits)] = [number[p, v, s] for s in splits]
    wanted = [number.get((p, _OTHER_VIEW.get(v, ""), s), UNDEFINED) if ok else UNDEFINED for p, v, s, _, ok in rows]
    families = {key: index for index, key in enumerate(sorted({(v, s) for _, v, s in keys}))}
    family = [families[v, s] for _, v, s in keys]
    own = [families.get((v, s), UNDEFINED) for _, v, s, _, _ in rows]
    other = [families.get((_OTHER_VIEW.get(v, ""), s), UNDEFINED) if ok else UNDEFINED for _, v, s, _, ok in rows]
    return ReferenceGroups(member, *(np.array(found, np.int64) for found in (wanted, family, own, other)))


def _served(split: str, roles: Sequence[str]) -> list[str]:
    """Splits whose images are compared with an image: its own first."""
    return [s for s, serves in ((split, split == "train" or "gallery" in roles), ("test", split == "train" and "gallery" in roles)) if serves]


def reference_embeddings(blocks: Iterable[tuple[Float, NDArray[np.int64]]], count: int) -> Float:
    """Mean over each group of the unit embeddings of the heads.

    Parameters
    ----------
    blocks : (embedding float32 [B, heads, E], member int64 [B, groups of a sample]) pairs
    count : int
        Number of groups.

    Returns
    -------
    float32 [count, heads, E]
        Embeddings that are not finite are left out; NaN for a group of which none is left.
    """
    total, seen = None, np.zeros(count)
    for embedding, members in blocks:
        unit, finite = _unit(embedding), finite_rows(embedding)
        total = np.zeros((count, *embedding.shape[1:])) if total is None else total
        for member in members.T:
            chosen = (member != UNDEFINED) & finite
            np.add.at(total, member[chosen], unit[chosen])
            np.add.at(seen, member[chosen], 1)
    if total is None:
        return np.zeros((count, 0, 0), np.float32)
    return (total / np.where(seen > 0, seen, np.nan)[:, None, None]).astype(np.float32)


@dataclass(frozen=True)
class Ranked:
    """What a sample's gallery is ranked to: the sample that comes first, and the best one of its own place.

    Attributes
    ----------
    first : int
    first_score : float
        Mean over all heads of the cosine.
    true : int or None
        None where no gallery image shows the place.
    true_score : float
        NaN where there is none.
    rank : int
        Of `true`, 1 the first; 0 where there is none.
    """

    first: int
    first_score: float
    true: int | None = None
    true_score: float = math.nan
    rank: int = 0


@dataclass(frozen=True)
class ReferenceBank:
    """Answers what the samples of a checkpoint are compared with.

    Parameters
    ----------
    groups : ReferenceGroups
    embeddings : callable
        Returns an iterator over the embeddings [B, heads, E] of all samples, block by block, in order; with those of the flipped images added
        where the target says so. Called once for the places, once more for what ranks first.
    """

    groups: ReferenceGroups
    embeddings: EmbeddingBlocks
    _read: Recent[int, Float] = field(default_factory=lambda: Recent(_NAMED))

    @cached_property
    def places(self) -> Float:
        """Mean unit embedding of each group, [group, heads, E]."""
        return reference_embeddings(self._with(self.groups.member), self.groups.count)

    @cached_property
    def family_mean(self) -> Float:
        """Mean over the groups of each family, [family, heads, E]."""
        numbers = range(int(self.groups.family.max(initial=-1)) + 1)
        known, found = finite_rows(self.places), np.full((len(numbers), *self.places.shape[1:]), np.nan, np.float32)
        for number in numbers:
            of_family = self.places[(self.groups.family == number) & known]
            if len(of_family):
                found[number] = of_family.mean(axis=0)
        return found

    @cached_property
    def best(self) -> NDArray[np.int64]:
        """Sample that ranks first for each sample, by the whole descriptor, among those that serve its other view; UNDEFINED for none.

        The unit embeddings of all samples are held in memory: 10 kB an image of the full-size network.
        """
        descriptor, groups = self._units.reshape(len(self._units), -1), self.groups
        found, finite = np.full(len(descriptor), UNDEFINED), finite_rows(self._units)
        for family in np.unique(groups.other_family[groups.other_family != UNDEFINED]):
            gallery, asking = np.flatnonzero(groups.gallery(family) & finite), np.flatnonzero((groups.other_family == family) & finite)
            for start in range(0, len(asking) if len(gallery) else 0, _AT_ONCE):
                rows = asking[start : start + _AT_ONCE]
                found[rows] = gallery[(descriptor[rows] @ descriptor[gallery].T).argmax(axis=1)]
        return found

    def ranked(self, sample: int) -> Ranked | None:
        """Rank the gallery of a sample's other view, as `best` does; None where it has no gallery, or its own embedding is not finite."""
        groups, finite = self.groups, finite_rows(self._units)
        family, wanted = groups.other_family[sample], groups.wanted[sample]
        gallery = np.flatnonzero(groups.gallery(family) & finite)
        if family == UNDEFINED or not len(gallery) or not finite[sample]:
            return None
        score = np.einsum("he,ghe->g", self._units[sample], self._units[gallery]) / self._units.shape[1]
        first, true = int(score.argmax()), groups.of_group(wanted)[gallery] if wanted != UNDEFINED else np.zeros(len(gallery), bool)
        if not true.any():
            return Ranked(int(gallery[first]), float(score[first]))
        best_true = int(np.where(true, score, -np.inf).argmax())
        rank = 1 + int((score > score[best_true]).sum())
        return Ranked(int(gallery[first]), float(score[first]), int(gallery[best_true]), float(score[best_true]), rank)

    def of(self, target: TargetName, role: Role, rows: slice, named: int = UNDEFINED) -> Float:
        """Return what samples are compared with, float32 [B, heads, E]; NaN for samples that have nothing.

        Parameters
        ----------
        target : TargetName
            A similarity.
        role : {"own", "all", "rivals"}
        rows : slice
            Of the samples.
        named : int
            The sample that the target names, if it names one.
        """
        own, group, family = self._references(target.row.who, rows, named)
        if role == "own":
            return own
        return _rows_of(self.family_mean, family) if role == "all" else self._rivals(own, group, family)

    def _references(self, who: str, rows: slice, named: int) -> tuple[Float, NDArray[np.int64], NDArray[np.int64]]:
        """Unit embeddings, groups and families of what samples are compared with."""
        if who == "match":
            group = self.groups.wanted[rows]
            return _rows_of(self.places, group), group, _rows_of(self.groups.family, group)
        if who == "best":
            samples = self.best[rows]
            family = np.where(samples == UNDEFINED, UNDEFINED, self.groups.other_family[rows])
            return _rows_of(self._units, samples), self.groups.within(samples, family), family
        samples = np.full(len(self.groups.wanted[rows]), named)
        family = _rows_of(self.groups.own_family, samples)
        return np.repeat(self._named(named)[None], len(samples), axis=0), self.groups.within(samples, family), family

    def _rivals(self, own: Float, group: NDArray[np.int64], family: NDArray[np.int64]) -> Float:
        """Mean of the NEIGHBOURS places of the same view and split that are most like what the sample is compared with, its own left out."""
        found, asking = np.full_like(own, np.nan), (family != UNDEFINED) & finite_rows(own)
        flat, known = self.places.reshape(len(self.places), -1), finite_rows(self.places)
        for number in np.unique(family[asking]):
            rows, others = np.flatnonzero(asking & (family == number)), np.flatnonzero((self.groups.family == number) & known)
            likeness = own[rows].reshape(len(rows), flat.shape[1]) @ flat[others].T
            likeness[group[rows][:, None] == others] = -np.inf
            order = np.argsort(-likeness, axis=1, kind="stable")[:, :NEIGHBOURS]
            for row, nearest, like in zip(rows, order, np.take_along_axis(likeness, order, axis=1), strict=True):
                if len(chosen := others[nearest[like > -np.inf]]):
                    found[row] = self.places[chosen].mean(axis=0)
        return found

    @cached_property
    def _units(self) -> Float:
        return np.concatenate([_unit(block) for block in self.embeddings()])

    def _named(self, sample: int) -> Float:
        """Unit embedding of one sample; those of the last few that were named are kept."""

        def read() -> Float:
            start = 0
            for block in self.embeddings():
                if sample < start + len(block):
                    return np.array(_unit(block)[sample - start])  # not a view, which would keep the block
                start += len(block)
            raise IndexError(f"sample {sample} of {start}")

        return self._read.get(sample, read)

    def _with(self, member: NDArray[np.int64]) -> Iterator[tuple[Float, NDArray[np.int64]]]:
        start = 0
        for block in self.embeddings():
            yield block, member[start : start + len(block)]
            start += len(block)


def _rows_of(values: NDArray, index: NDArray[np.int64]) -> NDArray:
    """values[index], NaN (or UNDEFINED, for integers) where the index is UNDEFINED."""
    nothing = UNDEFINED if values.dtype.kind == "i" else np.nan
    if not len(values):
        return np.full((len(index), *values.shape[1:]), nothing, values.dtype)
    found = values[index]
    found[index == UNDEFINED] = nothing
    return found


def _unit(embedding: NDArray[np.floating]) -> Float:
    known = whole_or_nothing(embedding)
    norm = np.linalg.norm(known, axis=2, keepdims=True)
    return (known / np.where(norm > 0, norm, 1)).astype(np.float32)
