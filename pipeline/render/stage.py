"""The render stage: stored maps and photos -> mosaics as PNG, each with its settings inside; fresh pictures are left alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.features.finished import finished_checkpoints
from pipeline.render.catalogue import Picture, undrawn, wanted_pictures
from pipeline.render.listing import listing_seal, write_listing
from pipeline.render.png_files import write_png
from pipeline.render.staleness import stale_pictures, text_chunks
from pipeline.run.bring_up import PieceStage, bring_up_to_date
from pipeline.run.directory import Run
from pipeline.run.outcome import Outcome
from pipeline.run.preparing import take_over
from pipeline.store.fences import Fence
from pipeline.work.stops import loading

_SHOWN_CHARACTERS = 20


def render(run: Run, *, partial: bool = False) -> Outcome:
    """Draw the configured mosaics that are missing or stale.

    Parameters
    ----------
    run : Run
    partial : bool
        Leave out unfinished checkpoints instead of refusing.

    Raises
    ------
    MissingProductError
        If heat maps (or, for scales over a checkpoint or the dataset, figures) are missing or stale.
    ValueError
        If a place, method, target or checkpoint is asked for that the run does not have.
    """
    return bring_up_to_date(RenderStage(run, partial))


@dataclass(frozen=True)
class _Pictures:
    """Pictures of the same place."""

    name: str
    pictures: Sequence[Picture]


class RenderStage(PieceStage[_Pictures]):
    """What the render stage plans, draws and lists."""

    name, product, image_unit, one_lock = "render", "mosaics", "picture", True

    def __init__(self, run: Run, partial: bool) -> None:
        super().__init__(run)
        self._partial = partial
        self._names: Sequence[str] = ()
        self._planned: Sequence[Picture] = ()
        self._stale: frozenset[Path] = frozenset()
        self._drawn = 0
        self._fence: Fence

    def subjects(self) -> list[_Pictures]:
        """Pictures that the settings ask for, those of a place together, so that its photos are read by one process."""
        self._names = finished_checkpoints(self.run, self._partial)
        self._planned = wanted_pictures(self.run, self._names)
        found: dict[str, list[Picture]] = {}
        for picture in self._planned:
            found.setdefault(picture.place, []).append(picture)
        return [_Pictures(name, pictures) for name, pictures in found.items()]

    def units(self, subject: _Pictures) -> Sequence[Picture]:
        """Pictures."""
        return subject.pictures

    def prepare(self, alone: Collection[str]) -> None:
        """Sweep what stopped calls left, and compare."""
        mine = [picture for pictures in self.shared.values() for picture in pictures]
        self._stale = frozenset(picture.path for picture in stale_pictures(self.run, mine))
        if alone:
            listing_seal(self.run).sweep()
        self._fence = take_over(self.run, self.product, [self.run.mosaics_path], alone=bool(alone), stale=bool(self._stale))

    def lay_out(self, subject: _Pictures, *, alone: bool) -> list[Picture]:
        """A picture is written whole: there is nothing to lay out."""
        return [picture for picture in self.shared[subject.name] if picture.path in self._stale]

    def work(self) -> PictureWork:
        """Pictures."""
        return PictureWork(self.run, self._fence)

    def take(self, subject: _Pictures, piece: Picture, result: None) -> None:
        """Count it."""
        self._drawn += 1

    def join(self) -> None:
        """List the pictures; of parts the one that finds them all drawn."""
        drawn = {picture.path for pictures in self.shared.values() for picture in pictures}  # by this process, or found to be as they should
        if not stale_pictures(self.run, [picture for picture in self._planned if picture.path not in drawn]):
            write_listing(self.run, self._planned)

    def left(self) -> str:
        """Pictures that are not drawn."""
        return f"left: {len(self._stale) - self._drawn} of {self._asked} pictures"

    def amount(self) -> int:
        """Pictures."""
        return len(self._stale)

    def outcome(self) -> Outcome:
        """Count pictures, and say which of those asked for there are none of."""
        notes = (f"in {self.run.mosaics_path}", *undrawn(self.run, self._names, self._planned), *_told_of_boxes(self._planned))
        return Outcome(self.name, len(self._stale), self._asked - len(self._stale), "pictures", notes)

    @property
    def _asked(self) -> int:
        return sum(map(len, self.shared.values()))


@dataclass(frozen=True)
class PictureWork:
    """The render stage's work, as `pipeline.work.executors` takes it."""

    run: Run
    fence: Fence

    def open(self, tell: Callable[[int], None]) -> Callable[[Picture], None]:
        """Once in each process that has something to do: this imports what draws."""
        with loading():
            from pipeline.render.drawing import Shared, draw_picture
        shared, one_at_a_time = Shared(self.run), threading.Lock()  # matplotlib and what a view remembers know no threads

        def draw(picture: Picture) -> None:
            with one_at_a_time:
                drawn, chunks = draw_picture(picture, shared), text_chunks(shared.run, picture, shared.content)
            self.fence.check()
            write_png(self.run.mosaics_path / picture.path, drawn, chunks)  # meanwhile another thread draws
            tell(1)

        return draw


def _told_of_boxes(pictures: Sequence[Picture]) -> list[str]:
    """Say once which characters of the pictures no font has."""
    words = "".join(picture.words for picture in pictures)
    if words.isascii():
        return []
    with loading():
        from stages.render.fonts import missing_characters
    missing = missing_characters(words)
    if not missing:
        return []
    shown = missing if len(missing) <= _SHOWN_CHARACTERS else f"{missing[:_SHOWN_CHARACTERS]}... ({len(missing)} in all)"
    remedy = "Install one that has them, such as fonts-noto-cjk, and call `atlas render` again"
    return [f"no font of this machine has {shown}: they appear as boxes in the pictures. {remedy}"]
