"""Several trainings in one run: columns, rows and sentences never share a name, and no strip, drift or change goes through two of them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pipeline.render.catalogue as picture_plan
import stages.render.mosaics as mosaics
from pipeline.features.finished import finished_checkpoints
from pipeline.render.catalogue import undrawn, wanted_pictures
from pipeline.render.drawing import Shared, draw_picture
from pipeline.render.png_files import png_settings
from pipeline.render.staleness import text_chunks
from pipeline.stages import STAGES
from pipeline.stats.staleness import open_stats
from safenet.checkpoint import save_checkpoint
from stages.labels import CheckpointName
from stages.render.panels import draw_mosaic, panel_scale
from stages.report.page import epoch_tables

FILES = {"seed1/net_119": 0, "seed2/net_059": 1, "seed2/net_119": 2, "seed3/net_119": 3}  # folder and name -> seed of the weights
DRAWN = (
    "cam.methods=['l2_norm', 'grad_cam']", "cam.targets=['match', 'best_share', 'class_0001']", "render.methods=[]", "render.targets=[]",
    "render.mosaics=['positions', 'epochs', 'paper', 'methods', 'change']", "render.epochs_scope=checkpoint",
)  # fmt: skip


@pytest.fixture(scope="module")
def several(lab, indexed, make_network, tmp_path_factory):
    """Four checkpoints of three trainings, whose files tell no epoch but by their names; finished. Look, do not touch."""
    root = tmp_path_factory.mktemp("series")
    for name, seed in FILES.items():
        save_checkpoint(root / f"{name}.pth", make_network(seed), class_names=("0000", "0001", "0002"))
    run = lab.run(Path(shutil.copytree(indexed, root / "run")), f"extract.checkpoints=['{root}/seed*/net_*.pth']", *DRAWN)
    for stage in STAGES[1:]:
        stage.bring_up_to_date(run)
    return run


class Spy:
    """Stands in for `draw_mosaic`, and keeps what was asked of it."""

    def __call__(self, rows, row_labels, column_labels, title, footer, settings, bars=None):
        self.rows, self.columns, self.title, self.footer, self.settings = rows, list(column_labels), title, footer, settings
        return draw_mosaic(rows, row_labels, column_labels, title, footer, settings, bars)


def drawn(run, picture, monkeypatch):
    spy = Spy()
    monkeypatch.setattr(mosaics, "draw_mosaic", spy)
    draw_picture(picture, Shared(run))
    return spy


def of_kind(run, kind, **chosen):
    pictures = wanted_pictures(run, finished_checkpoints(run))
    return [p for p in pictures if p.kind == kind and all(getattr(p, name) == value for name, value in chosen.items())]


def test_a_strip_is_of_one_series_and_the_single_ones_stand_side_by_side(several, monkeypatch):
    strips = of_kind(several, "epochs", method="grad_cam", target="match")
    assert {(p.series, p.checkpoints) for p in strips} == {
        ("seed2", ("net_059", "seed2-net_119")),
        (None, ("seed1-net_119", "seed3-net_119")),
    }
    heads = {p.series: drawn(several, p, monkeypatch).columns[1:] for p in strips}
    assert heads == {"seed2": ["epoch 59", "epoch 119"], None: ["epoch 119 (seed1)", "epoch 119 (seed3)"]}
    paths = [entry["path"] for entry in json.loads((several.mosaics_path / "index.json").read_text()) if entry["kind"] == "epochs"]
    assert len(set(paths)) == len(paths) and {Path(path).parts[1] for path in paths if len(Path(path).parts) == 3} == {"seed2"}


def test_titles_call_a_series_a_series(several, monkeypatch):
    (strip,) = of_kind(several, "epochs", method="grad_cam", target="match", series="seed2")
    assert drawn(several, strip, monkeypatch).title == f"Place {strip.place}, series seed2, by checkpoint: grad_cam of match"


def test_a_strip_that_leaves_checkpoints_out_says_so_and_tells_the_others_apart(lab, several, monkeypatch):
    """Two of one series share an epoch, and one of them has no column: the other's head tells which it is all the same."""
    epochs = {"seed1-net_119": 119, "net_059": 59, "seed2-net_119": 119, "seed3-net_119": 120}
    monkeypatch.setattr(picture_plan, "checkpoint_names", lambda run, names: [CheckpointName(name, epochs[name], "runs") for name in names])
    run = lab.run(several.directory, f"extract.checkpoints={list(several.settings.extract.checkpoints)}", *DRAWN, "render.columns=2")
    (strip,) = of_kind(run, "epochs", method="grad_cam", target="match")
    spy = drawn(run, strip, monkeypatch)
    assert spy.columns[1:] == ["epoch 119 (seed1-net_119)", "epoch 120"]
    assert spy.title == f"Place {strip.place}, 2 of 4 checkpoints: grad_cam of match"
    (change, *_) = of_kind(run, "change")
    assert change.heads == strip.heads
    stamps = {
        text_chunks(run, one, Shared(run).content)["stamp"]
        for one in (strip, replace(strip, left_out=0), replace(strip, heads=("epoch 119", "epoch 120")))
    }
    assert len(stamps) == 3, "what is drawn is in the stamp"


