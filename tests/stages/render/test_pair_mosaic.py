"""A pair from both sides: marked cells, who asks and who answers, scales, and what is said."""

from dataclasses import replace

import numpy as np
import pytest
from caught_mosaic import Caught

import stages.render.pair_mosaic as pair_mosaics
from stages.render.marks import LIME, CellMark, draw_marks
from stages.render.pair_mosaic import PairSide, pair_mosaic
from stages.render.panels import DrawSettings, Panel, judge_panel, panel_scale

SMALL = DrawSettings(panel_px=96)
DARK, BRIGHT = np.full((96, 96, 3), 40, np.uint8), np.full((96, 96, 3), 220, np.uint8)


def heat(scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).random((8, 8))).astype(np.float32)


FIRST = PairSide(DARK, "satellite 1", heat(0.1) - 0.02, [(1, 1), (6, 6)], [heat(1, 1), heat(2, 2)])
SECOND = PairSide(BRIGHT, "drone 2", heat(0.3, 3), [(4, 2)], [heat(1, 4) - 0.5])


@pytest.fixture
def caught(monkeypatch) -> Caught:
    spy = Caught()
    monkeypatch.setattr(pair_mosaics, "draw_mosaic", spy)
    return spy


@pytest.mark.parametrize("ground", [0, 120, 255])
def test_a_box_lies_around_its_cell_and_is_seen_on_any_ground(ground):
    photo = np.full((80, 80, 3), ground, np.uint8)
    picture = draw_marks(photo, [CellMark(2, 3)], (8, 8))
    np.testing.assert_array_equal(picture[21:29, 31:39], photo[21:29, 31:39], "the cell is 10 px; what is in it can be seen")
    assert (picture[19, 35] == LIME).all() and (picture[25, 40] == LIME).all()
    assert (picture[18, 35] == 0).all() and (picture[20, 35] == 0).all(), "black on both sides"
    changed = (picture != photo).any(axis=2)
    assert not changed[:17].any() and not changed[:, :27].any() and not changed[33:].any() and not changed[:, 43:].any()
    assert (photo == ground).all()


@pytest.mark.parametrize("cell", [(0, 0), (0, 7), (7, 0), (7, 7)])
def test_marks_and_numbers_in_corners_stay_in_the_photo(cell):
    picture = draw_marks(DARK, [CellMark(*cell, "4")], (8, 8))
    assert picture.shape == DARK.shape and (picture == 255).all(axis=2).any(), "the number's white ink"
    assert (picture == np.array(LIME)).all(axis=2).any()


def test_a_box_on_a_photo_that_is_not_square_follows_its_cells():
    picture = draw_marks(np.full((40, 80, 3), 120, np.uint8), [CellMark(1, 1, colour=(255, 255, 255))], (4, 4))
    white = np.argwhere((picture == 255).all(axis=2))
    assert white.min(axis=0).tolist() == [9, 19] and white.max(axis=0).tolist() == [20, 40]


def test_each_side_asks_and_the_other_answers(caught):
    pair_mosaic(FIRST, SECOND, settings=SMALL, cosine=0.5)
    assert caught.column_labels == [
        "satellite 1:\nasked cells", "drone 2:\nwhat is like them", "drone 2:\nasked cells", "satellite 1:\nwhat is like them",
    ]  # fmt: skip
    assert caught.row_labels == ["what makes\nthe pair alike", "cell 1\nof each", "cell 2\nof each"]
    photos = [[panel and int(panel.photo[0, 0, 0]) for panel in row] for row in caught.rows]
    assert photos == [[40, 220, 220, 40], [40, 220, 220, 40], [40, 220, None, None]], "the second image asks about one cell only"
    assert [(mark.y, mark.x, mark.text) for mark in caught.rows[0][0].marks] == [(1, 1, "1"), (6, 6, "2")]
    assert [(mark.y, mark.x, mark.text) for mark in caught.rows[2][0].marks] == [(6, 6, "2")]
    assert caught.rows[1][1].heat is FIRST.answers[0] and caught.rows[1][3].heat is SECOND.answers[0]
    (best,) = caught.rows[1][1].marks
    assert FIRST.answers[0][best.y, best.x] == FIRST.answers[0].max() and best.colour == (255, 255, 255)


def test_maps_of_the_cosine_share_a_scale_and_answers_have_their_own(caught):
    pair_mosaic(FIRST, SECOND, settings=SMALL)
    scales = {panel_scale(panel, SMALL) for panel in caught.rows[0]} - {None}
    assert len(scales) == 1 and scales.pop().vmax == SECOND.heat.max()
    assert [panel_scale(caught.rows[1][column], SMALL).vmin for column in (1, 3)] == [FIRST.answers[0].min(), SECOND.answers[0].min()]
    assert caught.layout.bars == "panel" and "constants" not in caught.footer
    pair_mosaic(FIRST, SECOND, "signed", SMALL)
    assert panel_scale(caught.rows[0][0], SMALL).signed and "signed, symmetric about 0" in caught.footer


def test_sums_and_cosine_are_told(caught):
    pair_mosaic(replace(FIRST, heat=np.full((8, 8), 1 / 64, np.float32)), SECOND, settings=SMALL, cosine=0.617)
    assert caught.rows[0][0].caption == "cells add up to 1.0"
    assert "the cosine is 0.62, and what the cells do not add up to is the heads' constants" in caught.footer


def test_constant_answers_and_holes_say_so(caught):
    constant, hole = np.full((8, 8), 0.97, np.float32), heat(1, 5)
    hole[3:] = np.nan
    pair_mosaic(replace(FIRST, answers=[constant, np.full((8, 8), np.nan)]), replace(SECOND, answers=[hole]), settings=SMALL)
    assert judge_panel(caught.rows[1][1], SMALL).text.startswith("constant: 0.97") and caught.rows[2][1].marks == []
    assert judge_panel(caught.rows[2][1], SMALL).text == "no map: every cell is undefined" and "clear cells: no value" in caught.footer


def test_a_pair_of_undefined_maps_is_drawn_without_a_scale(caught):
    nothing = np.full((8, 8), np.nan, np.float32)
    pair_mosaic(*(replace(side, heat=nothing, cells=[], answers=[]) for side in (FIRST, SECOND)), settings=SMALL)
    assert len(caught.rows) == 1 and "no map drawn" in caught.footer


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_marks(DARK, [CellMark(8, 0)], (8, 8)), r"mark: cell \(8, 0\); expected one of the grid of 8 x 8 cells"),
        (lambda: Panel(DARK, marks=[CellMark(0, 0)]), "panel: marks without a grid or a heat map has no unit"),
        (lambda: replace(FIRST, answers=[heat()]), "'satellite 1': 2 cells and 1 answers; expected one answer per cell"),
        (lambda: replace(FIRST, heat=np.zeros(64)), r"'satellite 1': heat: shape \(64,\); expected one map"),
    ],
)
def test_errors_say_what_was_found_and_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
