"""`atlas status`."""

from __future__ import annotations

from pathlib import Path

from pipeline.checkpoints.names import left_by_place, notes_on_left
from pipeline.commands.runs import chosen_run
from pipeline.disk.places import Place
from pipeline.features.bad_images import bad_images
from pipeline.look.status import overflow_lines, run_overflow, run_status
from pipeline.look.writers import RECENT_S, at_work
from pipeline.text_tables import format_table, in_one_line, terminal_width


def status(config: Path | None, directory: Place | None, assignments: tuple[str, ...], quiet: bool, bad: bool) -> None:
    """Show what a run contains."""
    run = chosen_run(config, directory, assignments, quiet)
    rows, void, overflow = run_status(run), bad_images(run), overflow_lines(run)
    run.say(f"{run.directory}: {len(run.manifest):,} images, {len(void)} bad")
    run.say(format_table(rows, terminal_width()) if rows else "no features yet; run `atlas extract`")
    for note in notes_on_left(left_by_place(run)):
        run.say(note)
    if rows := at_work(run):
        run.say(f"in the last {RECENT_S // 60} minutes:\n{format_table(rows, terminal_width())}")
    paths = dict(zip(run.manifest["id"], run.manifest["path"], strict=True))
    for name, fault in void.items() if bad else ():
        run.say(f"{name} ({in_one_line(paths.get(name, 'not in the manifest'))}): {fault.reason}, since {fault.since or 'an earlier version'}")
    for line in overflow:
        run.say(line)
    for name, texts in run_overflow(run).items() if bad else ():
        run.say(f"{name} ({in_one_line(paths.get(name, 'not in the manifest'))}): {'. '.join(texts)}")
    if overflow and not bad:
        run.say("`atlas status --bad` names each of these images")
