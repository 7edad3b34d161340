"""The command `atlas` itself: it reads the options, imports the module of one command, and reports expected errors in one line."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from pipeline.commands.table import COMMANDS, CommandRow
from pipeline.work.stops import EXIT_STOPPED, OUT_OF_SPACE, Stopped, stop_on_signals, stopping_at_once
from safenet.needs_network import NetworkNotInstalledError

# told in one line; anything else is a fault of ours and shows its trace
EXPECTED_ERRORS = (ValueError, OSError, FloatingPointError, NetworkNotInstalledError)


class OneLineErrors(click.Group):
    """Turns an expected error into one line on stderr and exit code 1, and a stop by a signal into one and exit code 75."""

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> click.Context:
        """Read the arguments; --help and --version print here."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except OSError as error:
            _tell(_out_of_space(error) or str(error))
            raise click.exceptions.Exit(1) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with stop_on_signals():
                return super().invoke(ctx)
        except Stopped as stop:
            _tell(f"stopped by {stop}; {_notes(stop) or 'what is done is kept'}. Call the same command again to go on")
            ctx.exit(EXIT_STOPPED)
        except EXPECTED_ERRORS as error:
            if ctx.params.get("debug"):
                raise
            _tell(_out_of_space(error) or str(error))
            ctx.exit(1)


def _tell(text: str) -> None:
    click.echo(f"atlas: {' '.join(text.split())}", err=True)


def _notes(error: BaseException) -> str:
    return "; ".join(getattr(error, "__notes__", []))


def _out_of_space(error: BaseException) -> str:
    """What is free and what is left to do, where a disk or a quota was full in the middle of the work."""
    if not isinstance(error, OSError) or error.errno not in OUT_OF_SPACE or not error.strerror:
        return ""
    what = ": ".join(text for text in (error.filename, error.strerror, _notes(error)) if text)
    return f"{what}. What is done is kept: make room and call the same command again"


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the trace of an error.")
@click.version_option(package_name="safenet-atlas")
def main(debug: bool) -> None:
    """Extract a Safe-Net's inner tensors once, then draw, compare and count its heat maps, without the model."""


def _add(row: CommandRow) -> None:
    main.add_command(click.Command(row.name, params=list(row.params), help=row.help, callback=_imported_when_run(row)))


def _imported_when_run(row: CommandRow) -> Callable[..., None]:
    """Return a function that imports the row's module and calls its function: no command waits for what the others import."""

    def command(**values: Any) -> None:
        with stopping_at_once():
            module = import_module(f"pipeline.commands.{row.module}")
        getattr(module, row.function)(**values)

    return command


for _row in COMMANDS:
    _add(_row)
