"""Everything with a side effect: stores, photos, configuration, execution, command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.opening import OpenRun, open_run

__all__ = ["OpenRun", "open_run"]


def __getattr__(name: str) -> Any:
    """Import what opens a run when it is asked for: a command that is just starting must be able to take a signal first."""
    if name in __all__:
        from pipeline import opening

        return getattr(opening, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
