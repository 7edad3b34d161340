"""What pictures share is read once: photos, stores, explanations; and pictures may be drawn by several threads, processes and parts."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pipeline.cam.explain import Explainer
from pipeline.cam.stage import cam
from pipeline.render import stage as render_stage
from pipeline.render import staleness, views
from pipeline.render.stage import RenderStage, render
from pipeline.run.directory import Run
from pipeline.work.share import Share

SOME = ("render.mosaics=['epochs','positions','pair']", "render.place_count=2", "cam.methods=['l2_norm','grad_cam','hires_cam']")


@pytest.fixture
def undrawn(lab, finished_copy):
    """A run without pictures."""
    run = lab.run(finished_copy, *SOME, "compute.executor='serial'")
    cam(run)
    shutil.rmtree(run.mosaics_path)
    return run


def counted(monkeypatch, owner, name, key):
    """How often something is called, by what `key` makes of the arguments."""
    calls, original = Counter(), getattr(owner, name)

    def call(*arguments, **options):
        calls[key(*arguments)] += 1
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, call)
    return calls


def pixels(run):
    return {path.relative_to(run.mosaics_path).as_posix(): np.array(Image.open(path)) for path in run.mosaics_path.rglob("*.png")}


def test_each_photo_store_and_explainer_is_opened_once(undrawn, monkeypatch):
    photos = counted(monkeypatch, views, "open_photo", lambda file: file.name)
    opened = {kind: counted(monkeypatch, Run, kind, lambda run, name: (type(run).__name__, name)) for kind in ("features", "cams")}
    explainers = counted(monkeypatch, Explainer, "__init__", lambda *_: "made")
    assert render(undrawn).computed > 4
    assert set(photos.values()) == {1}
    assert len(photos) >= 4, "two places from both views"
    for calls in opened.values():
        assert {count for (kind, _), count in calls.items() if kind == "OpenedRun"} == {1}
    assert explainers == {"made": 1}


def test_threads_draw_what_one_thread_draws(lab, undrawn):
    render(undrawn)
    one_by_one = pixels(undrawn)
    for path in undrawn.mosaics_path.rglob("*.png"):
        path.unlink()
    together = lab.run(undrawn.directory, *SOME, "compute.executor='threads'", "compute.workers=3")
    assert render(together).computed == len(one_by_one)
    found = pixels(together)
    assert found.keys() == one_by_one.keys()
    for name, picture in one_by_one.items():
        np.testing.assert_array_equal(found[name], picture, err_msg=name)


def test_pieces_are_the_pictures_of_a_place(undrawn):
    stage = RenderStage(undrawn, partial=False)
    places = {one.name: {picture.place for picture in one.pictures} for one in stage.subjects()}
    assert all(found == {name} for name, found in places.items())
    assert len(places) == 2


def test_a_part_reads_no_picture_back_that_it_drew(undrawn, monkeypatch):
    own = [Run(undrawn.directory, undrawn.settings, False, Share(number, 2)) for number in (1, 2)]
    drawn = counted(monkeypatch, render_stage, "write_png", lambda path, *_: path)
    read = counted(monkeypatch, staleness, "png_settings", lambda path: path in drawn)
    render(own[0])
    assert (len(drawn) > 2, read[True]) == (True, 0)
    of_first = len(drawn)
    render(own[1])
    assert len(drawn) > of_first
    assert read[True] == of_first, "the other part's, to see whether all are there"
    listed = json.loads((undrawn.mosaics_path / "index.json").read_bytes())
    assert {entry["path"] for entry in listed} == {path.relative_to(undrawn.mosaics_path).as_posix() for path in drawn}
