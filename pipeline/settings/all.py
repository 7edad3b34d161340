"""A TOML file and `--set table.key=value` options -> frozen settings; an unknown key is refused with the nearest known one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.settings.compute import ComputeSettings
from pipeline.settings.toml import ConfigError, first_fault, place_of_first_fault, read_toml, words_of_first_fault
from safenet.architecture import PRESETS, Architecture
from safenet.scenes.settings import SceneSettings
from safenet.training.settings import TrainSettings
from stages.cam.settings import CamSettings
from stages.extract.settings import ExtractSettings
from stages.index.settings import DatasetSettings
from stages.naming import known
from stages.render.settings import RenderSettings
from stages.stats.settings import PixelSettings, StatsSettings

__all__ = ["ComputeSettings", "ConfigError", "ModelSettings", "Settings", "load_settings"]


class ModelSettings(BaseModel):
    """The [model] table of `atlas train`: a preset, and sizes that differ from it. Other commands read the checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    preset: str = Field("upstream", description=", ".join(PRESETS))
    image_size: int | None = Field(None, description="side of the input, pixels; this and all below: by default as in the preset")
    patch_size: int | None = Field(None, description="side of a patch, pixels")
    width: int | None = Field(None, description="number of channels of a token")
    depth: int | None = Field(None, description="number of transformer blocks")
    heads: int | None = Field(None, description="number of attention heads")
    mlp_ratio: float | None = Field(None, description="hidden width of the MLP of a transformer block, divided by the width")
    parts: int | None = Field(None, description="number of rings of FPM, a power of two")
    embedding: int | None = Field(None, description="length of the embedding of a head")
    loc_hidden: int | None = Field(None, description="hidden width of the localisation network")
    sampling: str | None = Field(None, description="sampling of FAM: nearest (as published; the warp never learns) or bilinear")
    drop_path: float | None = Field(None, description="stochastic depth of the last transformer block")

    def architecture(self) -> Architecture:
        """Resolve the preset; `classes` is set by the training places."""
        sizes = self.model_dump(exclude={"preset"}, exclude_none=True)
        return Architecture(**{**PRESETS[known(self.preset, PRESETS, "model.preset")].as_dict(), **sizes})


class Settings(BaseModel):
    """All tables of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    dataset: DatasetSettings | None = None
    extract: ExtractSettings = Field(default_factory=ExtractSettings)
    cam: CamSettings = Field(default_factory=CamSettings)
    stats: StatsSettings = Field(default_factory=StatsSettings)
    pixels: PixelSettings = Field(default_factory=PixelSettings)
    render: RenderSettings = Field(default_factory=RenderSettings)
    compute: ComputeSettings = Field(default_factory=ComputeSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    scenes: SceneSettings = Field(default_factory=SceneSettings)


def load_settings(path: Path | None, assignments: Iterable[str] = ()) -> Settings:
    """Read a configuration.

    Parameters
    ----------
    path : Path or None
        TOML file; relative paths in it are taken from the working directory.
    assignments : iterable of str
        "table.key=value" each, the value as TOML (bare words are text); they win over the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ConfigError
        If a key is unknown or a value is of the wrong kind.
    """
    file_tables = {} if path is None else read_toml(path)
    given = _read_assignments(assignments)
    for table in {assignment.table for assignment in given.values()}:
        if not isinstance(file_tables.get(table, {}), dict):
            raise ConfigError(f"{path}: {table} = {file_tables[table]!r}: expected a table [{table}]")
    try:
        return _checked(_joined(file_tables, given.values()))
    except _FaultError as fault:
        raise ConfigError(f"{_whose(fault, path, file_tables, given)}: {fault}") from None


@dataclass(frozen=True)
class _Assignment:
    """A `--set` option, as it was given and taken apart."""

    text: str
    table: str
    key: str
    value: Any


class _FaultError(ValueError):
    """What is wrong with some tables: the message, and to know it again, which key it is about and what is said of it."""

    def __init__(self, text: str, place: tuple[str, ...] = (), words: str = "") -> None:
        super().__init__(text)
        self.place, self.words = place, words or text


def _read_assignments(assignments: Iterable[str]) -> dict[str, _Assignment]:
    """Take them apart, by table.key; the last one of a key wins."""
    found = [_read_assignment(assignment) for assignment in assignments]
    return {f"{assignment.table}.{assignment.key}": assignment for assignment in found}


def _read_assignment(assignment: str) -> _Assignment:
    name, equals, text = assignment.partition("=")
    table, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise ConfigError(f"--set {assignment}: expected table.key=value, for instance cam.methods=['l2_norm']")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return _Assignment(assignment.strip(), table, key, value)


def _joined(tables: Mapping[str, Any], assignments: Iterable[_Assignment]) -> dict[str, Any]:
    joined = dict(tables)
    for assignment in assignments:
        joined[assignment.table] = {**joined.get(assignment.table, {}), assignment.key: assignment.value}
    return joined


def _checked(tables: Mapping[str, Any]) -> Settings:
    try:
        settings = Settings.model_validate(tables)
        settings.model.architecture()
    except ValidationError as error:
        raise _FaultError(first_fault(error, Settings), place_of_first_fault(error), words_of_first_fault(error)) from None
    except ValueError as error:
        raise _FaultError(str(error)) from None
    return settings


def _whose(fault: _FaultError, path: Path | None, file_tables: Mapping[str, Any], given: Mapping[str, _Assignment]) -> str:
    """Say where a fault comes from: the option that set the key, the file, or both where it takes both."""
    options = list(given.values())
    if (assignment := given.get(".".join(fault.place[:2]))) is not None:
        return f"--set {assignment.text}"
    if path is not None and _has_fault(file_tables, fault):
        return str(path)
    needed = [option for option in options if not _has_fault(_joined(file_tables, [other for other in options if other != option]), fault)]
    told = " ".join(f"--set {option.text}" for option in needed or options)
    return told if path is None or _has_fault(_joined({}, options), fault) else f"{path} with {told}"


def _has_fault(tables: Mapping[str, Any], fault: _FaultError) -> bool:
    """Whether these tables have the same fault."""
    try:
        _checked(tables)
    except _FaultError as found:
        return (found.place, found.words) == (fault.place, fault.words)
    return False
