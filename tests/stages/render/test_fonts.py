"""Text in any script: the machine's fonts where they have it; where none has, it is said, and mended when a font is installed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from made_fonts import make_font
from PIL import Image, ImageDraw

from pipeline.features.finished import finished_checkpoints
from pipeline.render.catalogue import wanted_pictures
from pipeline.render.png_files import png_settings
from pipeline.render.stage import render
from pipeline.render.staleness import stale_pictures
from pipeline.report.stage import report
from pipeline.stats.staleness import open_stats
from stages.render import fonts
from stages.render.fonts import face_for, missing_characters, own_face, runs_of, visible
from stages.render.lettering import line_height, load_font, text_mask, text_width
from stages.report.plots import draw_plots

HEAVEN, RIVER, TOWN = "\N{CJK UNIFIED IDEOGRAPH-5929}", "\N{CJK UNIFIED IDEOGRAPH-6CB3}", "\N{CJK UNIFIED IDEOGRAPH-57CE}"
CACHES = (fonts.machine_faces, fonts.face_for, fonts.runs_of)


@pytest.fixture
def install(monkeypatch):
    """Let the machine have these fonts and no others, besides Matplotlib's own."""

    def chosen(*files):
        monkeypatch.setattr(fonts, "findSystemFonts", lambda: [str(file) for file in files])
        for cached in CACHES:
            cached.cache_clear()

    chosen()
    yield chosen
    for cached in CACHES:
        cached.cache_clear()


def test_the_first_font_that_has_the_whole_text_is_taken_else_the_one_that_has_most(install, tmp_path):
    some, all_of_it = make_font(tmp_path / "a.ttf", HEAVEN, "A"), make_font(tmp_path / "b.ttf", f"{HEAVEN}{RIVER} x", "B")
    install(some, all_of_it)
    assert face_for("place x") is own_face() and face_for("place x", bold=True) is own_face(bold=True)
    assert face_for(HEAVEN).file == str(some)
    assert face_for(f"{HEAVEN} x").file == face_for(f"{HEAVEN}{RIVER}").file == str(all_of_it)
    assert face_for(f"{HEAVEN}{RIVER}{TOWN}").file == str(all_of_it)
    assert missing_characters(f"{HEAVEN}{RIVER}{TOWN}{TOWN} x\n") == TOWN


def test_a_line_of_two_fonts_has_no_box_that_one_of_them_could_draw(install, tmp_path):
    install(make_font(tmp_path / "a.ttf", f"{HEAVEN}{RIVER}"))
    runs = runs_of(f"Place {HEAVEN}{RIVER}, \N{GREEK SMALL LETTER ALPHA}")
    assert [run for run, _ in runs] == ["Place ", f"{HEAVEN}{RIVER}", ", \N{GREEK SMALL LETTER ALPHA}"]
    assert not any(face.lacks(run) for run, face in runs)


def test_plain_text_is_drawn_as_pillow_draws_it():
    for bold in (False, True):
        text, font = "Place 0003, \N{GREEK SMALL LETTER ALPHA} gyj", load_font(own_face(bold), 13)
        sheet = Image.new("L", (text_width(text, 13, bold), line_height(13)))
        ImageDraw.Draw(sheet).text((0, 0), text, fill=255, font=font)
        np.testing.assert_array_equal(text_mask([text], sheet.width, 13, bold=bold), np.asarray(sheet, np.float32) / 255)


def test_a_letter_of_another_font_stands_on_the_same_line(install, tmp_path):
    install(make_font(tmp_path / "a.ttf", HEAVEN))
    ink = text_mask(["H" + HEAVEN, ""], 60, 20)
    rows = [np.flatnonzero((part > 0.5).any(axis=1)) for part in (ink[:, :14], ink[:, 17:])]
    assert rows[0][-1] == rows[1][-1] < line_height(20), "both end at the baseline"
    assert rows[1][0] >= 0 and len(rows[1]) == 16, "the made square is 0.8 of the size high, and not cut"


