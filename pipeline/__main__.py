"""The command `atlas`, and `python -m pipeline`."""

from pipeline.standard_streams import keep_standard_streams
from pipeline.work.stops import EXIT_STOPPED, leave_stopped, stopping_at_once


def main() -> None:
    """Run a command. Until its modules are imported, which takes seconds, a signal ends the process with the code that a stop has."""
    keep_standard_streams()
    with stopping_at_once():
        from pipeline.commands.group import main as command
    try:
        command()
    except SystemExit as end:
        if end.code == EXIT_STOPPED:
            leave_stopped()
        raise


if __name__ == "__main__":
    main()
