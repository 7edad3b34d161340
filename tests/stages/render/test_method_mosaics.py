"""Methods side by side, and one method block by block: what stands where, on which scale, and what is said of it."""

from dataclasses import replace

import numpy as np
import pytest
from caught_mosaic import Caught

import stages.render.method_mosaics as method_mosaics
from stages.render.method_mosaics import MethodRow, depth_mosaic, methods_mosaic
from stages.render.mosaics import MapStyle, SampleView
from stages.render.panels import DrawSettings, Panel, draw_panel, judge_panel, panel_scale

SMALL = DrawSettings(panel_px=96)
PHOTO = np.full((96, 96, 3), 128, np.uint8)
NORM, HIRES = MapStyle("l2_norm", "none", "statistic"), MapStyle("hires_cam", "match", "relu")


def heat(scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).random((8, 8))).astype(np.float32)


LOW, ZERO = 27.7 + heat(0.01), np.zeros((8, 8), np.float32)


def view(maps, reasons=None) -> SampleView:
    return SampleView(PHOTO, "drone", maps, reasons or {}, (1, 2, 4), None, (8, 8), 0)


@pytest.fixture
def caught(monkeypatch) -> Caught:
    spy = Caught()
    monkeypatch.setattr(method_mosaics, "draw_mosaic", spy)
    return spy


def test_methods_are_rows_and_positions_columns_and_what_does_not_exist_is_empty(caught):
    rows = [
        MethodRow(NORM, view({"patch": LOW, "block_1": heat(3)})),
        MethodRow(HIRES, view({"patch": heat(0.1, 1) - 0.02, "part": ZERO}, {"aligned": "no map: the image is void"})),
    ]
    methods_mosaic(rows, SMALL, "title", "match")
    assert caught.column_labels == ["photo", "patch\nbefore FAM", "aligned\nafter FAM", "part\nafter FPM", "block 2\n(block_1)"]
    assert caught.row_labels == ["l2_norm\n(class-free)", "hires_cam"]
    assert [[panel is not None for panel in row] for row in caught.rows] == [[True, True, False, False, True], [True, True, True, True, False]]
    texts = [[panel and judge_panel(panel, SMALL).text for panel in row] for row in caught.rows]
    assert texts[0][1].startswith("low contrast: CV") and texts[0][4] == ""
    assert texts[1][1:4] == ["", "no map: the image is void", "zero everywhere"]
    empty = caught.picture[caught.layout.tops[0] : caught.layout.tops[0] + 96, caught.layout.lefts[2] : caught.layout.lefts[2] + 96]
    assert (empty == 255).all(), "paper is left white where the method does not exist"
    np.testing.assert_array_equal(caught.cell(0, 4), draw_panel(Panel(PHOTO, heat(3), kind="statistic"), SMALL))
    assert caught.rows[1][3].boundary is not None and caught.rows[1][1].boundary is None


def test_each_method_has_its_own_scale_and_the_footer_says_how_rows_are_read(caught):
    rows = [MethodRow(NORM, view({"patch": heat(3)})), MethodRow(HIRES, view({"patch": heat(0.1, 1)}))]
    methods_mosaic(rows, SMALL, target="match")
    scales = [panel_scale(row[1], SMALL) for row in caught.rows]
    assert [scale.vmax for scale in scales] == [heat(3).max(), pytest.approx(heat(0.1, 1).max())] and caught.layout.bars == "panel"
    for words in ("target: match", "class-free rows: from minimum", "rows of the target: ReLU", "scale: image (each map its own)"):
        assert words in caught.footer
    methods_mosaic([replace(row, style=replace(row.style, kind="signed")) if row.style is HIRES else row for row in rows], SMALL)
    assert "rows of the target: signed, symmetric about 0" in caught.footer and "RdBu_r" in caught.footer


def test_what_the_relu_hides_is_written_below(caught):
    low = heat(0.1, 1) - 0.02
    methods_mosaic([MethodRow(HIRES, view({"patch": low, "aligned": heat()})), MethodRow(NORM, view({"patch": heat() - 0.5}))], SMALL)
    assert [panel.caption for panel in caught.rows[0]] == ["", "raw minimum -0.019", ""]
    assert caught.rows[1][1].caption == "", "a statistic's bar begins at its minimum"


def test_blocks_come_in_order_counted_from_one_and_the_patch_map_last(caught):
    maps = {"patch": heat(), "block_10": heat(9), "block_2": heat(2), "aligned": heat()}
    depth_mosaic([view(maps), view({"block_2": heat()}, {"block_10": "no map: lost"})], NORM, SMALL)
    assert caught.column_labels == ["photo", "block 3\n(block_2)", "block 11\n(block_10)", "patch, after\nLayerNorm"]
    assert [panel_scale(panel, SMALL).vmax for panel in caught.rows[0][1:]] == [heat(2).max(), heat(9).max(), heat().max()]
    assert [judge_panel(panel, SMALL).text for panel in caught.rows[1]] == ["", "", "no map: lost", "no map: not computed"]
    assert "l2_norm | target: none" in caught.footer


def test_a_strip_without_the_patch_map_ends_with_the_last_block(caught):
    depth_mosaic([view({"block_0": heat()})], HIRES, SMALL)
    assert caught.column_labels == ["photo", "block 1\n(block_0)"]


def test_a_map_that_cancels_says_how_small_it_is(caught):
    depth_mosaic([view({"block_0": heat(0.5), "block_1": heat(3e-7, 1), "patch": heat(0.1)})], HIRES, SMALL)
    words = [panel.caption for panel in caught.rows[0][1:]]
    assert words == ["", "6e-7 of the row's largest", ""]
    depth_mosaic([view({"block_0": ZERO, "patch": heat()})], HIRES, SMALL)
    assert caught.rows[0][1].caption == "", "what is zero says that already"


def test_a_depth_strip_needs_blocks():
    with pytest.raises(ValueError, match=r"depth: positions patch; expected maps at blocks\. Add block_<i> to cam\.positions\."):
        depth_mosaic([view({"patch": heat()})], HIRES, SMALL)
