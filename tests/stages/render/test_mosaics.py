"""Mosaics: what is drawn on which scale, what is refused to be drawn and says so, and where everything stands."""

import re
from dataclasses import replace

import numpy as np
import pytest
from caught_mosaic import Caught

import stages.render.mosaics as mosaics
from stages.render.drawing import draw_boundaries, overlay, warp_photo
from stages.render.lettering import line_height, text_width
from stages.render.mosaics import EpochMap, EpochRow, MapStyle, SampleView, epochs_mosaic, list_positions, paper_mosaic, positions_mosaic
from stages.render.panels import DrawSettings, Panel, choose_bars, draw_mosaic, draw_panel, fit_size, judge_panel, panel_scale, plan_layout
from stages.render.scales import Scale, find_scale

SMALL = DrawSettings(panel_px=96)
GREY_PHOTO = np.full((96, 96, 3), 128, np.uint8)
RELU = MapStyle("grad_cam", "match", "relu")
THETA = np.array([[0.8, -0.2, 0.12], [0.18, 0.85, -0.1]], np.float32)


def heat(scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).random((16, 16))).astype(np.float32)


LOW = 27.7 + heat(0.01)
ZERO = np.zeros((16, 16), np.float32)
ABSENT = np.full((16, 16), np.nan, np.float32)


def epoch_row(label, *maps) -> EpochRow:
    return EpochRow(label, GREY_PHOTO, [EpochMap(one) for one in maps])


@pytest.fixture
def caught(monkeypatch) -> Caught:
    spy = Caught()
    monkeypatch.setattr(mosaics, "draw_mosaic", spy)
    return spy


def test_a_panel_is_relu_then_scale_then_overlay():
    raw = heat() - 0.5
    panel = Panel(GREY_PHOTO, raw)
    expected = overlay(GREY_PHOTO, np.maximum(raw, 0) / raw.max(), "inferno", 0.5)
    difference = np.abs(draw_panel(panel, SMALL).astype(int) - expected)
    assert difference.max() <= 1  # a value on the edge of two of the 256 colours may fall either way


@pytest.mark.parametrize(
    ("panel", "status", "text"),
    [
        (Panel(GREY_PHOTO), "photo", ""),
        (Panel(GREY_PHOTO, heat()), "ok", ""),
        (Panel(GREY_PHOTO, LOW, kind="statistic", rounding=0.01), "constant", r"constant, but for rounding: 27\.70 to 27\.71"),
        (Panel(GREY_PHOTO, ZERO), "zero", "zero everywhere"),
        (Panel(GREY_PHOTO, -heat()), "zero", r"zero everywhere after ReLU: raw -[0-9.]+ to -?[0-9.e-]+"),
        (Panel(GREY_PHOTO, ABSENT, reason="no map: target has no gradient"), "absent", "no map: target has no gradient"),
        (Panel(GREY_PHOTO, reason="no map: not extracted"), "absent", "no map: not extracted"),
        (Panel(GREY_PHOTO, np.where(heat() > 0.9, np.inf, heat())), "not finite", r"not finite: \d+ of 256 cells are infinite"),
        (Panel(GREY_PHOTO, reason="not finite: patch_map; set it"), "absent", "not finite: patch_map; set it"),
    ],
)
def test_what_is_not_drawn_says_so(panel, status, text):
    verdict = judge_panel(panel, SMALL)
    assert verdict.status == status and re.fullmatch(text, verdict.text)
    assert verdict.drawn == (status == "ok") and (panel_scale(panel, SMALL) is None) == (status != "ok")
    if text:
        picture = draw_panel(panel, SMALL)
        assert (np.ptp(picture, axis=2) == 0).all(), "no colour: a grey photo stays grey"
        assert picture.min() < 60 and picture[0, 0, 0] == 212, "faded, with dark words on it"


def test_the_photo_is_grey_under_a_signed_map_alone():
    """Else a red roof would read as a positive cell."""
    roof = np.full((96, 96, 3), (200, 60, 40), np.uint8)
    nearly_zero = np.full((16, 16), 1e-4, np.float32)
    nearly_zero[0, 0] = 1
    signed, relu = (draw_panel(Panel(roof, nearly_zero, kind=kind), SMALL)[90, 90].astype(int) for kind in ("signed", "relu"))
    assert np.ptp(signed) <= 1 and np.ptp(relu) > 60
    assert (draw_panel(Panel(roof), SMALL) == roof).all()


