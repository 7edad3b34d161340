"""Reading a TOML file, and saying in one line what is wrong with it: the file, the key, the nearest known key."""

from __future__ import annotations

import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError

from stages.naming import suggestion

RENAMED = MappingProxyType(
    {
        "stats.flat_below": "it is called stats.low_contrast_below now",
        "render.stretch_flat": "maps of low contrast are drawn from minimum to maximum now; render.low_contrast = 'grey' leaves them grey as before",
    }
)
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line that names the file, the key and the remedy."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ConfigError
        If it is not TOML.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    """Say in one line what the first fault is and what would be right."""
    fault = _first(error)
    place = [str(part) for part in fault["loc"]]
    name = ".".join(place)
    if fault["type"] == "missing":
        return f"{name} is not set, and has no default"
    if name in RENAMED:
        return f"{name}: {RENAMED[name]}"
    if fault["type"] in _UNKNOWN_KEY:
        names = _fields_of(model, place[:-1])
        kind = "key" if len(place) > 1 else "table"
        return f"unknown {kind} {name!r}.{suggestion(place[-1], names)} Known: {', '.join(names)}"
    message = fault["msg"].removeprefix("Value error, ").replace("a valid tuple", f"a list, such as {_example_list(model, place)}")
    return message if not name or message.startswith(name) else f"{name} = {fault['input']!r}: {message}"


def place_of_first_fault(error: ValidationError) -> tuple[str, ...]:
    """Return the table and key of the first fault; the table alone where several keys contradict each other."""
    return tuple(str(part) for part in _first(error)["loc"])


def words_of_first_fault(error: ValidationError) -> str:
    """Return what is wrong, without the value."""
    return str(_first(error)["msg"])


def _first(error: ValidationError) -> Any:
    return min(error.errors(), key=lambda fault: fault["type"] not in _UNKNOWN_KEY)  # a typo often is why another key is missing


def _fields_of(model: Any, place: list[str]) -> list[str]:
    found = _model_at(model, place)
    return [] if found is None else sorted(getattr(found, "model_fields", None) or (field.name for field in fields(found)))


def _example_list(model: Any, place: list[str]) -> str:
    """What a list of the key's kind looks like."""
    found = _model_at(model, place[:-1]) if place else None
    return "[0, 1]" if found is not None and _holds_numbers(get_type_hints(found).get(place[-1])) else "['a', 'b']"


def _holds_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(_holds_numbers(kind) for kind in get_args(annotation))


def _model_at(model: Any, place: list[str]) -> Any:
    """The model of a table; None where the place is none."""
    for part in place:
        annotation = model.model_fields[part].annotation
        model = next((kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields") or is_dataclass(kind)), None)
        if model is None:
            return None
    return model
