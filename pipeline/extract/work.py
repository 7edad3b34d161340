"""The extract stage's work as a plain value; the network is imported by the process that opens it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.extract.spans import FeatureSpan, SpanReport
from pipeline.run.directory import Run
from pipeline.work.stops import loading


@dataclass(frozen=True)
class FeatureWork:
    """The extract stage's work, as `pipeline.work.executors` takes it."""

    run: Run

    def open(self, tell: Callable[[int], None]) -> Callable[[FeatureSpan], SpanReport]:
        """Once in each process that has something to do: this imports the network."""
        with loading():
            from pipeline.extract.extractor import SpanExtractor
        return SpanExtractor(self.run, tell)
