"""Everything with a side effect: stores, photos, configuration, execution, command line."""

from pipeline.opening import OpenRun, open_run

__all__ = ["OpenRun", "open_run"]
