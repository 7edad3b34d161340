"""The index stage: photos -> manifest.parquet; known samples keep their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import pandas as pd

from pipeline.disk.places import Place
from pipeline.run.directory import Run
from pipeline.run.manifest import index_dataset, manifest_seal, read_manifest, write_manifest
from pipeline.run.outcome import Outcome
from pipeline.run.rates import note_rate
from pipeline.work.progress import Progress
from pipeline.work.stops import check_stop, telling_what_is_left
from stages.index.layouts import LAYOUTS
from stages.index.manifest import remarks_on
from stages.index.pairs import count_pairs
from stages.index.relisting import keep_known
from stages.index.variants import chosen_samples, in_several_variants, variants_in


def index(run: Run, *, forget: bool = False) -> Outcome:
    """List the dataset. The manifest is written again only if its samples changed; new samples are appended.

    Parameters
    ----------
    run : Run
    forget : bool
        Take images out of the manifest that are not in the dataset any more, instead of refusing.

    Raises
    ------
    ValueError
        If the configuration names no dataset, or images that the manifest lists are gone and `forget` is not set.
    FileNotFoundError
        If the dataset's folder is missing.
    LockedError
        If another process writes the manifest.
    """
    if run.settings.dataset is None:
        raise ValueError(
            "dataset.root is not set; name the photos' folder in the [dataset] table of the configuration, or pass --set dataset.root=FOLDER"
        )
    started = perf_counter()
    with (
        run.locked("manifest"),
        Progress("index", None, "file", shown=run.progress) as progress,
        telling_what_is_left(lambda: _left(progress), run.directory),
    ):

        def show(done: int, total: int) -> None:
            check_stop()
            if progress.total != total:
                progress.expect(total)
            progress.add(done - progress.done)

        manifest_seal(run.manifest_path).sweep()
        known, wanted = _known(run.manifest_path), run.settings.dataset
        found = index_dataset(wanted, progress=show, known_variants=() if known is None else variants_in(known["variant"]))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        relisted = keep_known(found[:0] if known is None else known, found, now, wanted.variants)
        if relisted.gone and not forget:
            raise ValueError(
                f"{run.manifest_path}: {len(relisted.gone)} images that it lists are no longer in the dataset ({_few(relisted.gone)}). "
                f"Bring them back (or the former [dataset] settings), name another --run, or pass --forget to take them out of this run"
            )
        table = relisted.table
        same = known is not None and manifest_seal(run.manifest_path).holds(run.manifest_path.name) and _is_same(known, table)
        if not same:
            write_manifest(run.manifest_path, table)
    note_rate(run.directory, "index", len(table), perf_counter() - started)
    bad = table[table["problem"] != ""]
    notes = [describe_counts(table)]
    if known is not None and not same:
        counts = {"new": relisted.new, "changed": len(relisted.changed), "forgotten": len(relisted.gone)}
        notes += [", ".join(f"{count} {what}" for what, count in counts.items())]
    notes += [f"{len(bad)} bad images stay out: {', '.join(f'{row.id} ({row.problem})' for row in bad.head(3).itertuples())}"] if len(bad) else []
    notes += [*_about_pairs(table, wanted.variants), *_about_variants(table), *remarks_on(Path(table.attrs["root"]), wanted)]
    return Outcome("index", 0 if same else len(table), len(table) if same else 0, "images", tuple(notes))


def describe_counts(table: pd.DataFrame) -> str:
    """Count the images by split and view, in words."""
    groups = (table["split"] + " " + table["view"]).value_counts().sort_index()
    return ", ".join(f"{count:,} {name}" for name, count in groups.items())


def _about_pairs(table: pd.DataFrame, variants: Sequence[str]) -> list[str]:
    pairs = count_pairs(table[chosen_samples(table["variant"].tolist(), variants)])
    if pairs.complete:
        return [str(pairs)]
    layout = table.attrs["layout"]
    remedy = f"In the layout {layout!r} {LAYOUTS[layout].pairing}"
    return [str(pairs), f"warning: no place has both a drone and a satellite photo, so there is nothing to match. {remedy}"]


def _about_variants(table: pd.DataFrame) -> list[str]:
    several = in_several_variants(table)
    if not several:
        return []
    return [
        f"warning: {len(several):,} drone photos belong to several flight heights, for instance {several[0]}: the folders of the heights hold the "
        f"same files, as an early split script of SUES-200 left them (SUES-200-Benchmark#6). Figures by height mean nothing for them: split again"
    ]


def _left(progress: Progress) -> str:
    return f"left to index: {progress.left:,} of {progress.total:,} files; the manifest is as it was"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _known(path: Place) -> pd.DataFrame | None:
    try:
        return read_manifest(path)
    except (FileNotFoundError, ValueError):  # none, or a damaged one: it is made anew
        return None


def _is_same(known: pd.DataFrame, table: pd.DataFrame) -> bool:
    return known.attrs == table.attrs and known.equals(table[list(known.columns)])
