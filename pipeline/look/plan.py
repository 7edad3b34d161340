"""What the stages would do: which products are fresh, stale (and why), partial or missing, and how much work that is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from pipeline.cam.staleness import CamState, cam_state
from pipeline.cam.wanted import wanted_map_keys
from pipeline.checkpoints.files import CheckpointFile
from pipeline.checkpoints.names import named_files, notes_on_left
from pipeline.checkpoints.reading import read_info
from pipeline.checkpoints.sizes import check_same_sizes
from pipeline.disk.places import Place
from pipeline.disk.space import human_bytes
from pipeline.disk.stamps import difference
from pipeline.extract.known_rows import replaced_rows
from pipeline.extract.layout import image_bytes, ingredients
from pipeline.features.finished import finished_checkpoints, missing_blocks
from pipeline.features.state import feature_state
from pipeline.render.catalogue import wanted_pictures
from pipeline.render.png_files import png_settings
from pipeline.render.staleness import stale_pictures
from pipeline.report.stage import is_fresh, report_stamp
from pipeline.run.directory import MissingProductError, Run
from pipeline.run.manifest import listing_stamp
from pipeline.run.rates import rates
from pipeline.settings.all import load_settings
from pipeline.stats.state import stale_figures
from pipeline.store.groups import group_names, known_groups
from pipeline.store.replacing import is_swapping, replacement_of
from safenet.checkpoint_info import CheckpointInfo
from safenet.needs_network import NetworkNotInstalledError
from stages.cam.map_keys import map_keys_of
from stages.index.settings import DatasetSettings
from stages.index.variants import variants_in

State = Literal["fresh", "stale", "partial", "missing", "waits"]
_MAP_BYTES = 4


@dataclass(frozen=True)
class Row:
    """One product of one checkpoint.

    Attributes
    ----------
    state : {"fresh", "stale", "partial", "missing", "waits"}
        waits: what it is made of is not fresh itself.
    images : int
        Images (pictures, for render) that the stage has to work on.
    bytes : int
        What it will write, about.
    seconds : float or None
        By the rate of the last time; None where the stage was never measured in this run.
    """

    stage: str
    what: str
    state: State
    reason: str = ""
    images: int = 0
    bytes: int = 0
    seconds: float | None = None


def plan(run: Run) -> list[Row]:
    """Return what every stage would do, in order; nothing is written, and no photo is read."""
    measured = rates(run.directory)
    return [replace(row, seconds=_seconds(row, measured.get(row.stage))) for row in _rows(run, tuple(_STAGES))]


def _rows(run: Run, stages: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for stage in stages:
        try:
            rows += list(_STAGES[stage](run, rows))
        except (MissingProductError, FileNotFoundError) as error:
            rows.append(Row(stage, "", "waits", " ".join(str(error).split())))
    return rows


def predicted_bytes(directory: Place, config: Path | None, assignments: Sequence[str]) -> int | None:
    """What `extract` and `cam` will write into a run, about; None where there is no manifest or no usable configuration yet."""
    try:
        rows = _rows(Run(directory, load_settings(config, assignments), progress=False), ("extract", "cam"))
    except (ValueError, OSError):
        return None
    return sum(row.bytes for row in rows) if (directory / "manifest.parquet").is_file() else None


def plan_table(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Lay the rows out as text."""
    return [
        {
            "stage": row.stage,
            "what": row.what or "-",
            "state": row.state,
            "images": f"{row.images:,}" if row.images else "-",
            "writes": human_bytes(row.bytes) if row.bytes else "-",
            "time": "-" if not row.images else "?" if row.seconds is None else human_seconds(row.seconds),
            "why": row.reason or "-",
        }
        for row in rows
    ]


def plan_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """As plain values."""
    return [asdict(row) for row in rows]


def human_seconds(seconds: float) -> str:
    """Write 3725 as "1 h 02 min"."""
    if round(seconds) < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _seconds(row: Row, rate: float | None) -> float | None:
    return None if rate is None or not row.images else row.images / rate


