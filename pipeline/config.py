"""A TOML file and `--set table.key=value` options -> frozen settings; an unknown key is refused with the nearest known one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.compute_settings import ComputeSettings
from pipeline.executors import EXECUTORS
from pipeline.toml_models import ConfigError, first_fault, read_toml
from safenet.architecture import PRESETS, Architecture
from safenet.scenes import SceneSettings
from safenet.train import TrainSettings
from stages.datasets import DatasetSettings
from stages.extract import ExtractSettings
from stages.naming import known
from stages.pixels import PixelSettings
from stages.products import CamSettings
from stages.render import RenderSettings
from stages.stats import StatsSettings

__all__ = ["ComputeSettings", "ConfigError", "ModelSettings", "Settings", "load_settings"]


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
    tables = {} if path is None else read_toml(path)
    where = "--set" if path is None else str(path)
    for assignment in assignments:
        _assign(tables, assignment)
    try:
        settings = Settings.model_validate(tables)
        known(settings.compute.executor, EXECUTORS, "compute.executor")
        settings.model.architecture()
    except ValidationError as error:
        raise ConfigError(f"{where}: {first_fault(error, Settings)}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    return settings


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