def test_a_map_of_low_contrast_is_drawn_from_minimum_to_maximum_and_says_so():
    panel = Panel(GREY_PHOTO, LOW, kind="statistic")
    verdict = judge_panel(panel, SMALL)
    assert verdict.drawn and verdict.status == "low contrast"
    assert re.fullmatch(r"low contrast: CV 1\.1e-4, 27\.70 to 27\.71", verdict.text)
    assert panel_scale(panel, SMALL) == Scale(float(LOW.min()), float(LOW.max()), "image")
    assert np.ptp(draw_panel(panel, SMALL), axis=2).max() > 50
    layout = plan_layout([[panel]], ["a"], ["b"], "", "", SMALL)
    assert " ".join(layout.captions[0][0]).startswith("low contrast: CV\N{NO-BREAK SPACE}1.1e-4,")


def test_a_setting_leaves_maps_of_low_contrast_grey():
    panel, grey = Panel(GREY_PHOTO, LOW, kind="statistic"), replace(SMALL, grey_low_contrast=True)
    assert not judge_panel(panel, grey).drawn and panel_scale(panel, grey) is None
    assert (np.ptp(draw_panel(panel, grey), axis=2) == 0).all()
    assert not judge_panel(replace(panel, scale=Scale(20, 30, "dataset")), grey).drawn, "a scale from elsewhere does not change that"


@pytest.mark.parametrize(("shape", "fitted"), [((96, 96), (96, 96)), ((200, 400), (48, 96)), ((40, 30), (96, 72))])
def test_photos_keep_their_aspect(shape, fitted):
    photo = np.zeros((*shape, 3), np.uint8)
    assert fit_size(photo, SMALL) == fitted
    assert draw_panel(Panel(photo, heat()), SMALL).shape == (*fitted, 3)


def test_bars_stand_where_the_fewest_say_it_all():
    own = [Panel(GREY_PHOTO, heat(k + 1, k)) for k in range(4)]
    shared = [replace(panel, scale=Scale(0, 9, "fixed")) for panel in own]
    other = [replace(panel, scale=Scale(0, 5, "fixed")) for panel in own]
    assert choose_bars([shared[:2], other[:2]], SMALL) == "row"
    assert choose_bars([[shared[0], other[0]], [shared[1], other[1]]], SMALL) == "column"
    assert choose_bars([own[:2], own[2:]], SMALL) == "panel"
    assert choose_bars([[Panel(GREY_PHOTO)]], SMALL) == "row"


@pytest.mark.parametrize("bars", ["row", "column", "panel"])
def test_the_size_is_the_sum_of_its_parts(bars):
    wide = np.full((48, 96, 3), 128, np.uint8)
    scale = Scale(0, 1, "fixed")
    rows = [[Panel(GREY_PHOTO), Panel(GREY_PHOTO, heat(), scale, caption="max 1")], [None, Panel(wide, heat(), scale)]]
    layout = plan_layout(rows, ["", ""], ["photo", "map"], "Title", "footer", SMALL, bars)
    gap, line, inline = 4, line_height(SMALL.caption_px), line_height(SMALL.caption_px) + 2
    under = inline if bars == "panel" else 0
    above = 2 * gap + line_height(SMALL.title_px) + gap + line_height(SMALL.text_px) + gap // 2
    below = gap + (inline if bars == "column" else 0) + line + 2 * gap
    assert layout.heights == (96, 48)
    assert layout.tops == (above, above + 96 + line + under + gap)
    assert layout.size[0] == layout.tops[1] + 48 + under + below
    across = 2 * gap + 2 * 96 + gap + 2 * gap
    assert layout.size[1] == across if bars != "row" else layout.size[1] > across
    picture = draw_mosaic(rows, ["", ""], ["photo", "map"], "Title", "footer", SMALL, bars)
    assert picture.shape == (*layout.size, 3) and picture.dtype == np.uint8
    assert (picture[:gap] == 255).all() and (picture[-gap:] == 255).all() and (picture[:, -gap:] == 255).all()
    hidden = draw_panel(rows[0][1], SMALL)
    np.testing.assert_array_equal(picture[above : above + 96, layout.lefts[1] : layout.lefts[1] + 96], hidden)


def test_long_labels_stay_in_their_place():
    label = "a very long label of the folder 0300-annex-building-with-a-name_image-01.jpeg"
    layout = plan_layout([[Panel(GREY_PHOTO)]], [label], [label], label, label, SMALL)
    assert layout.lefts[0] <= 2 * 4 + 96 + 4 and len(layout.row_labels[0]) <= 3 and len(layout.heads[0]) <= 2


