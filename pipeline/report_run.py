"""The report stage: figures and mosaics -> report/index.html."""

from __future__ import annotations

import json
from importlib.metadata import version
from urllib.parse import quote

from pipeline.extract_run import quarantined
from pipeline.index_run import describe_counts
from pipeline.render_run import INDEX
from pipeline.run import MissingProductError, Outcome, Run
from pipeline.stats_run import open_stats
from stages.report import Mosaic, report_page


def report(run: Run) -> Outcome:
    """Write the page; it links the mosaics beside it, so the run's directory can be moved as a whole.

    Raises
    ------
    MissingProductError
        If figures or mosaics are missing or stale.
    """
    stats = open_stats(run)
    index = run.mosaics_path / INDEX
    if not index.is_file():
        raise MissingProductError(f"{index}: no mosaics; run `atlas render` first")
    entries = json.loads(index.read_text())
    gone = [entry["path"] for entry in entries if not (run.mosaics_path / entry["path"]).is_file()]
    if gone:
        raise MissingProductError(f"{run.mosaics_path / gone[0]}: this mosaic is gone ({len(gone)} in all); run `atlas render` again")
    mosaics = [
        Mosaic(
            source=f"../mosaics/{quote(entry['path'])}",
            kind=entry["kind"],
            caption=f"Place {entry['place']}: {entry['method']}, target {entry['target']}, {', '.join(entry['checkpoints'])}",
        )
        for entry in entries
    ]
    run.report_path.parent.mkdir(parents=True, exist_ok=True)
    partial = run.report_path.with_suffix(".partial")
    partial.write_text(report_page(f"Safe-Net Atlas: {run.directory.name}", _facts(run), stats, mosaics), encoding="utf-8")
    partial.replace(run.report_path)
    return Outcome("report", 1, 0, "page", (f"open {run.report_path.resolve()}",))


def _facts(run: Run) -> dict[str, str]:
    names = run.checkpoints(partial=True)
    table, attributes = run.manifest, run.features(names[-1]).attributes
    size = attributes["architecture"]
    bad = quarantined(run.ledger("features", names[-1]), run.features(names[-1]).blocks)
    return {
        "dataset": f"{table.attrs['root']} ({table.attrs['layout']})",
        "images": describe_counts(table),
        "bad images": f"{len(bad)}: " + "; ".join(f"{name}: {reason}" for name, reason in list(bad.items())[:5]) if bad else "none",
        "checkpoints": f"{len(names)}: {', '.join(names)}",
        "network": "width {width}, depth {depth}, heads {heads}, {image_size} px in patches of {patch_size} px, "
        "{parts} parts, {classes} classes, {sampling} sampling".format(**size),
        "precision": f"{attributes['precision']} on {attributes['device']}, maps stored as {attributes['made_with']['map_dtype']}",
        "positions": ", ".join(run.settings.cam.positions),
        "methods": ", ".join(run.settings.cam.methods),
        "targets": ", ".join(run.settings.cam.targets),
        "made with": f"safenet-atlas {version('safenet-atlas')}, torch {attributes['libraries']['torch']}",
    }