def test_scales_of_checkpoints_are_each_column_s_own(several, monkeypatch):
    """Keyed by the heads, checkpoints of one epoch took the last one's."""
    (side_by_side,) = of_kind(several, "epochs", method="grad_cam", target="match", series=None)
    spy, stats = drawn(several, side_by_side, monkeypatch), open_stats(several)
    found = [panel_scale(panel, spy.settings).vmax for panel in spy.rows[0][1:]]
    ranges = stats["range_high"].sel(product="aligned/match/grad_cam")
    assert found == [float(ranges.sel(checkpoint=name).max()) for name in side_by_side.checkpoints] and len(set(found)) == 2
    assert "scale: checkpoint (one a checkpoint" in spy.footer


def test_no_two_checkpoints_are_called_alike_anywhere(several, monkeypatch):
    for picture in wanted_pictures(several, finished_checkpoints(several)):
        if picture.kind in ("positions", "epochs", "paper"):
            spy = drawn(several, picture, monkeypatch)
            assert len(set(spy.columns)) == len(spy.columns) or picture.kind == "paper", picture.path  # there the columns are images
    for rows in epoch_tables(open_stats(several)).values():
        names = [row["checkpoint"] for row in rows]
        assert names == ["epoch 119 (seed1)", "epoch 59 (seed2)", "epoch 119 (seed2)", "epoch 119 (seed3)"]
    page = several.report_path.read_text()
    for series in ("seed1", "seed2", "seed3"):
        assert f"<li>{series}: Recall@1 drone to satellite" in page


def test_drift_and_changes_stay_within_a_series(several):
    stats = open_stats(several).sel(product="aligned/match/grad_cam").isel(group=0)
    known = np.isfinite(stats["cosine_to_previous"].values)
    assert dict(zip(stats["checkpoint"].values, known.tolist(), strict=True)) == {
        "seed1-net_119": False, "net_059": False, "seed2-net_119": True, "seed3-net_119": False,
    }  # fmt: skip
    to_last = stats["cosine_to_last"].values
    assert to_last[[0, 2, 3]] == pytest.approx(1) and to_last[1] < 0.99
    assert {p.checkpoints for p in of_kind(several, "change")} == {("net_059", "seed2-net_119")}


def test_every_series_has_its_last_checkpoint_drawn(several):
    assert {p.checkpoints for p in of_kind(several, "positions")} == {("seed1-net_119",), ("seed2-net_119",), ("seed3-net_119",)}


