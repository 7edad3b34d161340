"""What one process of the extract stage does: it sends spans of blocks through a network and writes them to their store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from pipeline.checkpoints.networks import load_network
from pipeline.extract.known_rows import Arrays
from pipeline.extract.layout import class_names, requested
from pipeline.extract.photos import FEW_IMAGES, PhotoBatch, PhotoFiles, PhotoReader
from pipeline.extract.spans import FeatureSpan, SpanReport
from pipeline.extract.streaming import BlockWriter, HostCopy
from pipeline.features.bad_images import BadImage, check_bad_share
from pipeline.run.directory import Run
from pipeline.store.blocks import Block
from pipeline.work.cores import cores
from pipeline.work.log import log
from pipeline.work.stops import check_stop
from safenet.architecture import Architecture
from safenet.devices import pick_device
from stages.extract.batch import FeatureExtractor
from stages.extract.halving import HalvingExtractor
from stages.targets.scoring import label_index


class SpanExtractor:
    """Extracts span after span; keeps the decoding processes, and the network of the last checkpoint.

    Parameters
    ----------
    run : Run
    tell : callable
        Told how many images went through the network since it was told last.
    """

    def __init__(self, run: Run, tell: Callable[[int], None]) -> None:
        self._run = run
        self._tell = tell
        self._device = torch.device(pick_device(run.settings.extract.device))
        self._copier = HostCopy(self._device)
        self._readers: dict[tuple[int, int], PhotoReader] = {}
        self._network: tuple[str, HalvingExtractor] | None = None

    def __call__(self, span: FeatureSpan) -> SpanReport:
        """Make the blocks that no mark proves yet, and say what became of them."""
        run, report = self._run, SpanReport()
        span.fence.check()  # before anything is computed in vain
        marked = zip(span.blocks, span.store.ledger.records(span.blocks), strict=True)
        todo = {block: _batches(run, span, block) for block, record in marked if not record}
        if not todo:
            return report
        extractor = self._extractor(span)
        reader, class_index = self._reader(extractor.architecture), torch.from_numpy(self._class_index(span))
        wanted, names = requested(run), run.columns["id"]
        bad = dict(span.bad)
        with BlockWriter(self._writer(span, bad)) as writer:
            batches = iter(reader.read([samples for found in todo.values() for samples in found]))
            for block, found in todo.items():
                for rows, arrays in span.known.read(block):
                    writer.add(block, rows, {}, None, arrays)
                for samples in found:
                    check_stop()
                    batch = next(batches)
                    _note_faults(bad, span.void, [names[sample] for sample in samples], batch)
                    check_bad_share(run, bad)
                    pixels = torch.from_numpy(batch.pixels)
                    host, ready = self._copier.start(extractor(pixels.pin_memory() if self._device.type == "cuda" else pixels, class_index[samples]))
                    writer.add(block, [sample - block.start for sample in samples], host, ready, _photo_arrays(batch, wanted))
                    self._tell(len(samples))
        mine = {name for block in todo for name in names[block.rows]}
        report.bad = {name: fault for name, fault in bad.items() if name in mine}
        return report

    def _extractor(self, span: FeatureSpan) -> HalvingExtractor:
        """A span of the same checkpoint finds the network where the last one left it."""
        if self._network is None or self._network[0] != span.stamp:
            self._network = None  # before the next is made: a device may not hold two
            settings = self._run.settings.extract.model_copy(update={"precision": span.precision})
            info, network = load_network(span.path, span.digest, settings.told)
            names = class_names(self._run, info)
            self._network = span.stamp, HalvingExtractor(FeatureExtractor(network, settings, self._device, names), self._say)
        return self._network[1]

    def _say(self, text: str) -> None:
        log(text)
        self._run.say(f"extract: {text}")

    def _class_index(self, span: FeatureSpan) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return label_index(self._run.manifest["place"].tolist(), span.store.attributes["class_names"])

    def _reader(self, architecture: Architecture) -> PhotoReader:
        """One set of decoding threads or processes serves all checkpoints of an image size."""
        key = (architecture.image_size, architecture.grid)
        if key not in self._readers:
            table, workers = self._run.manifest, self._run.settings.extract.workers
            paths, digests, masks, problems = (table[name].tolist() for name in ("path", "digest", "mask_path", "problem"))
            files = PhotoFiles(Path(table.attrs["root"]), paths, digests, masks, problems, *key)
            if workers is None:
                few = len(table) < FEW_IMAGES
                workers = 0 if few else min(16, cores()) if self._device.type == "cuda" else 1
            self._readers[key] = PhotoReader(files, workers, torch.get_num_threads())
        return self._readers[key]

    def _writer(self, span: FeatureSpan, bad: Mapping[str, BadImage]) -> Callable[[Block, Arrays], None]:
        names, where = self._run.columns["id"], str(self._device)

        def write(block: Block, arrays: Arrays) -> None:
            void = {name: bad[name].as_dict() for name in names[block.rows] if name in bad}
            images = self._run.images(block)
            span.store.write_block(block, arrays, dict.fromkeys(arrays, span.stamp), span.fence, images=images, quarantined=void, device=where)
            log(f"{span.store.path.name}/{span.store.name} {block}: {len(block)} images written")

        return write


def _batches(run: Run, span: FeatureSpan, block: Block) -> list[list[int]]:
    """Samples of a block that have to be computed, in the same batches whenever it is done: so that a resumed run gives the same bits."""
    known = span.known.rows(block)
    todo = [sample for sample in range(block.start, block.stop) if sample - block.start not in known]
    size = run.settings.extract.batch_size
    return [todo[start : start + size] for start in range(0, len(todo), size)]


def _note_faults(bad: dict[str, BadImage], before: Mapping[str, BadImage], names: Sequence[str], batch: PhotoBatch) -> None:
    """Keep since when a photo has been bad; one that is good now is no longer."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for name, photo in zip(names, batch.photos, strict=True):
        known = bad.pop(name, None) or before.get(name)
        if photo.problem:
            bad[name] = BadImage(photo.problem, known.since if known else now)


def _photo_arrays(batch: PhotoBatch, wanted: frozenset[str]) -> Arrays:
    found: Arrays = {
        "image": batch.pixels,
        "mask_share": np.stack([photo.mask_share for photo in batch.photos]),
        "mask_centre": np.stack([photo.mask_centre for photo in batch.photos]),
    }
    chosen = {name: values for name, values in found.items() if name in wanted}
    return {**chosen, "valid": np.array([not photo.problem for photo in batch.photos])}
