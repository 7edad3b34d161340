"""Rows as columns of text that fit the terminal: nothing is cut."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain

_GAP = "  "
_INDENT = "    "
_LEAST = 30  # columns for the last cell; with fewer left it goes below its row
_NOTHING = ("", "-")


def terminal_width() -> int | None:
    """Return how many columns standard output shows, as COLUMNS says, or the terminal; None where it is neither."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None


def format_table(rows: Sequence[dict[str, str]], width: int | None = None) -> str:
    """Lay rows with equal keys out as text columns.

    Parameters
    ----------
    rows : sequence of dict
        Column head -> text.
    width : int or None
        Columns of the terminal, within which the last column is wrapped; None: a row is a line, however long.
    """
    columns = [[name, *(row[name] for row in rows)] for name in rows[0]]
    widths = [max(map(shown_width, column)) for column in columns]
    lines = list(zip(*columns, strict=True))
    before = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    if width is None or before + widths[-1] <= width:
        return "\n".join(_joined(line, widths) for line in lines)
    if width - before >= _LEAST:
        return "\n".join(line for cells in lines for line in _beside(cells, widths, before, width))
    return "\n".join(line for cells in lines for line in _below(cells, widths, width))


def in_one_line(text: str) -> str:
    """Return the words of a text, which may come from a user's file, with one blank between them."""
    return " ".join(text.split())


def shown_width(text: str) -> int:
    """Return how many columns a text takes: two for a wide character, such as a Chinese one, none for a combining one."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(" " * (width - shown_width(cell)) + cell for cell, width in zip(cells, widths, strict=True))


def _beside(cells: Sequence[str], widths: Sequence[int], before: int, width: int) -> Iterator[str]:
    """The last cell wrapped within what the others leave."""
    first, *rest = _wrapped(cells[-1], width - before)
    yield f"{_joined(cells[:-1], widths[:-1])}{_GAP}{first}"
    yield from (" " * before + line for line in rest)


def _below(cells: Sequence[str], widths: Sequence[int], width: int) -> Iterator[str]:
    """The last cell under its row, if it says anything."""
    yield _joined(cells[:-1], widths[:-1])
    if cells[-1] not in _NOTHING:
        yield from (f"{_INDENT}{line}" for line in _wrapped(cells[-1], max(width - len(_INDENT), 1)))


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text at spaces, and words that are too long wherever the line ends."""
    lines = [""]
    for piece in chain.from_iterable(_pieces(word, width) for word in text.split(" ")):
        longer = f"{lines[-1]} {piece}" if lines[-1] else piece
        if shown_width(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(piece)
    return lines


def _pieces(word: str, width: int) -> Iterator[str]:
    while shown_width(word) > width:
        fitting = max(sum(size <= width for size in accumulate(map(shown_width, word))), 1)
        yield word[:fitting]
        word = word[fitting:]
    yield word
