"""Everything with a side effect: stores, photos, configuration, execution, command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.look.open_run import OpenRun, open_run

__all__ = ["OpenRun", "open_run"]


def __getattr__(name: str) -> Any:
    """Import what opens a run when it is asked for: a command that is just starting must be able to take a signal first."""
    if name in __all__:
        from pipeline.look import open_run as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
