"""Locks while a product is laid out, written and finished; the parts of a stage hold them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from pipeline.disk.leases import LockedError
from pipeline.disk.places import Place
from pipeline.disk.records import sweep
from pipeline.run.directory import Run
from pipeline.store.fences import Fence, raise_fence


@dataclass(frozen=True)
class Preparation:
    """What a part that comes may do to products that other parts may be writing.

    Attributes
    ----------
    alone : frozenset of str
        Products that nobody else writes: only these may be swept or laid out.
    let_in : callable
        To be called when everything is laid out: the next part may look.
    """

    alone: frozenset[str]
    let_in: Callable[[], None]


@contextmanager
def preparing(run: Run, stage: str, products: Sequence[str]) -> Iterator[Preparation]:
    """Hold the locks of products, such as "features/net_000", while they are laid out and written.

    A whole run holds them alone. Parts hold them together, and lay out one by one.

    Raises
    ------
    LockedError
        If another process writes one of them.
    """
    with ExitStack() as held, ExitStack() as laying_out:
        if run.share.is_whole:
            for product in products:
                held.enter_context(run.locked(product))
            yield Preparation(frozenset(products), laying_out.close)
            return
        held.enter_context(run.locked(f"{stage}.part-{run.share.number}-of-{run.share.count}"))
        laying_out.enter_context(run.locked(f"{stage}.layout", wait=True))
        alone = frozenset(product for product in products if _is_idle(run, product))
        for product in products:
            held.enter_context(run.locked(product, shared=True))
        yield Preparation(alone, laying_out.close)


def take_over(run: Run, product: str, swept: Sequence[Place], *, alone: bool, stale: bool) -> Fence:
    """Make ready to write a product that has one lock: sweep what stopped calls left, and raise the fence if anything is to be written.

    Parameters
    ----------
    run : Run
    product : str
    swept : sequence of Place
        Folders with leftovers, beside the product's own in the ledger.
    alone : bool
        Whether no other process writes the product: only then is anything done.
    stale : bool
        Whether anything is to be written.

    Returns
    -------
    Fence
        The one that stands: what this process writes under.
    """
    ledger = run.ledger(product)
    if alone:
        if stale:
            raise_fence(ledger)
        for folder in (ledger, *swept):
            sweep(folder)
    return Fence.standing(ledger)


def finishing(run: Run, stage: str) -> AbstractContextManager[object]:
    """Let parts look, one after the other, whether everything is done, and note it."""
    return nullcontext() if run.share.is_whole else run.locked(f"{stage}.layout", wait=True)


def _is_idle(run: Run, product: str) -> bool:
    try:
        with run.locked(product):
            return True
    except LockedError:
        return False
