"""The optional stage `pixels`: photos, checkpoints and heat maps -> pixels.zarr, deletion and insertion by the network; no part of `atlas run`."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.checkpoints.names import NamedFiles, named_files
from pipeline.features.finished import finished_checkpoints
from pipeline.pixels.images import ChosenImages, choose_images, left_out, why_nothing
from pipeline.pixels.inputs import CurveInputs, inputs_of, is_fresh
from pipeline.pixels.pieces import CurvePiece, Measured
from pipeline.pixels.work import CurveWork
from pipeline.run.bring_up import PieceStage, bring_up_to_date
from pipeline.run.directory import Run
from pipeline.run.outcome import Outcome
from pipeline.run.preparing import take_over
from pipeline.store.fences import Fence
from safenet.needs_network import require_network


def pixels(run: Run, *, partial: bool = False) -> Outcome:
    """Measure deletion and insertion in pixel space: blur photos in the order of each map at aligned, and run the network on them again.

    Parameters
    ----------
    run : Run
    partial : bool
        Leave out unfinished checkpoints instead of refusing.

    Raises
    ------
    MissingProductError
        If heat maps or checkpoint files are missing.
    ValueError
        If there are no maps at aligned, a checkpoint file is not the one that the features were made with, or no checkpoint has an image that
        has the target and finite maps of it.
    """
    return bring_up_to_date(PixelsStage(run, partial))


class PixelsStage(PieceStage[CurveInputs]):
    """What the pixels stage compares and measures; a checkpoint is one piece."""

    name, product, image_unit, needs, one_lock = "pixels", "pixels", "checkpoint", "gpu", True

    def __init__(self, run: Run, partial: bool) -> None:
        super().__init__(run)
        self._partial = partial
        self._images: dict[str, ChosenImages] = {}
        self._everything: list[CurveInputs] = []
        self._stale: set[str] = set()
        self._measured: list[Measured] = []
        self._fence: Fence
        self._named: NamedFiles

    def subjects(self) -> list[CurveInputs]:
        """What each checkpoint's curves are made of, on the images that can be used."""
        run = self.run
        names, self._named = finished_checkpoints(run, self._partial), named_files(run)
        self._everything = [inputs_of(run, name, self._named.files.get(name)) for name in names]
        self._images = choose_images(run, self._everything)
        found = [one.on(self._images[one.name].used) for one in self._everything if self._images[one.name].used]
        if not found:
            raise ValueError(why_nothing(run, self._everything, self._images))
        return found

    def inspect(self) -> None:
        """Note what was read of the checkpoint files."""
        if self._named.read:
            self._named.read.keep()

    def prepare(self, alone: Collection[str]) -> None:
        """Sweep what stopped calls left, and compare."""
        self._stale = {one.name for one in self.mine if not is_fresh(self.run, one)}
        if self._stale:
            require_network(self.name)
        self._fence = take_over(self.run, self.product, [self.run.pixels_path], alone=bool(alone), stale=bool(self._stale))

    def lay_out(self, subject: CurveInputs, *, alone: bool) -> list[CurvePiece]:
        """A group is written whole: there is nothing to lay out."""
        return [CurvePiece(subject, tuple(self._images[subject.name].used))] if subject.name in self._stale else []

    def work(self) -> CurveWork:
        """Curves of checkpoints."""
        return CurveWork(self.run, self._fence)

    def take(self, subject: CurveInputs, piece: CurvePiece, result: Measured) -> None:
        """Keep what is said about it."""
        self._measured.append(result)

    def left(self) -> str:
        """Checkpoints without curves."""
        return f"left: pixel curves of {len(self._stale) - len(self._measured)} of {len(self.mine)} checkpoints"

    def amount(self) -> int:
        """Images."""
        return sum(found.images for found in self._measured)

    def outcome(self) -> Outcome:
        """Count checkpoints, and say what was left out."""
        notes = [found.note for found in self._measured]
        notes += [line for one in self._everything for line in left_out(self.run, one, self._images[one.name])]
        return Outcome(self.name, len(self._stale), len(self.mine) - len(self._stale), "checkpoints", tuple(notes))
