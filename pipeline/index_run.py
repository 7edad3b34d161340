"""The index stage: photos -> manifest.parquet."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tqdm import tqdm

from pipeline.index import index_dataset, manifest_digest, read_manifest, write_manifest
from pipeline.run import Outcome, Run


def index(run: Run) -> Outcome:
    """List the dataset; the manifest is written anew only where its samples changed.

    Raises
    ------
    ValueError
        If the configuration names no dataset.
    FileNotFoundError
        If the dataset's folder is missing.
    """
    if run.settings.dataset is None:
        raise ValueError(
            "dataset.root is not set; name the photos' folder in the [dataset] table of the configuration, or pass --set dataset.root=FOLDER"
        )
    with tqdm(unit="file", disable=not run.progress) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        table = index_dataset(run.settings.dataset, progress=show)
    same = _is_same(run.manifest_path, table)
    if not same:
        write_manifest(run.manifest_path, table)
    bad = table[table["problem"] != ""]
    notes = [describe_counts(table)]
    notes += [f"{len(bad)} bad images stay out: {', '.join(f'{row.path} ({row.problem})' for row in bad.head(3).itertuples())}"] if len(bad) else []
    return Outcome("index", 0 if same else len(table), len(table) if same else 0, "images", tuple(notes))


def describe_counts(table: pd.DataFrame) -> str:
    """Count the images by split and view, in words."""
    groups = (table["split"] + " " + table["view"]).value_counts().sort_index()
    return ", ".join(f"{count:,} {name}" for name, count in groups.items())


def _is_same(path: Path, table: pd.DataFrame) -> bool:
    try:
        old = read_manifest(path)
    except (FileNotFoundError, ValueError):  # none, or a damaged one: it is made anew
        return False
    kept = ["path", "mask_path"]
    return manifest_digest(old) == manifest_digest(table) and old.attrs == table.attrs and old[kept].equals(table[kept])