def test_characters_without_ink_need_no_font():
    assert visible(" a\n\t\N{NO-BREAK SPACE}\N{ZERO WIDTH JOINER}\N{VARIATION SELECTOR-16}b") == "ab"


def test_what_is_no_font_or_draws_boxes_for_everything_is_no_choice(install, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    install(tmp_path / "broken.ttf", tmp_path / "gone.ttf", make_font(tmp_path / "last.ttf", HEAVEN, "Last Resort High-Efficiency"))
    assert fonts.machine_faces() == [] and missing_characters(HEAVEN) == HEAVEN and face_for(HEAVEN) is own_face()


def chinese_run(lab, finished, tmp_path):
    run = lab.run(Path(shutil.copytree(finished.directory, tmp_path / "run")), f"render.places=['{HEAVEN}{RIVER}']", "render.mosaics=['paper']")
    run.manifest["place"] = run.manifest["place"].replace({"0001": f"{HEAVEN}{RIVER}"})
    return run


def test_render_says_which_characters_are_boxes_and_draws_them_when_there_is_a_font(lab, finished, install, tmp_path):
    run = chinese_run(lab, finished, tmp_path)
    said = (
        f"no font of this machine has {HEAVEN}{RIVER}: they appear as boxes in the pictures. Install one that has them, such as fonts-noto-cjk, and"
    )
    for computed in (2, 0):  # told of what the pictures say, not of what is drawn now
        outcome = render(run)
        assert outcome.computed == computed and [note for note in outcome.notes if note.startswith(said)]
    pictures = wanted_pictures(run, finished_checkpoints(run))
    assert stale_pictures(run, pictures) == []
    install(make_font(tmp_path / "a.ttf", HEAVEN))
    assert stale_pictures(run, pictures) == pictures, "half of it can be read now"
    install(make_font(tmp_path / "b.ttf", f"{HEAVEN}{RIVER}"))
    outcome = render(run)
    assert outcome.computed == 2 and not any("no font" in note for note in outcome.notes)
    assert png_settings(run.mosaics_path / pictures[0].path)["boxes"] == ""
    install()
    assert render(run).computed == 0, "what was drawn well stays, on a machine without the font"


def test_boxes_of_an_earlier_version_are_drawn_again(lab, finished, install, tmp_path, monkeypatch):
    run = chinese_run(lab, finished, tmp_path)
    render(run)
    pictures = wanted_pictures(run, finished_checkpoints(run))
    monkeypatch.setattr("pipeline.render.staleness.png_settings", lambda path: {k: v for k, v in png_settings(path).items() if k != "boxes"})
    assert stale_pictures(run, pictures) == []
    install(make_font(tmp_path / "b.ttf", f"{HEAVEN}{RIVER}"))
    assert stale_pictures(run, pictures) == pictures


def test_plain_pictures_note_nothing(finished):
    for path in finished.mosaics_path.rglob("*.png"):
        assert "boxes" not in png_settings(path)


@pytest.mark.parametrize("has_font", [True, False])
def test_plots_hold_any_script_and_warn_of_nothing(finished, install, tmp_path, has_font):
    """Outlines of a font that is there; where there is none, text, which the reader's browser has fonts for. A warning is an error here."""
    if has_font:
        install(make_font(tmp_path / "a.ttf", f"{HEAVEN}{RIVER}", "Made for plots"))
    stats = open_stats(finished)
    names = [f"{HEAVEN}{RIVER}{number}" for number in range(stats.sizes["checkpoint"])]
    named = stats.assign_coords(checkpoint=np.array(names, object), epoch=("checkpoint", np.full(len(names), np.nan)))
    plots = draw_plots(named)
    assert plots and all((f">{HEAVEN}{RIVER}0<" in plot.svg) != has_font for plot in plots if plot.title != "Which methods agree")
    assert draw_plots(stats)[0].svg == draw_plots(stats)[0].svg and "<text" not in draw_plots(stats)[0].svg


def test_the_page_is_written(lab, finished, install, tmp_path):
    run = chinese_run(lab, finished, tmp_path)
    render(run)
    report(run)
    assert f"{HEAVEN}{RIVER}" in run.report_path.read_text("utf-8")
