"""Options that several commands have; nothing here imports what a command works with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.disk.places import Place, place_of
from pipeline.settings.durations import seconds_of
from pipeline.settings.executor_names import EXECUTOR_MEANINGS
from pipeline.work.share import Share
from stages.naming import known


class RunPlace(click.ParamType):
    """The run's directory, or its URL."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """A place; what is wrong with it is told without the value, in which a secret may be."""
        try:
            return place_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _read_by(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Turn the ValueError of what reads an option into wrong usage."""

    def callback(context: click.Context, option: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else read(text)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    return callback


COMMON = (
    click.Option(["--config"], type=click.Path(path_type=Path), help="TOML file with the settings."),
    click.Option(["--run", "directory"], type=RunPlace(), help="Directory of the run, or its URL; default: runs/<name of the config>."),
    click.Option(["--set", "assignments"], multiple=True, metavar="TABLE.KEY=VALUE", help="Override a setting; may be given several times."),
    click.Option(["--quiet"], is_flag=True, help="No progress bars."),
)
ON = click.Option(
    ["--on", "executor"],
    metavar="EXECUTOR",
    callback=_read_by(lambda text: known(text, EXECUTOR_MEANINGS, "--on")),
    help=f"Where to compute (compute.executor): {'; '.join(f'{name}: {meaning}' for name, meaning in EXECUTOR_MEANINGS.items())}.",
)
FARM = (
    ON,
    click.Option(
        ["--part"],
        metavar="K/N",
        callback=_read_by(Share.parse),
        help="Do only part K of N. The other parts may run at the same time, on any machine.",
    ),
    click.Option(
        ["--lifetime"],
        metavar="TIME",
        callback=_read_by(lambda text: seconds_of(text, "--lifetime")),
        help="Stop after this time, such as 3h55m, as a signal would. Exit code 75.",
    ),
)
