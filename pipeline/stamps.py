"""Stamps: digests by which a product knows what it was made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def stamp(ingredients: Any) -> str:
    """Digest plain values (blake2b, 128 bits, hex); the order of keys does not matter."""
    text = json.dumps(ingredients, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Digest a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
