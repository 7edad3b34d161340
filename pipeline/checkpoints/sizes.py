"""Networks of different sizes in one run: refused, because their figures cannot be compared."""

from __future__ import annotations

from typing import Any

from pipeline.checkpoints.files import CheckpointFile
from pipeline.checkpoints.names import NamedFiles
from pipeline.checkpoints.reading import read_info
from pipeline.run.directory import Run
from pipeline.store.groups import known_groups, read_attributes
from safenet.architecture import Architecture


def check_same_sizes(run: Run, named: NamedFiles) -> None:
    """Compare the configured checkpoints with each other, and with those that are stored and not configured; a file that is known is not read.

    Raises
    ------
    ValueError
        If two of them differ in grid, parts or width.
    """
    stored = {name: _stored_sizes(run, name) for name in known_groups(run.features_path) if name not in named.files}
    sizes = {**{name: _file_sizes(run, file) for name, file in named.files.items()}, **{name: text for name, text in stored.items() if text}}
    first = next(iter(sizes), "")
    other = next((name for name in sizes if sizes[name] != sizes[first]), None)
    if other is not None:
        leaves = f", or take the stored one out: `atlas forget-checkpoint {other}`" if other in stored else ""
        raise ValueError(
            f"extract.checkpoints: {first} ({sizes[first]}) and {other} ({sizes[other]}) differ in size, so their figures cannot be compared. "
            f"Use a run for each (--run){leaves}"
        )


def _stored_sizes(run: Run, name: str) -> str:
    """Empty where the store is only begun, or damaged."""
    found: dict[str, Any] = read_attributes(run.features(name).root).get("architecture", {})
    return _in_words(Architecture(**found)) if found else ""


def _file_sizes(run: Run, file: CheckpointFile) -> str:
    return _in_words(read_info(file, run.settings.extract.told).architecture)


def _in_words(network: Architecture) -> str:
    return f"grid {network.grid} x {network.grid}, {network.parts} parts, width {network.width}"
