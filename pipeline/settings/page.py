"""Every setting in a table: what `atlas settings` prints and docs/settings.md holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline.settings.all import Settings

_INTRODUCTION = """# Settings

A configuration is one TOML file with one table per stage. `--set table.key=value` overrides a key. Relative paths are taken
from the working directory. An unknown key is refused with the nearest known one. A default of `-` means that the key is not
set.

In `[extract]`, the settings from `block_samples` on affect only the speed and the files. They never make stored features
stale."""


def settings_page() -> str:
    """Return the page as Markdown."""
    return "\n".join([_INTRODUCTION, *(line for name, field in Settings.model_fields.items() for line in _table(name, field.annotation))]) + "\n"


def _table(name: str, annotation: Any) -> Iterator[str]:
    kind = next(kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields") or is_dataclass(kind))
    yield f"\n## [{name}]\n\n| key | default | meaning |\n|---|---|---|"
    for key, default, meaning in _model_rows(kind) if issubclass(kind, BaseModel) else _dataclass_rows(kind):
        yield f"| {key} | {'required' if default is PydanticUndefined else f'`{_toml(default)}`'} | {meaning} |"


def _model_rows(model: type[BaseModel]) -> Iterator[tuple[str, Any, str]]:
    for key, field in model.model_fields.items():
        yield key, field.default, field.description or ""


def _dataclass_rows(kind: Any) -> Iterator[tuple[str, Any, str]]:
    """A frozen dataclass of safenet says what its fields mean in its docstring's Attributes section."""
    lines = [line.strip() for line in (kind.__doc__ or "").splitlines()]
    for field in fields(kind):
        start = next(index for index, line in enumerate(lines) if line.startswith(f"{field.name} :"))
        stop = next((index for index in range(start + 1, len(lines)) if not lines[index] or " : " in lines[index]), len(lines))
        yield field.name, field.default, " ".join(lines[start + 1 : stop])


def _toml(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
