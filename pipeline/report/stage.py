"""The report stage: figures and mosaics -> report/index.html."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from pipeline.disk.stamps import stamp
from pipeline.features.bad_images import bad_images_of
from pipeline.features.finished import finished_checkpoints
from pipeline.features.overflow import overflow_words
from pipeline.features.variants import chosen_of
from pipeline.index.stage import describe_counts
from pipeline.render.listing import LISTING, listing_seal
from pipeline.run.directory import MissingProductError, Run
from pipeline.run.outcome import Outcome
from pipeline.stats.staleness import open_stats
from pipeline.store.groups import JOINED
from pipeline.store.seals import BrokenSealError, Seal
from pipeline.store.tables import group_attributes
from pipeline.work.stops import loading
from stages.index.variants import variants_in

VERSION = 5
_NETWORK = (
    "width {width}, depth {depth}, heads {heads}, {image_size} px in patches of {patch_size} px, "
    "{parts} parts, {classes} classes, {sampling} sampling"
)


def report(run: Run) -> Outcome:
    """Write the page. It links to the mosaics beside it, so the directory of the run can be moved as a whole.

    Raises
    ------
    MissingProductError
        If figures or mosaics are missing or stale.
    """
    stats, entries, mark = open_stats(run), _pictures(run), report_stamp(run)
    with run.locked("report"):
        page_seal(run).sweep()
        if is_fresh(run, mark):
            return Outcome("report", 0, 1, "page", (f"open {run.report_path.resolve()}",))
        with loading():
            from stages.report.page import Mosaic, report_page  # which draws the plots
        mosaics = [
            Mosaic(
                source=f"../mosaics/{quote(entry['path'])}",
                kind=entry["kind"],
                caption=f"Place {entry['place']}: {entry['method']}, target {entry['target']}, {', '.join(entry['checkpoints'])}",
            )
            for entry in entries
        ]
        page = report_page(f"Safe-Net Atlas: {run.directory.name}", _facts(run), stats, mosaics)
        page_seal(run).replace(run.report_path.name, page.encode(), stamp=mark)
    return Outcome("report", 1, 0, "page", (f"open {run.report_path.resolve()}",))


def page_seal(run: Run) -> Seal:
    """Seal of the page, which notes what it was made of."""
    return Seal(run.directory / "ledger" / "report.json", run.report_path.parent)


def report_stamp(run: Run) -> str:
    """Digest of what the page shows."""
    figures = group_attributes(run.stats_path, JOINED).get("stamp")
    return stamp({"figures": figures, "pictures": _pictures(run), "facts": _facts(run), "version": VERSION})


def is_fresh(run: Run, mark: str) -> bool:
    """Whether the page is there, whole, and made of this."""
    return page_seal(run).notes.get("stamp") == mark and page_seal(run).holds(run.report_path.name)


def _pictures(run: Run) -> list[dict[str, Any]]:
    index = run.mosaics_path / LISTING
    if not index.is_file():
        raise MissingProductError(f"{index}: no mosaics; run `atlas render` first")
    try:
        listing_seal(run).check(LISTING)
    except BrokenSealError as error:
        raise ValueError(f"{error} Run `atlas render` again") from None
    entries: list[dict[str, Any]] = json.loads(index.read_text())
    gone = [entry["path"] for entry in entries if not (run.mosaics_path / entry["path"]).is_file()]
    if gone:
        raise MissingProductError(f"{run.mosaics_path / gone[0]}: this mosaic is gone ({len(gone)} in all); run `atlas render` again")
    return entries


def _facts(run: Run) -> dict[str, str]:
    names = finished_checkpoints(run, partial=True)
    table, attributes = run.manifest, run.features(names[-1]).attributes
    bad = bad_images_of(run.features(names[-1]))
    return {
        "dataset": f"{table.attrs['root']} ({table.attrs['layout']})",
        "images": describe_counts(table),
        **_variants(run),
        "bad images": f"{len(bad)}: " + "; ".join(f"{name}: {reason}" for name, reason in list(bad.items())[:5]) if bad else "none",
        "not finite": "; ".join(f"{name}: {words}" for name in names if (words := overflow_words(run.features(name)))) or "none",
        "checkpoints": f"{len(names)}: {', '.join(names)}",
        "network": _networks(run, names),
        "precision": f"{attributes['precision']} on {attributes['device']}, maps stored as {attributes['made_with']['map_dtype']}",
        "exactness": _exactness(run, names[-1]),
        "positions": ", ".join(run.settings.cam.positions),
        "methods": ", ".join(run.settings.cam.methods),
        "targets": ", ".join(run.settings.cam.targets),
        "made with": f"safenet-atlas {version('safenet-atlas')}, torch {attributes['libraries']['torch']}",
    }


def _networks(run: Run, names: Sequence[str]) -> str:
    """What the checkpoints are in numbers; where they differ, each kind with its checkpoints."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_NETWORK.format(**run.features(name).attributes["architecture"]), []).append(name)
    return next(iter(found)) if len(found) == 1 else "; ".join(f"{', '.join(of)}: {text}" for text, of in found.items())


def _variants(run: Run) -> dict[str, str]:
    """The flight heights that figures and pictures are of; nothing where the dataset has none."""
    texts = run.columns["variant"]
    present = variants_in(texts)
    chosen = chosen_of(run, texts, str(run.manifest_path))
    return {"flight heights": f"{', '.join(chosen)} of {', '.join(present)}" if chosen else ", ".join(present)} if present else {}


def _exactness(run: Run, name: str) -> str:
    """What the gate before the heat maps found, in words."""
    cams = run.cams(name)
    found = cams.attributes.get("exactness") if cams.exists else None
    if not found or found["logit_error"] is None:
        return "not examined"
    how = "closed form" if found["form"] == "closed" else "layer by layer on the stored maps"
    text = f"{how}; stored maps and heads give the stored logits to {found['logit_error']:.1g} of the largest ({found['samples']} images)"
    return text + (f", the closed form a map to {found['gradient_error']:.1g} of its maximum" if found["gradient_error"] is not None else "")
