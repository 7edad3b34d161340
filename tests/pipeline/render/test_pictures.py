"""The pictures drawn on request, on a real run: methods, depth, pair and change; when each is drawn again, and why one is not drawn."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from pipeline.cam.stage import cam
from pipeline.disk.file_names import file_name
from pipeline.extract.stage import extract
from pipeline.features.finished import finished_checkpoints
from pipeline.render import catalogue as picture_plan
from pipeline.render import staleness
from pipeline.render.catalogue import wanted_pictures
from pipeline.render.png_files import png_settings
from pipeline.render.stage import render
from pipeline.render.staleness import stale_pictures
from safenet.checkpoint import save_checkpoint
from stages.render.settings import MosaicKind
from stages.report.page import MOSAIC_HEADS

KINDS = ("methods", "depth", "pair", "change")
WIDE = (
    "extract.blocks=[0,1]", "cam.positions=['patch','aligned','part','block_0','block_1']", "cam.methods=['l2_norm','grad_cam','hires_cam']",
    "cam.targets=['match','class_0001']", "render.methods=[]", "render.targets=[]", f"render.mosaics={list(KINDS)}",
)  # fmt: skip
TWO = "net_00[02].pth"  # nearest and bilinear sampling


@pytest.fixture(scope="module")
def drawn(lab, indexed, tmp_path_factory):
    """A run with every picture on request; look, do not touch."""
    run = lab.run(Path(shutil.copytree(indexed, tmp_path_factory.mktemp("drawn") / "run")), *WIDE, checkpoints=TWO)
    extract(run)
    cam(run)
    render(run)
    return run


@pytest.fixture
def drawn_copy(drawn, tmp_path):
    return Path(shutil.copytree(drawn.directory, tmp_path / "run"))


def stale(run):
    pictures = wanted_pictures(run, finished_checkpoints(run))
    return [picture.path.as_posix() for picture in stale_pictures(run, pictures)]


def test_all_kinds_are_drawn_once_and_listed(lab, drawn):
    place = json.loads((drawn.mosaics_path / "index.json").read_text())[0]["place"]
    found = {path.relative_to(drawn.mosaics_path).as_posix() for path in drawn.mosaics_path.rglob("*.png")}
    images = (f"satellite/{place}/{place}", f"drone/{place}/image-01")
    assert found == {
        *(f"methods/net_002/{file_name([place, image, 'methods', target])}.png" for image in images for target in ("match", "class_0001")),
        f"depth/net_002/{place}-l2_norm.png",
        f"pair/net_002/{place}-pair.png",
        *(f"change/net_000-net_002/{place}-{method}-class_0001.png" for method in ("grad_cam", "hires_cam")),
    }
    assert {entry["path"] for entry in json.loads((drawn.mosaics_path / "index.json").read_text())} == found
    assert stale(drawn) == []


def test_every_picture_has_a_file_whatever_its_place_is_called(lab, finished, tmp_path):
    """a/b and a_b shared one; a long name stopped the stage."""
    names = ("a_b", "a/b", "A_B", "x" * 200, "\N{CJK UNIFIED IDEOGRAPH-5929}" * 120)
    chosen = ("render.mosaics=['paper','epochs']", f"render.places={list(names)}")
    run = lab.run(Path(shutil.copytree(finished.directory, tmp_path / "run")), *chosen)
    run.manifest["place"] = run.manifest["place"].map(dict(zip(sorted(set(run.manifest["place"])), names, strict=True)))
    pictures = wanted_pictures(run, finished_checkpoints(run))
    paths = [picture.path.as_posix() for picture in pictures]
    assert len(pictures) == 5 * 2 * 2 and len({path.casefold() for path in paths}) == len(paths)
    render(run)
    assert stale_pictures(run, pictures) == []


def test_a_methods_picture_is_called_by_its_image(lab, drawn):
    """Photos of one view may share place and stem, in folders of their own."""
    pictures = [picture for picture in wanted_pictures(drawn, finished_checkpoints(drawn)) if picture.kind == "methods"][:1]
    other = pictures[0].images.assign(id="satellite/elsewhere/" + pictures[0].images["path"].map(lambda path: Path(path).stem))
    assert replace(pictures[0], images=other).path != pictures[0].path


def test_pictures_hold_something_and_say_how_they_were_made(drawn):
    scopes = {"methods": "image", "depth": "image", "pair": "image", "change": "row"}
    for path in drawn.mosaics_path.rglob("*.png"):
        kind, settings = path.relative_to(drawn.mosaics_path).parts[0], png_settings(path)
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 5
        assert settings["scope"] == scopes[kind] and settings["Title"].startswith(f"{kind} of place")
        assert settings["checkpoints"] == ("net_000, net_002" if kind == "change" else "net_002")


def test_more_cells_are_asked_of_pairs_alone(lab, drawn):
    assert [Path(path).parts[0] for path in stale(lab.run(drawn.directory, *WIDE, "render.pair_cells=2", checkpoints=TWO))] == ["pair"]


def test_another_method_is_one_more_row_and_nothing_to_the_pair(lab, drawn_copy):
    more = (*WIDE[:2], "cam.methods=['l2_norm','grad_cam','hires_cam','max']", *WIDE[3:])
    run = lab.run(drawn_copy, *more, checkpoints=TWO)
    cam(run)
    assert sorted({Path(path).parts[0] for path in stale(run)}) == ["depth", "methods"]
    outcome = render(run)
    assert outcome.computed == 5, "four of methods, depth of max; depth of l2_norm, pair and change stay"
    assert render(run).computed == 0


def test_other_features_of_a_photo_redraw_what_shows_it(drawn, monkeypatch):
    """The satellite image of the place is in all of them but the methods of the drone image; another sample is in none."""
    pictures = wanted_pictures(drawn, finished_checkpoints(drawn))
    pair = next(picture for picture in pictures if picture.kind == "pair")
    satellite, original = int(pair.images["sample"].iloc[0]), staleness.content_of
    monkeypatch.setattr(staleness, "content_of", lambda run, name, sample: "other" if sample == satellite else original(run, name, sample))
    kept = [path for path in (picture.path.as_posix() for picture in pictures) if path not in stale(drawn)]
    assert len(kept) == 2 and all("methods" in path and "drone" in path for path in kept)
    shown = {int(sample) for picture in pictures for sample in picture.images["sample"]}
    other = next(sample for sample in range(15) if sample not in shown)
    monkeypatch.setattr(staleness, "content_of", lambda run, name, sample: "other" if sample == other else original(run, name, sample))
    assert stale(drawn) == []


def test_a_change_of_label_is_drawn_of_trained_places_alone(lab, drawn, finished):
    settings = ("render.mosaics=['change']", "render.methods=['grad_cam']", "render.targets=['label']")
    run = lab.run(finished.directory, *settings, "render.places=['0001']")
    assert [picture.path.as_posix() for picture in wanted_pictures(run, finished_checkpoints(run))] == [
        "change/net_000-net_002/0001-grad_cam-label.png"
    ]
    run = lab.run(finished.directory, *settings)
    assert wanted_pictures(run, finished_checkpoints(run)) == []


@pytest.mark.parametrize(("scope", "depends"), [("image", False), ("checkpoint", True), ("dataset", True)])
def test_figures_are_in_the_stamp_where_a_scale_comes_from_them(lab, finished, monkeypatch, scope, depends):
    run = lab.run(finished.directory, f"render.scope='{scope}'", "render.mosaics=['positions']")
    picture = wanted_pictures(run, finished_checkpoints(run))[0]

    def stamp_with(figures):
        monkeypatch.setattr(staleness, "group_attributes", lambda *_: {"stamp": figures})
        return staleness.text_chunks(run, picture, lambda *_: "")["stamp"]

    assert (stamp_with("before") != stamp_with("after")) == depends


def test_every_kind_is_planned_and_has_a_head_on_the_page():
    assert set(MOSAIC_HEADS) == set(get_args(MosaicKind)) == set(picture_plan._KINDS)


def test_what_cannot_be_drawn_is_said(lab, make_network, fresh, tmp_path):
    checkpoint = tmp_path / "bent" / "net_000.pth"
    save_checkpoint(checkpoint, make_network(0, pooling="max"), epoch=0, metrics={}, class_names=("0000", "0001", "0002"))
    run = lab.run(fresh, f"extract.checkpoints=['{checkpoint}']", "cam.methods=['l2_norm']", "render.methods=[]", "render.targets=[]",
                  "render.mosaics=['pair','depth','change']")  # fmt: skip
    extract(run)
    cam(run)
    outcome = render(run)
    assert outcome.computed == 0
    assert outcome.notes[1:] == (
        "pair: not drawn for net_000: heads with an activation, or max pooling, give a cell no embedding of its own",
        "depth: not drawn: there are no maps at blocks. Add block_<i> to cam.positions, and what they are made of to [extract]",
        "change: not drawn: it takes two checkpoints of a series and a target that means the same in both: label (of a trained place) or class_NAME",
    )
