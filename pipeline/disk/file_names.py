"""File names made from the names that users give: different names never share one, whatever characters they contain and however long they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

LONGEST = 116  # bytes, to which a suffix of four is added; file systems take 255, archives and sync services often less
_JOINT = "-"
_ESCAPED = "~"  # in no plain word, so that no word looks like another one's escape
_DIGITS = 10
_PLAIN = re.compile(r"[a-z0-9_]([a-z0-9_.]*[a-z0-9_])?")
_PLAIN_ALONE = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")  # nothing is joined to it
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # by Windows, whatever the suffix


def file_name(words: Sequence[str]) -> str:
    """Join words to a name without a suffix; unlike lists of words have unlike names.

    A short word of lower-case letters, digits, dots and underscores stays as it is. Any other is made safe, cut, and ends in "~"
    and ten digits of its digest. Names differ by more than case, end in no dot, are none that Windows keeps for itself, and hold
    at most `LONGEST` ASCII characters. A word that stands alone keeps its hyphens too, so that a folder must not hold names of one
    word beside names of several.
    """
    plain = _PLAIN_ALONE if len(words) == 1 else _PLAIN
    longest = (LONGEST - len(words) + 1) // len(words)
    return _JOINT.join(_safe(word, plain, longest) for word in words)


def _safe(word: str, plain: re.Pattern[str], longest: int) -> str:
    if len(word) <= longest and plain.fullmatch(word) and not _RESERVED.fullmatch(word):
        return word
    readable = re.sub(r"[^a-z0-9]+", "_", word.lower())[: longest - len(_ESCAPED) - _DIGITS]
    return f"{readable}{_ESCAPED}{sha256(word.encode(errors='surrogatepass')).hexdigest()[:_DIGITS]}"