def _index(run: Run, rows: Sequence[Row]) -> Iterator[Row]:
    if not run.manifest_path.is_file():
        yield Row("index", "", "missing", "not indexed yet")
    elif run.settings.dataset is None or not run.settings.dataset.root.expanduser().is_dir():
        yield Row("index", "", "fresh", "the photos are not here, so they cannot be compared")
    elif reason := _why_listed_again(run.manifest, run.settings.dataset):
        yield Row("index", "", "stale", reason, len(run.manifest))
    else:
        yield Row("index", "", "fresh", "by names and sizes; `atlas index` compares the bytes")


def _why_listed_again(table: pd.DataFrame, wanted: DatasetSettings) -> str:
    listed = table.attrs
    if "listing" not in listed:
        return "listed by schema version 1"
    if listed["root"] != str(wanted.root.expanduser().absolute()):
        return f"the photos were in {listed['root']} when they were listed"
    changed = listed["listing"] != listing_stamp(wanted, variants_in(table["variant"]))
    return "files were added, removed, renamed or changed in size since, or [dataset] asks for others" if changed else ""


def _extract(run: Run, rows: Sequence[Row]) -> Iterator[Row]:
    named, _ = named_files(run), run.manifest  # without a manifest, all wait alike
    usable: dict[str, CheckpointFile] = {}
    for name, file in named.files.items():
        try:
            info = read_info(file, run.settings.extract.told)
            usable[name] = file
            yield _extract_one(run, name, file, info)
        except (ValueError, OSError, NetworkNotInstalledError) as error:  # one that cannot be used must not hide the others
            yield Row("extract", name, "waits", " ".join(str(error).split()))
    for name in known_groups(run.features_path):
        missing, total = missing_blocks(run.features(name))
        if name in named.left and missing:
            yield Row("extract", name, "waits", f"{missing} of {total} blocks missing, and no configured checkpoint file makes it")
        elif name in named.left:
            yield Row("extract", name, "fresh", " ".join(notes_on_left([name])))
    try:
        check_same_sizes(run, replace(named, files=usable))
    except ValueError as error:
        yield Row("extract", "", "waits", str(error))


def _extract_one(run: Run, name: str, file: CheckpointFile, info: CheckpointInfo) -> Row:
    made_with, store = ingredients(run, file.digest), run.features(name)
    state = feature_state(run, store, made_with)
    if state.kind != "stale":
        return Row("extract", name, state.kind, state.reason, state.pending_images, state.pending_images * image_bytes(run, info))
    beside = feature_state(run, replacement_of(store), made_with)  # what an interrupted --replace has made
    target = beside if beside.kind != "stale" else state
    known = replaced_rows(run, store, made_with)
    images = sum(len(block) - len(known.rows(block)) for block in target.pending)
    written = sum(len(block) for block in target.pending) * image_bytes(run, info)
    return Row("extract", name, "stale", f"{state.reason}; needs --replace", images, written)


