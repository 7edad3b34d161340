"""The bytes of a store, to compare two of them."""

import re
from pathlib import Path


def content(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`, but for the provenance that tells when a store was made."""
    return {
        path.relative_to(folder).as_posix(): re.sub(rb'"created": "[^"]*"', b"", path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
