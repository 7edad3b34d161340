"""The information in a checkpoint file, and its errors: everything that needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safenet.architecture import Architecture

READING = 1  # raised when the same bytes tell something else
_PLAIN = {"top", "state_dict", "model"}


class CheckpointError(ValueError):
    """A checkpoint file that cannot be used; the message is one line that names the file and the fault."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


@dataclass(frozen=True)
class Taken:
    """Which network of a file was taken.

    Attributes
    ----------
    name : str
        As `extract.state_key` takes it; "top": the file is the state dict itself.
    left : tuple of str
        What was left out: other networks of the file by their names, and tensors that belong to none.
    """

    name: str = "top"
    left: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the file holds one network, where it is usually found."""
        return self.name in _PLAIN and not self.left

    def __str__(self) -> str:
        return f"its network {self.name!r} is taken" + (f"; left out: {', '.join(self.left)}" if self.left else "")


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint file says of itself, and what its shapes tell."""

    path: Path
    architecture: Architecture
    epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    taken: Taken = field(default_factory=Taken)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON, without the path."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "path"}
        return {**values, "architecture": self.architecture.as_dict(), "metrics": dict(self.metrics), "taken": asdict(self.taken)}

    @classmethod
    def from_dict(cls, path: Path, values: Mapping[str, Any]) -> CheckpointInfo:
        """Undo `as_dict`."""
        taken = Taken(values["taken"]["name"], tuple(values["taken"]["left"]))
        names = tuple(values["class_names"])
        return cls(path, **{**values, "architecture": Architecture(**values["architecture"]), "class_names": names, "taken": taken})


def one_line(text: str) -> str:
    r"""Write line breaks as ``\n``."""
    return text.replace("\r", "\\r").replace("\n", "\\n")
