"""Samples keep their numbers when the dataset is listed again: what is stored of them stays theirs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.index.variants import is_chosen

_OF_THE_SAMPLE = ("sample", "id", "problem_since")


@dataclass(frozen=True)
class Relisted:
    """A manifest that goes on from an earlier one.

    Attributes
    ----------
    table : DataFrame
        Known samples first, under their old numbers and ids, then the new ones.
    gone : list of str
        Ids of known samples that are not there any more.
    changed : list of str
        Ids of known samples whose file has other content now.
    new : int
        Samples that were not known.
    """

    table: pd.DataFrame
    gone: list[str]
    changed: list[str]
    new: int


def keep_known(known: pd.DataFrame, found: pd.DataFrame, now: str, variants: Collection[str] = ()) -> Relisted:
    """Give the samples of `known` their old places in `found`.

    Parameters
    ----------
    known, found : DataFrame
        Manifests as of `stages.index.manifest.merge_duplicates`; the former one, and what is on the disk.
    now : str
        ISO 8601 time, for problems that were not known.
    variants : collection of str
        Flight heights that new samples may have; none: all. Known samples stay, whatever theirs is.

    Returns
    -------
    Relisted
        A sample is the same where content, place and view are, wherever its file lies now; failing that, where its file is; failing
        that, where file and content are and only what its path is taken to say differs.
    """
    old, new = _rows(known), _rows(found)
    match = _match(old, new)
    kept = [{**new[match[row]], **{name: old[row][name] for name in _OF_THE_SAMPLE}} for row in range(len(old)) if row in match]
    unknown = sorted(set(range(len(new))) - set(match.values()))
    fresh = [dict(new[row]) for row in unknown if is_chosen(new[row]["variant"], variants)]
    _make_unique(fresh, {row["id"] for row in kept})
    before = {row["id"]: row for row in old}
    rows = [*kept, *fresh]
    for sample, row in enumerate(rows):
        row["sample"] = sample
        row["problem_since"] = _since(row, before.get(row["id"], {}), now)
    table = pd.DataFrame(rows, columns=found.columns).astype(found.dtypes.to_dict())
    table.attrs = dict(found.attrs)
    gone = [row["id"] for number, row in enumerate(old) if number not in match]
    return Relisted(table, gone, [row["id"] for row in kept if row["digest"] != before[row["id"]]["digest"]], len(fresh))


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _match(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> dict[int, int]:
    """Old row -> new row: by content first, so that renamed files are known, then by path, so that changed ones are, then whatever it shows."""
    match: dict[int, int] = {}
    for key in (_content, _path, _file):
        taken = set(match.values())
        places = {key(row): number for number, row in reversed(list(enumerate(new))) if number not in taken}
        for number, row in enumerate(old):
            wanted = key(row)
            if number not in match and wanted is not None and wanted in places:
                match[number] = places.pop(wanted)
    return match


def _content(row: dict[str, Any]) -> tuple[str, ...] | None:
    return (row["digest"], row["place"], row["view"]) if row["digest"] else None


def _path(row: dict[str, Any]) -> tuple[str, ...] | None:
    return (row["path"], row["place"], row["view"])


def _file(row: dict[str, Any]) -> tuple[str, ...] | None:
    """The file as it is: a later version may read another place or view off the same path."""
    return (row["path"], row["digest"])


def _make_unique(rows: Iterable[dict[str, Any]], taken: set[str]) -> None:
    for row in rows:
        while row["id"] in taken:
            row["id"] += f"~{row['digest'][:12] or row['path']}"
        taken.add(row["id"])


def _since(row: dict[str, Any], before: dict[str, Any], now: str) -> str:
    if not row["problem"]:
        return ""
    return str(before["problem_since"]) if before.get("problem") == row["problem"] and before["problem_since"] else now
