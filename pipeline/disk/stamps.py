"""Stamps: digests of everything that a product was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DIGEST_LENGTH = 32  # hex digits of 128 bits


def stamp(ingredients: Any) -> str:
    """Digest plain values (blake2b, 128 bits, hex); the order of keys does not matter."""
    text = json.dumps(ingredients, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def difference(made: Mapping[str, Any], wanted: Mapping[str, Any], within: str = "") -> str:
    """Say in words which ingredient differs first: "settings.alpha was 0.5, is 0.4"; empty where none does."""
    for key, value in wanted.items():
        was = made.get(key)
        if isinstance(value, Mapping) and isinstance(was, Mapping):
            if found := difference(was, value, f"{within}{key}."):
                return found
        elif stamp(was) != stamp(value):
            digests = isinstance(value, str) and len(value) == _DIGEST_LENGTH
            return f"{within}{key} changed" if digests else f"{within}{key} was {was!r}, is {value!r}"
    return ""


def bytes_digest(content: bytes) -> str:
    """Digest bytes as `file_digest` does."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Digest a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
