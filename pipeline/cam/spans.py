"""What one process of the cam stage does: it computes and writes the heat maps of spans of blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.cam.references import Compared
from pipeline.cam.staleness import product_stamps
from pipeline.features.reading import read_features
from pipeline.run.directory import Run
from pipeline.store.blocks import Block
from pipeline.store.fences import Fence
from pipeline.store.group_store import GroupStore
from pipeline.work.log import log
from pipeline.work.stops import check_stop
from stages.cam.compute import compute_cams, needed_features
from stages.cam.products import Product
from stages.recent import Recent


@dataclass(frozen=True)
class Piece:
    """Maps that one block lacks, and the digest of the features that they are made of."""

    block: Block
    products: tuple[Product, ...]
    origin: str


@dataclass(frozen=True)
class CamSpan:
    """Pieces of one checkpoint, and the fence under which they are given out."""

    name: str
    pieces: tuple[Piece, ...]
    fence: Fence

    def __len__(self) -> int:
        """Images."""
        return sum(len(piece.block) for piece in self.pieces)


@dataclass(frozen=True)
class CamWork:
    """The cam stage's work, as `pipeline.work.executors` takes it."""

    run: Run

    def open(self, tell: Callable[[int], None]) -> CamBlocks:
        """Once in each process."""
        return CamBlocks(self.run, tell)


class CamBlocks:
    """Computes and writes the maps of spans; several threads may call it.

    What a checkpoint's blocks share, embeddings of all images among it, is kept for the last two checkpoints: where
    one ends, the next has begun.
    """

    def __init__(self, run: Run, tell: Callable[[int], None]) -> None:
        self._run, self._tell = run, tell
        self._lock = threading.Lock()
        self._compared: Recent[str, Compared] = Recent(2)

    def __call__(self, span: CamSpan) -> None:
        """Do what no mark proves yet."""
        features, cams = self._run.features(span.name), self._run.cams(span.name)
        span.fence.check()  # before anything is computed in vain
        compared = self._open(features, {product for piece in span.pieces for product in piece.products})
        for piece in span.pieces:
            check_stop()
            self._write(piece, span.fence, features, cams, compared)
            self._tell(len(piece.block))

    def _write(self, piece: Piece, fence: Fence, features: GroupStore, cams: GroupStore, compared: Compared) -> None:
        block, products = piece.block, piece.products
        stamps = {key: mark for p, mark in zip(products, product_stamps(features, products).values(), strict=True) for key in (p.key, p.facts_key)}
        if cams.ledger.is_done(block, stamps, made_of=piece.origin) and cams.holds(block, stamps):
            return
        read = read_features(features, needed_features(products), block.rows)
        maps = compute_cams(compared.attach(read, block.rows, products), products, compared.context)
        cams.write_block(block, {str(key): maps[key].values for key in maps}, stamps, fence, made_of=piece.origin)
        log(f"{cams.path.name}/{cams.name} {block}: {len(products)} maps written")

    def _open(self, features: GroupStore, products: set[Product]) -> Compared:
        with self._lock:
            compared = self._compared.get(features.name, lambda: Compared(features))
            compared.prepare(products)
            return compared