def test_one_scale_over_the_row_of_epochs(caught):
    """The same raw value has the same colour under two checkpoints, whatever the rest of their maps."""
    early, late = np.full((16, 16), 0.5, np.float32), np.full((16, 16), 2, np.float32)
    late[:, :8] = 0.5
    epochs_mosaic([epoch_row("a", early, late, -late)], ["9", "19", "29"], RELU, SMALL)
    assert {panel.scale for panel in caught.rows[0][1:]} == {Scale(0, 2, "image-over-checkpoints")}
    assert caught.layout.bars == "row"
    np.testing.assert_array_equal(caught.cell(0, 1)[:, :40], caught.cell(0, 2)[:, :40])
    assert (caught.cell(0, 1)[:, 60:] != caught.cell(0, 2)[:, 60:]).any()
    assert [panel.caption for panel in caught.rows[0]] == ["", "max 0.50", "max 2.0", ""]


def test_rows_of_epochs_have_their_own_scales_and_undrawn_maps_no_say(caught):
    statistic = MapStyle("l2_norm", "none", "statistic")
    rows = [epoch_row("a", LOW, heat(3)), EpochRow("b", GREY_PHOTO, [EpochMap(None, "no map: lost"), EpochMap(heat(7))])]
    epochs_mosaic(rows, ["9", "19"], statistic, SMALL)
    first, second = caught.rows[0][2].scale, caught.rows[1][2].scale
    assert first == find_scale([heat(3)], "statistic", "image-over-checkpoints") and second.vmax == heat(7).max()
    assert [judge_panel(panel, SMALL).status for row in caught.rows for panel in row] == ["photo", "low contrast", "ok", "photo", "absent", "ok"]
    assert judge_panel(caught.rows[1][1], SMALL).text == "no map: lost"
    low = caught.rows[0][1]
    assert low.scale is None and panel_scale(low, SMALL).vmax == LOW.max(), "on a scale of its own: on the shared one it would be one colour"
    assert caught.layout.bars == "panel" and "scale: image (each map its own)" in caught.footer


def test_epochs_take_scales_from_beyond_the_row(caught):
    scales = [Scale(0, 1, "checkpoint"), Scale(0, 3, "checkpoint")]
    rows = [epoch_row(name, heat(), heat(3)) for name in "ab"]
    epochs_mosaic(rows, ["9", "19"], RELU, SMALL, scales=scales)
    assert caught.layout.bars == "column" and "scale: checkpoint" in caught.footer
    assert [panel.scale for panel in caught.rows[1][1:]] == scales


def test_a_row_without_any_map_has_no_bar(caught):
    epochs_mosaic([epoch_row("a", ZERO, None)], ["9", "19"], RELU, SMALL)
    assert "no map drawn" in caught.footer


def view(**changes) -> SampleView:
    made = SampleView(GREY_PHOTO, "drone", {"aligned": heat()}, {}, (1, 2, 4, 8), THETA, (16, 16), 137)
    return replace(made, **changes)


def test_positions_come_in_the_order_of_the_network(caught):
    maps = {name: heat(k + 1, k) for k, name in enumerate(["block_11", "part", "block_3", "patch"])}
    first, second = view(maps=maps), view(maps={"aligned": ABSENT}, reasons={"patch": "no map: not asked for"}, moved_cells=0)
    assert list_positions([first, second]) == ["patch", "aligned", "part", "block_3", "block_11"]
    positions_mosaic([first, second], RELU, SMALL)
    heads = ["patch\nbefore FAM", "aligned\nafter FAM", "part\nafter FPM", "block 4\n(block_3)", "block 12\n(block_11)"]
    assert caught.column_labels == ["photo", *heads]
    texts = [judge_panel(panel, SMALL).text for panel in caught.rows[1]]
    unsaid = "no map: not computed"
    assert texts == ["", "no map: not asked for", "no map: every cell is undefined", unsaid, unsaid, unsaid]
    assert [panel.boundary is not None for panel in caught.rows[0]] == [False, False, False, True, False, False]
    assert caught.rows[0][3].theta is THETA and caught.rows[1][3].theta is None, "where FAM moves no cell, the squares are the photo's own"
    assert "scale: image (each map its own)" in caught.footer and panel_scale(caught.rows[0][1], SMALL).scope == "image"


def test_positions_share_a_column_bar_on_given_scales(caught):
    scales = {"patch": Scale(0, 1, "dataset"), "aligned": Scale(0, 2, "dataset")}
    positions_mosaic([view(maps={"patch": heat(), "aligned": heat(k)}) for k in (1, 2)], RELU, SMALL, scales=scales)
    assert caught.layout.bars == "column" and [panel.scale for panel in caught.rows[1][1:]] == list(scales.values())


