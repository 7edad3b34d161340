"""One progress display for work in this process and on a cluster: how far, how fast, and each worker's share."""

from __future__ import annotations

import threading
from collections import defaultdict
from types import TracebackType

from tqdm import tqdm


class Progress:
    """A bar, and what each worker did; within a `with` statement.

    Parameters
    ----------
    stage : str
    total : int
    unit : str
        What is counted, in the singular.
    shown : bool
        Whether a bar is wanted.
    """

    def __init__(self, stage: str, total: int, unit: str, *, shown: bool) -> None:
        self._unit, self._total, self.done = unit, total, 0
        self._bar = tqdm(total=total, unit=unit, desc=stage, disable=not (shown and total), smoothing=0.05)
        self._lock = threading.Lock()
        self._work: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))

    def __enter__(self) -> Progress:
        self._bar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.__exit__(kind, error, trace)

    @property
    def left(self) -> int:
        """How many are not done."""
        return self._total - self.done

    def name(self, text: str) -> None:
        """Say what is worked on."""
        self._bar.set_description(text)

    def add(self, count: int, worker: str = "", seconds: float = 0.0) -> None:
        """Count what is done, by whom, and how long that took; several threads may call it."""
        with self._lock:
            self.done += count
            self._bar.update(count)
            if worker:
                images, busy = self._work[worker]
                self._work[worker] = images + count, busy + seconds
                self._bar.set_postfix_str(self.rates())

    def leave_out(self, count: int) -> None:
        """Expect so much less: it is done already."""
        with self._lock:
            self._total -= count
            self._bar.total = self._total
            self._bar.refresh()

    def rates(self) -> str:
        """Workers and their rates, in words: "3 workers, 11.8 to 12.4 image/s each"."""
        found = sorted(images / busy for images, busy in self._work.values() if busy)
        if not found:
            return ""
        spread = f"{found[0]:.3g}" if len(found) == 1 else f"{found[0]:.3g} to {found[-1]:.3g}"
        return f"{len(found)} workers, {spread} {self._unit}/s each"
