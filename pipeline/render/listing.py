"""mosaics/index.json: the list of a run's pictures, sealed; each picture carries its own checksums."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pipeline.render.catalogue import Picture
from pipeline.run.directory import Run
from pipeline.store.seals import Seal

LISTING = "index.json"


def listing_seal(run: Run) -> Seal:
    """Seal of the list of pictures; each picture carries its own checksums."""
    return Seal(run.directory / "ledger" / "mosaics.json", run.mosaics_path)


def write_listing(run: Run, pictures: Sequence[Picture]) -> None:
    """Write the list where it is another than the one that is there."""
    index = [
        {
            "path": picture.path.as_posix(),
            "kind": picture.kind,
            "place": picture.place,
            "method": picture.method,
            "target": picture.target,
            "checkpoints": picture.checkpoints,
            "series": picture.series,
        }
        for picture in pictures
    ]
    content, path = json.dumps(index, indent=1).encode(), run.mosaics_path / LISTING
    if not listing_seal(run).holds(LISTING) or path.read_bytes() != content:
        listing_seal(run).replace(LISTING, content)