def test_the_figure_of_the_paper(caught):
    photo = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    paper_mosaic([view(photo=photo, moved_cells=0), view(photo=photo)], RELU, settings=SMALL)
    assert caught.row_labels == ["Input", "Aligned", "Partition", "Heat map"]
    assert [panel.caption for panel in caught.rows[1]] == ["identical to input: FAM moves no cell", "FAM moves 137 of 256 cells"]
    np.testing.assert_array_equal(caught.cell(1, 0), photo)
    np.testing.assert_array_equal(caught.cell(1, 1), warp_photo(photo, THETA))
    np.testing.assert_array_equal(caught.cell(2, 1), draw_boundaries(warp_photo(photo, THETA), (1, 2, 4, 8), (16, 16)))
    np.testing.assert_array_equal(caught.cell(3, 1), draw_panel(Panel(photo, heat()), SMALL))


def test_the_footer_names_what_the_colours_mean(caught):
    holes = heat() - 0.5
    holes[:2] = np.nan
    style = MapStyle("hires_cam", "label", "signed")
    paper_mosaic([view(maps={"part": holes})], style, "part", SMALL, scale=Scale(-1, 1, "fixed", signed=True))
    for words in ("hires_cam", "target: label", "position: part", "signed", "scale: fixed", "RdBu_r, alpha 0.5", "clear cells: no value"):
        assert words in caught.footer


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DrawSettings(colour_map="viridos"), "colour map 'viridos' is unknown to Matplotlib; did you mean 'viridis'"),
        (lambda: DrawSettings(panel_px=20), "panel_px = 20; expected at least 64"),
        (lambda: Panel(GREY_PHOTO, np.zeros((2, 16, 16))), r"panel heat: shape \(2, 16, 16\); expected one map"),
        (lambda: Panel(GREY_PHOTO, boundary=(1, 8)), "a boundary without a grid"),
        (lambda: Panel(GREY_PHOTO, heat(), Scale(-1, 1, "fixed", signed=True)), "a 'relu' map on a scale with signed = True"),
        (lambda: Panel(GREY_PHOTO, heat(), Scale(0.1, 1, "fixed")), "scale from 0.1; expected from 0: the minimum is never subtracted"),
        (lambda: draw_mosaic([[None]], ["a"], ["b", "c"], "", "", SMALL), r"row 0 \('a'\) has 1 panels; expected 2"),
        (lambda: draw_mosaic([[None]], [], ["b"], "", "", SMALL), "1 rows, 0 row labels, 1 column labels; expected"),
        (
            lambda: draw_mosaic([[Panel(GREY_PHOTO, heat()), Panel(GREY_PHOTO, heat(2))]], ["a"], ["b", "c"], "", "", SMALL, "row"),
            "one colour bar for panels on 2 scales. Give them one scale, or ask for bars = 'panel'",
        ),
        (lambda: epochs_mosaic([epoch_row("a", heat())], ["9", "19"], RELU), "'a': 1 maps for 2 checkpoints"),
        (lambda: epochs_mosaic([epoch_row("a", heat())], ["9"], RELU, scales=[Scale(0, 1, "fixed")] * 2), "scales: 2 for 1 checkpoints"),
        (lambda: epochs_mosaic([epoch_row("a", heat(), heat())], ["9", "9"], RELU), "two columns are headed '9'; expected heads that tell"),
        (
            lambda: positions_mosaic([view()], RELU, scales={"patch": Scale(0, 1, "fixed")}),
            "scales: none for position 'aligned', only for patch",
        ),
        (lambda: positions_mosaic([view(maps={"algned": heat()})], RELU), "position 'algned' is unknown; did you mean 'aligned'"),
        (lambda: paper_mosaic([view(theta=None, grid=None)], RELU), "'drone': no theta, grid; the paper's figure shows all three"),
    ],
)
def test_errors_say_what_was_found_and_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_words_in_a_panel_are_not_crossed_by_boundaries():
    """A map that is zero everywhere says so; the boundaries stand in the other panels of the row."""
    zero = np.zeros((4, 4), np.float32)
    bare = draw_panel(Panel(GREY_PHOTO, zero), SMALL)
    np.testing.assert_array_equal(draw_panel(Panel(GREY_PHOTO, zero, boundary=[1, 2]), SMALL), bare)


@pytest.mark.parametrize("panel_px", [64, 96])
def test_narrow_panels_and_pictures_keep_the_place_and_the_method(panel_px):
    """Of a rival of another place, and in the title."""
    note = "ranks first: satellite/0004/image-02 (0.123); true: drone/0003/image-01 (0.100), rank 2"
    title = "Place 0003, checkpoint net_119: hires_cam of best_share"
    settings = DrawSettings(panel_px=panel_px)
    rows = [[Panel(np.zeros((8, 8, 3), np.uint8), caption=note)]]
    layout = plan_layout(rows, ["drone"], ["photo"], title, "", settings)
    assert "".join(layout.captions[0][0]).replace(" ", "") == note.replace(" ", "")
    assert " ".join(layout.title) == title and all(text_width(line, settings.title_px, True) <= layout.size[1] for line in layout.title)