def _cam(run: Run, rows: Sequence[Row]) -> Iterator[Row]:
    waiting = {row.what for row in rows if row.stage == "extract" and row.what and row.state != "fresh"}
    others = not waiting or set(group_names(run.features_path)) - waiting
    finished = set(finished_checkpoints(run, partial=True)) if others else set()
    for name in sorted(finished | waiting):
        if name in waiting:
            yield Row("cam", name, "waits", "for extract", len(run.manifest) * len(map_keys_of(run.settings.cam)))
            continue
        if is_swapping(run.cams(name)):
            yield Row("cam", name, "partial", "a process was killed while it put the maps into blocks of another length")
            continue
        map_keys = wanted_map_keys(run, name)
        state = cam_state(run, name, map_keys)
        grid = run.features(name).attributes["architecture"]
        maps = sum(len(block) * len(missing) for block, missing in state.pending)
        size = maps * _MAP_BYTES * (grid["image_size"] // grid["patch_size"]) ** 2
        kind, reason = _judge_maps(run, name, state, len(map_keys))
        yield Row("cam", name, kind, reason, maps, size)


def _judge_maps(run: Run, name: str, state: CamState, total: int) -> tuple[State, str]:
    if not state.pending:
        return "fresh", ""
    cams = run.cams(name)
    made = [cams.array_attributes(p.key).get("stamp") == state.stamps[p.key] for _, missing in state.pending for p in missing]
    keys = sorted({p.key for _, missing in state.pending for p in missing})
    blocks = f"in {len(state.pending)} of {len(state.origins)} blocks"
    which = f"{len(keys)} of {total} maps ({', '.join(keys[:2])}{', ...' if len(keys) > 2 else ''})"
    if not cams.exists:
        return "missing", "not computed yet"
    if all(made):
        return "partial", f"{which} missing or of changed features {blocks}"
    return "partial" if len(keys) < total else "stale", f"{which} are new, or made of other features, {blocks}"


def _stats(run: Run, rows: Sequence[Row]) -> Iterator[Row]:
    if waits := _waiting(rows, "cam"):
        yield Row("stats", "", "waits", f"for {waits}", len(run.manifest) * sum(row.stage == "cam" for row in rows))
        return
    names = finished_checkpoints(run, partial=True)
    stale = stale_figures(run, names)
    made = set(group_names(run.stats_path))
    for name in [*names, *(key for key in stale if key not in names)]:
        state: State = "fresh" if name not in stale else "stale" if name in made else "missing"
        yield Row("stats", name, state, stale.get(name, ""), len(run.manifest) if name in stale and name in names else 0)


def _render(run: Run, rows: Sequence[Row]) -> Iterator[Row]:
    if waits := _waiting(rows, "cam") or (_waiting(rows, "stats") if _needs_figures(run) else ""):
        yield Row("render", "", "waits", f"for {waits}")
        return
    pictures = wanted_pictures(run, finished_checkpoints(run, partial=True))
    stale = stale_pictures(run, pictures)
    there = [picture for picture in stale if (run.mosaics_path / picture.path).is_file()]
    state: State = "fresh" if not stale else "missing" if not there and len(stale) == len(pictures) else "stale" if there else "partial"
    yield Row("render", f"{len(pictures)} pictures", state, _why_drawn(run, stale, there), len(stale))


def _why_drawn(run: Run, stale: Sequence[Any], there: Sequence[Any]) -> str:
    if not stale:
        return ""
    if not there:
        return f"{len(stale)} not drawn yet"
    made = png_settings(run.mosaics_path / there[0].path)
    if not made:
        return f"{len(there)} damaged"
    changed = _changed_setting(made.get("settings", "{}"), run.settings.render.model_dump_json())
    return f"{len(stale)} pictures: {changed or 'their maps, figures, photos, stats.low_contrast_below or the version changed'}"


def _changed_setting(made: str, wanted: str) -> str:
    return difference(json.loads(made), json.loads(wanted), "render.")


def _report(run: Run, rows: Sequence[Row]) -> Iterator[Row]:
    if waits := _waiting(rows, "stats") or _waiting(rows, "render"):
        yield Row("report", "", "waits", f"for {waits}")
    elif is_fresh(run, report_stamp(run)):
        yield Row("report", "", "fresh")
    else:
        there = run.report_path.is_file()
        yield Row("report", "", "stale" if there else "missing", "figures, pictures or facts changed" if there else "not written yet")


def _waiting(rows: Sequence[Row], stage: str) -> str:
    return stage if any(row.stage == stage and row.state != "fresh" for row in rows) else ""


def _needs_figures(run: Run) -> bool:
    return bool({run.settings.render.scope, run.settings.render.epochs_scope} & {"checkpoint", "dataset"})


_STAGES: dict[str, Callable[[Run, Sequence[Row]], Iterator[Row]]] = {
    "index": _index,
    "extract": _extract,
    "cam": _cam,
    "stats": _stats,
    "render": _render,
    "report": _report,
}
