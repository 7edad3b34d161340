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
    name : str
        Of what is done, such as a stage.
    total : int or None
        None where it is not known yet.
    unit : str
        What is counted, in the singular; "B": bytes, which are shown as MB and GB.
    shown : bool
        Whether a bar is wanted.
    stays : bool
        Whether the bar is still to be seen when all is done.
    """

    def __init__(self, name: str, total: int | None, unit: str, *, shown: bool, stays: bool = True) -> None:
        self._unit, self.total, self.done = unit, total or 0, 0
        hidden = not shown or total == 0
        self._bar = tqdm(total=total, unit=unit, unit_scale=unit == "B", desc=name, disable=hidden, leave=stays, smoothing=0.05)
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
        return self.total - self.done

    def add(self, count: int, worker: str = "", seconds: float = 0.0) -> None:
        """Count what is done, by whom, and how long that took; several threads may call it."""
        with self._lock:
            self.done += count
            self._bar.update(count)
            if worker:
                images, busy = self._work[worker]
                self._work[worker] = images + count, busy + seconds
                self._bar.set_postfix_str(self.rates())

    def expect(self, total: int) -> None:
        """Say how much there is."""
        with self._lock:
            self.total = self._bar.total = total
            self._bar.refresh()

    def leave_out(self, count: int) -> None:
        """Expect so much less: it is done already."""
        self.expect(self.total - count)

    def note(self, text: str) -> None:
        """Show something beside the bar."""
        self._bar.set_postfix_str(text)

    def rates(self) -> str:
        """Workers and their rates, in words: "3 workers, 11.8 to 12.4 image/s each"."""
        found = sorted(images / busy for images, busy in self._work.values() if busy)
        if not found:
            return ""
        spread = f"{found[0]:.3g}" if len(found) == 1 else f"{found[0]:.3g} to {found[-1]:.3g}"
        return f"{len(found)} workers, {spread} {self._unit}/s each"