def test_pictures_of_best_name_the_image_that_ranks_first(several, monkeypatch):
    """With its score, beside the true one; the score is the mean over the heads of the cosine."""
    (picture, *_) = of_kind(several, "positions", target="best_share", checkpoints=("seed1-net_119",))
    notes = [row[0].caption for row in drawn(several, picture, monkeypatch).rows]
    embedding = several.features("seed1-net_119").read(["embedding"])["embedding"].values.astype(np.float64)
    unit = embedding / np.linalg.norm(embedding, axis=2, keepdims=True)
    table = several.manifest
    for note, (_, row) in zip(notes, picture.images.iterrows(), strict=True):
        gallery = table[(table["split"] == row["split"]) & (table["view"] != row["view"])]["sample"].to_numpy()
        score = np.einsum("he,ghe->g", unit[row["sample"]], unit[gallery]) / unit.shape[1]
        first, true = int(gallery[score.argmax()]), gallery[table["place"].to_numpy()[gallery] == row["place"]]
        assert f"{table['id'][first]} ({score.max():.3f})" in note
        if first in true:
            assert note.startswith("ranks first, and is true: ")
        else:
            best = score[np.isin(gallery, true)].max()
            rank = 1 + int((score > best).sum())
            assert note.startswith("ranks first: ") and note.endswith(f"({best:.3f}), rank {rank}")
    (other, *_) = of_kind(several, "positions", target="match", checkpoints=("seed1-net_119",))
    assert [row[0].caption for row in drawn(several, other, monkeypatch).rows] == [""] * len(other.images)


@pytest.mark.parametrize(
    ("settings", "kind", "target", "colour_map"),
    [
        ((), "positions", "match", "inferno"),
        (("render.signed=true",), "positions", "match", "RdBu_r"),
        (("render.signed=true",), "positions", "none", "inferno"),
        (("render.signed=true",), "methods", "match", "inferno, RdBu_r"),
        ((), "change", "class_0001", "RdBu_r"),
    ],
)
def test_text_chunks_name_the_colour_maps_that_are_drawn(lab, several, tmp_path, settings, kind, target, colour_map):
    run = lab.run(several.directory, f"extract.checkpoints={list(several.settings.extract.checkpoints)}", *DRAWN, *settings)
    picture = of_kind(run, kind, target=target)[0]
    assert text_chunks(run, picture, Shared(run).content)["colour_map"] == colour_map
    if not settings:
        assert png_settings(run.mosaics_path / picture.path)["colour_map"] == colour_map


@pytest.mark.parametrize("kind", ["positions", "epochs"])
def test_percentile_scales_are_named_in_the_footer(lab, several, monkeypatch, kind):
    chosen = ("render.scope=percentile", "render.epochs_scope=percentile", "render.percentiles=[5, 90]")
    run = lab.run(several.directory, f"extract.checkpoints={list(several.settings.extract.checkpoints)}", *DRAWN, *chosen)
    spy = drawn(run, of_kind(run, kind, method="grad_cam", target="match")[0], monkeypatch)
    assert "scale: percentile 5 to 90 (of the cells of the maps that share it; values beyond it take its end colours)" in spy.footer
    assert "values: ReLU, from 0 |" in spy.footer
    statistic = drawn(run, of_kind(run, kind, method="l2_norm")[0], monkeypatch).footer
    assert "values: raw |" in statistic and "minimum" not in statistic
    spy = drawn(run, of_kind(run, kind, method="grad_cam", target="match")[0], monkeypatch)
    panels = [panel for panel in spy.rows[0][1:] if panel.heat is not None]
    drawn_cells = [np.maximum(panel.heat[np.isfinite(panel.heat)], 0) for panel in panels]
    expected = [np.percentile(np.concatenate(drawn_cells) if kind == "epochs" else cells, 90) for cells in drawn_cells]
    assert [panel_scale(panel, spy.settings).vmax for panel in panels] == pytest.approx(expected)


def test_a_change_between_networks_of_unlike_sizes_is_left_out_alone(lab, several, monkeypatch):
    """Runs of earlier versions may hold such networks: the other pictures are drawn."""
    features = type(several).features

    class Other:
        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            found = getattr(self._store, name)
            if (name, self._store.name) != ("attributes", "net_059"):
                return found
            return {**found, "architecture": {**found["architecture"], "width": 32}}

    monkeypatch.setattr(type(several), "features", lambda run, name: Other(features(run, name)))
    names = finished_checkpoints(several)
    pictures = wanted_pictures(several, names)
    assert not [p for p in pictures if p.kind == "change"] and [p for p in pictures if p.kind == "epochs"]
    (note,) = undrawn(several, names, pictures)
    assert note == (
        "change: not drawn from net_059 to seed2-net_119: their networks differ in width, parts or grid, so the heads of one cannot read the "
        "features of the other"
    )
