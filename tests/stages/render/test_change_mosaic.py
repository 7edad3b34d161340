"""An epoch's change, split: one scale over the row, the terms in order, and a split that does not add up refused."""

from dataclasses import replace

import numpy as np
import pytest
from caught_mosaic import Caught

import stages.render.change_mosaic as change_mosaics
from stages.render.change_mosaic import ChangeRow, change_mosaic
from stages.render.mosaics import MapStyle
from stages.render.panels import DrawSettings, panel_scale

SMALL, STYLE = DrawSettings(panel_px=96), MapStyle("hires_cam", "class_0001", "relu")
PHOTO = np.full((96, 96, 3), 128, np.uint8)


def split_row(seed: int = 0, scale: float = 1.0) -> ChangeRow:
    """A change of M A with one channel, so that the three terms are what the paper of the split says."""
    m0, m1, a0, a1 = (scale * np.random.default_rng(seed).normal(size=(4, 8, 8))).astype(np.float32)
    return ChangeRow("a", PHOTO, m0 * a0, m1 * a1, m0 * (a1 - a0), (m1 - m0) * a0, (m1 - m0) * (a1 - a0))


@pytest.fixture
def caught(monkeypatch) -> Caught:
    spy = Caught()
    monkeypatch.setattr(change_mosaics, "draw_mosaic", spy)
    return spy


def test_one_zero_centred_scale_over_each_row(caught):
    rows = [split_row(), split_row(1, 3)]
    change_mosaic(rows, ("epoch 7", "epoch 35"), STYLE, SMALL, position="patch")
    assert caught.column_labels[1:] == ["before:\nepoch 7", "after:\nepoch 35", "change\n= after - before", "= features", "+ head", "+ interaction"]
    for row, panels in zip(rows, caught.rows, strict=True):
        (scale,) = {panel_scale(panel, SMALL) for panel in panels[1:]}
        assert scale.signed and scale.vmax == max(np.abs(heat).max() for heat in row.maps)
        shown = [panel.heat for panel in panels[1:]]
        np.testing.assert_allclose(shown[2], sum(shown[3:]), atol=1e-5)  # float32 differences
    assert caught.layout.bars == "row" and "scale: row (one for the maps of a row)" in caught.footer and "position: patch" in caught.footer


def test_equal_values_have_equal_colours_in_every_column(caught):
    half, none = np.full((8, 8), 0.5, np.float32), np.zeros((8, 8), np.float32)
    one = 2 * half
    change_mosaic([ChangeRow("a", PHOTO, half, one, half, none, none)], ("0", "1"), STYLE, SMALL)
    np.testing.assert_array_equal(caught.cell(0, 1), caught.cell(0, 3))
    np.testing.assert_array_equal(caught.cell(0, 3), caught.cell(0, 4))
    assert (caught.cell(0, 2) != caught.cell(0, 1)).any()
    assert [panel.caption for panel in caught.rows[0][1:]] == ["sum 32", "sum 64", "sum 32", "sum 32", "sum 0", "sum 0"]


def test_a_row_without_values_is_drawn_without_a_scale(caught):
    nothing = np.full((8, 8), np.nan, np.float32)
    change_mosaic([ChangeRow("a", PHOTO, *[nothing] * 5)], ("0", "1"), STYLE, SMALL)
    assert "no map drawn" in caught.footer


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: replace(split_row(), head=split_row(5).head), r"'a': features \+ head \+ interaction miss after - before by up to \S+; expected"),
        (lambda: replace(split_row(), after=np.zeros((4, 4))), r"'a': after is \(4, 4\), before is \(8, 8\); expected maps of one grid"),
        (lambda: replace(split_row(), features=np.zeros((8, 8), int)), "'a': features: dtype int64; expected a floating-point map"),
    ],
)
def test_errors_say_what_was_found_and_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
