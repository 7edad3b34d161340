"""Who is writing blocks, according to their marks alone: works for any number of machines that know nothing of each other."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

from pipeline.run.directory import Run
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import known_groups

RECENT_S = 900


def at_work(run: Run, recent_s: float = RECENT_S) -> list[dict[str, str]]:
    """Return one row per process that wrote a block within the last `recent_s` seconds: what, how fast, and when last."""
    now = datetime.now(UTC)
    found: dict[tuple[str, str, int], list[tuple[datetime, int, str]]] = defaultdict(list)
    for stage, path in (("extract", run.features_path), ("cam", run.cams_path), ("stats", run.figures_path)):
        for name in known_groups(path):
            store = GroupStore(path, name)
            for index in store.ledger.indices_since(now.timestamp() - recent_s):
                record = store.ledger.record_of(index)
                if "finished" in record:
                    start, stop = record["rows"]
                    found[stage, record["host"], record["pid"]].append((datetime.fromisoformat(record["finished"]), stop - start, name))
    return [_row(*who, sorted(blocks), now) for who, blocks in sorted(found.items())]


def _row(stage: str, host: str, pid: int, blocks: list[tuple[datetime, int, str]], now: datetime) -> dict[str, str]:
    images, taken = sum(count for _, count, _ in blocks[1:]), (blocks[-1][0] - blocks[0][0]).total_seconds()
    return {
        "at work": f"{host} {pid}",
        "stage": stage,
        "checkpoint": blocks[-1][2],
        "blocks": f"{len(blocks):,}",
        "images/s": f"{images / taken:.3g}" if taken else "-",  # marks tell time in seconds
        "last block": f"{max((now - blocks[-1][0]).total_seconds(), 0):.0f} s ago",
    }
