"""A TOML file and `--set table.key=value` options -> frozen settings; an unknown key is refused with the nearest known one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.executors import EXECUTORS
from safenet.architecture import PRESETS, Architecture
from safenet.scenes import SceneSettings
from safenet.train import TrainSettings
from stages.datasets import DatasetSettings
from stages.extract import ExtractSettings
from stages.naming import known, suggestion
from stages.pixels import PixelSettings
from stages.products import CamSettings
from stages.render import RenderSettings
from stages.stats import StatsSettings

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line that names the file, the key and the remedy."""


class ComputeSettings(BaseModel):
    """The [compute] table: how the CPU stages run; never part of a stamp."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    executor: str = Field("threads", description="how blocks are run: serial, threads")
    workers: int | None = Field(None, ge=1, description="default: the machine's cores")


class ModelSettings(BaseModel):
    """The [model] table of `atlas train`: a preset, and sizes that differ from it. Other commands read the checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = Field("upstream", description=", ".join(PRESETS))
    image_size: int | None = Field(None, description="side of the input, pixels; this and all below: default of the preset")
    patch_size: int | None = Field(None, description="side of a patch, pixels")
    width: int | None = Field(None, description="channels of a token")
    depth: int | None = Field(None, description="transformer blocks")
    heads: int | None = Field(None, description="attention heads")
    mlp_ratio: float | None = Field(None, description="hidden width of a block's MLP over its width")
    parts: int | None = Field(None, description="rings of FPM: a power of two")
    embedding: int | None = Field(None, description="length of a head's embedding")
    loc_hidden: int | None = Field(None, description="hidden width of the localisation network")
    sampling: str | None = Field(None, description="FAM's: nearest (as published; its warp never learns) or bilinear")
    drop_path: float | None = Field(None, description="stochastic depth of the last block")

    def architecture(self) -> Architecture:
        """Resolve the preset; `classes` is set by the training places."""
        sizes = self.model_dump(exclude={"preset"}, exclude_none=True)
        return Architecture(**{**PRESETS[known(self.preset, PRESETS, "model.preset")].as_dict(), **sizes})


class Settings(BaseModel):
    """All tables of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: DatasetSettings | None = None
    extract: ExtractSettings = ExtractSettings()
    cam: CamSettings = CamSettings()
    stats: StatsSettings = StatsSettings()
    pixels: PixelSettings = PixelSettings()
    render: RenderSettings = RenderSettings()
    compute: ComputeSettings = ComputeSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    scenes: SceneSettings = SceneSettings()


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
    tables = {} if path is None else _read(path)
    where = "--set" if path is None else str(path)
    for assignment in assignments:
        _assign(tables, assignment)
    try:
        settings = Settings.model_validate(tables)
        known(settings.compute.executor, EXECUTORS, "compute.executor")
        settings.model.architecture()
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_fault(error)}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    return settings


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _assign(tables: dict[str, Any], assignment: str) -> None:
    name, equals, text = assignment.partition("=")
    table, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise ConfigError(f"--set {assignment}: expected table.key=value, for instance cam.methods=['l2_norm']")
    if not isinstance(tables.setdefault(table, {}), dict):
        raise ConfigError(f"{table} = {tables[table]!r}: expected a table [{table}]")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    tables[table][key] = value


def _first_fault(error: ValidationError) -> str:
    """Say in one line what the first fault is and what would be right."""
    fault = min(error.errors(), key=lambda fault: fault["type"] not in _UNKNOWN_KEY)  # a typo often is why another key is missing
    place = [str(part) for part in fault["loc"]]
    name = ".".join(place)
    if fault["type"] == "missing":
        return f"{name} is not set, and has no default"
    if fault["type"] in _UNKNOWN_KEY:
        names = _fields_of(place[:-1])
        kind = "key" if len(place) > 1 else "table"
        return f"unknown {kind} {name!r}.{suggestion(place[-1], names)} Known: {', '.join(names)}"
    message = fault["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list, such as ['a', 'b']")
    return message if message.startswith(name) else f"{name} = {fault['input']!r}: {message}"


def _fields_of(place: list[str]) -> list[str]:
    model: Any = Settings
    for part in place:
        annotation = model.model_fields[part].annotation
        model = next((kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields") or is_dataclass(kind)), None)
        if model is None:
            return []
    return sorted(getattr(model, "model_fields", None) or (field.name for field in fields(model)))
