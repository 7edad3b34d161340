"""Checks of `atlas doctor` on the installation, and on the inputs of the run: settings, photos, checkpoints."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement  # comes with xarray and zarr, which compare versions with it

from pipeline.checkpoints.files import find_checkpoint_files
from pipeline.doctor.findings import Asked, Finding, fail, installed_version, ok, one_line, warn
from pipeline.settings.all import load_settings
from safenet.needs_network import REMEDY, missing_network_packages
from stages.index.settings import DatasetSettings

PACKAGE = "safenet-atlas"
OLDEST_PYTHON = (3, 11)  # as pyproject.toml says
OPTIONAL = ("zarrs", "distributed", "grad-cam")


# ---- the installation


def check_python(asked: Asked) -> Finding:
    """Compare the interpreter's version with the oldest one that is supported."""
    found, oldest = platform.python_version(), ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return fail(f"Python {found}; expected {oldest} or newer", f"Make the environment with python{oldest}")
    return ok(f"Python {found} in {sys.prefix}")


def check_required(asked: Asked) -> Finding:
    """Compare the installed packages with what the package's metadata requires."""
    try:
        required = [Requirement(line) for line in metadata.requires(PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        return fail(f"{PACKAGE} is not installed, so its requirements are unknown", "Run `pip install .` in its folder")
    extras = ("",) if missing_network_packages() else ("", "network")
    required = [row for row in required if row.marker is None or any(row.marker.evaluate({"extra": extra}) for extra in extras)]
    required.sort(key=lambda row: row.name)  # the network is an extra, and would come last
    found = {row: installed_version(row.name) for row in required}
    faults = [row for row, version in found.items() if version is None or not row.specifier.contains(version, prereleases=True)]
    if not faults:
        return ok(f"{len(required)} packages have the versions that {PACKAGE} {metadata.version(PACKAGE)} requires")
    text = ", ".join(f"{row.name} {found[row] or 'is missing'} (expected {row.specifier})" for row in faults)
    return fail(text, "Run `pip install " + " ".join(f"'{row.name}{row.specifier}'" for row in faults) + "`")


def missing_network() -> Finding | None:
    """Tell what of the network's packages is missing, and what cannot run without; None where all are there."""
    missing = missing_network_packages()
    if not missing:
        return None
    text = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: extract, pixels, train and demo cannot run here"
    return warn(text, f"Run `{REMEDY}`; all other commands work without")


def check_optional(asked: Asked) -> Finding:
    """List the optional packages; none is ever missed."""
    return ok(", ".join(f"{name} {installed_version(name) or 'not installed'}" for name in OPTIONAL))


# ---- the run


def check_config(asked: Asked) -> Finding:
    """Read the settings, and look for the dataset's folder and a file for every checkpoint pattern."""
    if asked.config is None and not asked.assignments:
        return ok("none given; --config FILE has its dataset and checkpoints checked")
    try:
        settings = load_settings(asked.config, asked.assignments)
    except (ValueError, OSError) as error:
        return fail(one_line(error), "Correct it; `atlas settings` lists all keys")
    faults = [*_dataset_faults(settings.dataset), *_checkpoint_faults(settings.extract.checkpoints)]
    if faults:
        return fail("; ".join(faults), "Correct the paths; `atlas train` makes checkpoints")
    return ok(f"the photos' folder is there; checkpoint files: {len(find_checkpoint_files(settings.extract.checkpoints))}")


def _dataset_faults(dataset: DatasetSettings | None) -> list[str]:
    if dataset is None:
        return ["dataset.root is not set"]
    return [] if dataset.root.is_dir() else [f"dataset.root: {dataset.root} is no folder (working directory {Path.cwd()})"]


def _checkpoint_faults(patterns: Sequence[str]) -> list[str]:
    """One text per pattern that matches no file; else what is amiss with all of them together."""
    faults = []
    for chosen in (*((pattern,) for pattern in patterns), patterns):
        try:
            find_checkpoint_files(chosen)
        except (OSError, ValueError) as error:
            faults.append(one_line(error))
    return list(dict.fromkeys(faults))  # all together repeat the first pattern's
