"""How fast each stage was the last time on this run's data: what `atlas plan` bases its estimates on."""

from __future__ import annotations

from pipeline.disk.locks import locked
from pipeline.disk.places import Place
from pipeline.disk.records import PARTIAL, DamagedRecordError, read_record, write_record

_LONG_ENOUGH_S = 0.05


def note_rate(directory: Place, stage: str, units: float, elapsed_s: float) -> None:
    """Note that a stage did so many units of work."""
    path = _path(directory)
    with locked(directory / "locks" / "rates.lock", str(path), wait=True):
        for left in path.parent.glob(f"{path.name}.*{PARTIAL}"):
            left.unlink()
        if units and elapsed_s > _LONG_ENOUGH_S:
            write_record(path, {**rates(directory), stage: units / elapsed_s})


def rates(directory: Place) -> dict[str, float]:
    """Units a second of every stage that was measured."""
    try:
        return dict(read_record(_path(directory)))
    except DamagedRecordError:
        return {}


def _path(directory: Place) -> Place:
    return directory / "ledger" / "rates.json"
