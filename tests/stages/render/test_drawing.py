"""From a raw map to pixels: each formula against a slow twin or torch, and nothing undefined, zero or constant ever dressed up."""

import math

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.render.drawing import (
    bar_ticks,
    boundary_polygons,
    boundary_rectangles,
    colour_bar,
    draw_boundaries,
    inline_bar,
    inline_bar_lines,
    overlay,
    upsample,
    warp_photo,
)
from stages.render.lettering import ELLIPSIS, line_height, shorten, text_mask, text_width, wrap
from stages.render.scales import Scale, check_map, contrast, describe_map, find_scale, format_numbers, map_status, rectify

THETA = np.array([[0.83, -0.21, 0.11], [0.17, 0.9, -0.2]], np.float32)


def noise_photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def noise_map(height: int = 16, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)


def upsample_slowly(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Each pixel asks its four cells; NaN cells have no say, and a pixel whose own cell is NaN stays NaN."""
    (rows, columns), (height, width) = heat.shape, size
    large = np.full(size, np.nan)
    for i, j in np.ndindex(height, width):
        y, x = (i + 0.5) * rows / height, (j + 0.5) * columns / width
        if math.isnan(heat[int(y), int(x)]):
            continue
        total = weights = 0.0
        for row in (math.floor(y - 0.5), math.floor(y - 0.5) + 1):
            for column in (math.floor(x - 0.5), math.floor(x - 0.5) + 1):
                weight = (1 - abs(y - 0.5 - row)) * (1 - abs(x - 0.5 - column))
                value = heat[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)]
                if not math.isnan(value):
                    total, weights = total + weight * float(value), weights + weight
        large[i, j] = total / weights
    return large


@pytest.mark.parametrize("size", [(160, 160), (120, 200), (37, 53), (10, 9)])
def test_upsample_is_torch_bilinear_with_half_pixel_centres(size):
    heat = noise_map()
    expected = F.interpolate(torch.from_numpy(heat)[None, None], size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
    np.testing.assert_allclose(upsample(heat, size), expected, atol=2e-5)  # float32 positions up to 16 (2e-6), neighbours up to 6 apart


@pytest.mark.parametrize("size", [(48, 48), (40, 56)])
def test_upsample_leaves_nan_cells_out_and_empty(size):
    heat = noise_map(8, 8)
    heat[:2] = heat[5, 3:5] = heat[7, 7] = np.nan
    large = upsample(heat, size)
    np.testing.assert_allclose(large, upsample_slowly(heat, size), atol=2e-6)  # float32 weights, values up to 3
    assert np.isnan(large[: size[0] // 4]).all()
    assert np.nanmax(large) <= np.nanmax(heat) and np.nanmin(large) >= np.nanmin(heat) - 1e-6  # one rounding


def test_normalising_comes_before_upsampling():
    """A peak between pixels loses height when enlarged; scaled first, its colour stays short of the last one."""
    heat = np.zeros((16, 16), np.float32)
    heat[5, 5] = 4
    drawn = upsample(find_scale([heat], "relu", "image").normalise(heat), (100, 100))
    late = upsample(heat, (100, 100))
    assert drawn.max() < 0.99 and (late / late.max()).max() == 1
    np.testing.assert_allclose(drawn, late / 4, atol=1e-6)  # bilinear is linear: the maximum of the native map divides


def test_a_relu_map_is_divided_by_its_maximum_only():
    heat = np.array([[-3, 1], [2, 4]], np.float32)
    scale = find_scale([heat], "relu", "image")
    assert (scale.vmin, scale.vmax) == (0, 4)
    np.testing.assert_array_equal(scale.normalise(rectify(heat, "relu")), [[0, 0.25], [0.5, 1]])
    assert find_scale([heat + 10], "relu", "image").vmin == 0


def test_statistics_span_their_range_and_signed_maps_are_centred():
    heat = np.array([[-3, 1], [2, np.nan]], np.float32)
    assert find_scale([heat], "statistic", "dataset") == Scale(-3, 2, "dataset")
    assert find_scale([heat], "signed", "image") == Scale(-3, 3, "image", signed=True)
    np.testing.assert_array_equal(find_scale([heat * 0], "signed", "image").normalise(heat * 0), [[0.5, 0.5], [0.5, np.nan]])
    np.testing.assert_array_equal(find_scale([heat], "signed", "image").normalise(np.float32([[0, -9]])), [[0.5, 0]])


@pytest.mark.parametrize(
    ("kind", "percentiles", "ends"),
    [("statistic", (1, 99), (1, 99)), ("relu", (1, 99), (0, 99)), ("signed", (1, 98), (-98, 98)), ("statistic", (0, 100), (0, 100))],
)
def test_percentile_scales_leave_the_ends_of_a_skewed_map_out(kind, percentiles, ends):
    heat = np.arange(101.0).reshape(1, 101)
    scale = find_scale([heat], kind, "image", percentiles)
    assert (scale.vmin, scale.vmax) == pytest.approx(ends) and scale.scope == "percentile"
    assert scale.words.startswith(f"scale: percentile {percentiles[0]} to {percentiles[1]} (")


def test_percentiles_are_of_what_is_drawn():
    """After the ReLU two fifths of the cells are 0, and both ends coincide; of the raw map the upper end would be negative."""
    assert find_scale([np.array([[-4.0, -3.0, -2.0, 3.0]])], "relu", "image", (1, 40)).vmax == 3


def test_percentiles_that_coincide_give_way_to_the_whole_range():
    peak = np.zeros((20, 20))
    peak[3, 3] = 5
    assert [find_scale([peak], kind, "image", (1, 99)).vmax for kind in ("relu", "statistic", "signed")] == [5, 5, 5]


def test_one_scale_covers_several_maps_and_a_tiny_map_is_not_lifted():
    small, large = np.full((2, 2), 1e-7, np.float32), np.full((2, 2), 1, np.float32)
    scale = find_scale([small, large], "relu", "image-over-checkpoints")
    assert scale.normalise(small).max() == np.float32(1e-7)
    assert find_scale([small], "relu", "image").normalise(small).min() == 1, "no epsilon: a map is divided by its own maximum"


def test_arguments_are_left_alone():
    heat, photo = noise_map(), noise_photo(40, 40)
    before = heat.copy(), photo.copy()
    rectify(heat, "relu"), find_scale([heat], "relu", "image").normalise(heat), upsample(heat, (40, 40))
    overlay(photo, np.clip(heat, 0, 1)), draw_boundaries(photo, (2, 8), (16, 16), THETA), draw_boundaries(photo, (2, 8), (16, 16))
    np.testing.assert_array_equal(heat, before[0])
    np.testing.assert_array_equal(photo, before[1])


@pytest.mark.parametrize(
    ("heat", "kind", "status", "text"),
    [
        ([[27.71, 27.72], [27.72, 27.71]], "statistic", "low contrast", "low contrast: CV 1.8e-4, 27.71 to 27.72"),
        ([[27.5, 27.5]], "statistic", "constant", "constant: 27.5"),
        ([[1.0, 1.1]], "statistic", "ok", "1.0-1.1"),
        ([[-1.0, 1.0]], "statistic", "ok", "-1 to 1"),
        ([[5.0, 5.0]], "relu", "ok", "max 5.0"),
        ([[0.0, 0.0], [np.nan, 0.0]], "relu", "zero", "zero everywhere"),
        ([[-1.0, -2.0]], "relu", "zero", "zero everywhere after ReLU: raw -2 to -1"),
        ([[0.0, 0.0]], "statistic", "zero", "zero everywhere"),
        ([[np.nan, np.nan]], "relu", "absent", "no map: every cell is undefined"),
        ([[1e-7, 0.0]], "relu", "ok", "max 1.0e-7"),
        ([[np.inf, 0.0], [1.0, -np.inf]], "relu", "not finite", "not finite: 2 of 4 cells are infinite"),
        ([[np.inf, np.nan]], "statistic", "not finite", "not finite: 1 of 2 cells are infinite"),
    ],
)
def test_what_is_said_about_a_map(heat, kind, status, text):
    heat = np.array(heat)
    assert map_status(heat, kind) == status
    assert describe_map(heat, kind, status) == text


@pytest.mark.parametrize(("rounding", "status"), [(0.0, "low contrast"), (0.001, "low contrast"), (0.01, "constant"), (math.nan, "low contrast")])
def test_a_map_is_constant_only_within_its_rounding(rounding, status):
    heat = np.array([[27.71, 27.72], [27.72, 27.73]])
    assert map_status(heat, "statistic", rounding=rounding) == status
    assert map_status(heat, "relu", rounding=rounding) == "ok", "drawn from 0, so that nothing is stretched"
    assert describe_map(heat, "statistic", "constant") == "constant, but for rounding: 27.71 to 27.73"


def test_contrast_is_the_coefficient_of_variation():
    heat = noise_map() + 5
    values = [float(value) for value in heat.ravel()]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    assert contrast(heat) == pytest.approx(deviation / mean, rel=1e-9)
    assert contrast(-heat) == contrast(heat)
    assert contrast(np.array([[1.0, -1.0]])) == math.inf and math.isnan(contrast(np.array([[np.nan]])))


def test_a_missing_map_gives_its_reason():
    assert map_status(None, "relu") == "absent"
    assert describe_map(None, "relu", "absent", "no map: block 3 was not extracted") == "no map: block 3 was not extracted"


@pytest.mark.parametrize("alpha", [0, 0.3, 0.5, 1])
def test_overlay_is_a_fixed_mixture_rounded(alpha):
    photo, heat = noise_photo(16, 16), np.clip(noise_map(), 0, 1)
    picture = overlay(photo, heat, "viridis", alpha)
    for i, j in np.ndindex(16, 16):
        colour = np.array(matplotlib.colormaps["viridis"](float(heat[i, j]))[:3]) * 255
        np.testing.assert_array_equal(picture[i, j], np.rint((1 - alpha) * photo[i, j] + alpha * colour))


def test_overlay_leaves_undefined_cells_clear():
    photo, heat = noise_photo(64, 64), np.full((16, 16), 0.5)
    heat[3, 4:6] = np.nan
    picture = overlay(photo, heat)
    np.testing.assert_array_equal(picture[12:16, 16:24], photo[12:16, 16:24])
    assert (picture[16, 16:24] != photo[16, 16:24]).any()
    np.testing.assert_array_equal(overlay(photo, np.full((4, 4), np.nan)), photo)


@pytest.mark.parametrize(
    ("grid", "size", "boundary", "expected"),
    [
        ((16, 16), (160, 160), (1, 2, 4, 8), [(70, 70, 90, 90), (60, 60, 100, 100), (40, 40, 120, 120), (0, 0, 160, 160)]),
        ((16, 16), (80, 160), (1, 8), [(35, 70, 45, 90), (0, 0, 80, 160)]),
        ((15, 15), (150, 300), (3, 7), [(40, 80, 100, 200), (0, 0, 140, 280)]),
    ],
)
def test_boundaries_are_centred_squares_of_cells(grid, size, boundary, expected):
    """b <-> half-width b W / 2R and half-height b H / 2R; on an odd grid the centre is cell floor(h / 2) and the last row is outside."""
    np.testing.assert_array_equal(boundary_rectangles(boundary, grid, size), expected)


@pytest.mark.parametrize("ground", [0, 255, 128])
def test_boundary_strokes_stand_on_their_edges(ground):
    photo = np.full((80, 160, 3), ground, np.uint8)
    picture = draw_boundaries(photo, (4, 8), (16, 16))
    middle = picture[40, :, 0].tolist()  # the frame just inside; the square's edges at 40 and 120, the light line inside them
    assert middle[:4] == [0, 255, 0, ground]
    assert middle[38:43] == [ground, 0, 255, 0, ground] and middle[117:122] == [ground, 0, 255, 0, ground]
    assert picture[:4, 80, 0].tolist() == [0, 255, 0, ground]
    assert picture[18:23, 80, 0].tolist() == [ground, 0, 255, 0, ground]


def test_boundary_strokes_grow_with_the_photo():
    wide = draw_boundaries(np.full((640, 640, 3), 128, np.uint8), (8,), (16, 16))
    assert (wide[320, :10, 0] == [0, 0, 255, 255, 255, 255, 0, 0, 128, 128]).all()


def test_squares_carried_to_the_photo_hold_the_cells_that_the_network_read():
    """Aligned cells inside a square come from inside its polygon, the others from outside: torch's own affine_grid decides."""
    from matplotlib.path import Path as Outline

    grid, size = (16, 16), (320, 480)
    source = F.affine_grid(torch.from_numpy(THETA)[None], (1, 1, *grid), align_corners=True)[0].numpy()
    pixels = ((source + 1) / 2 * 15 + 0.5) * [size[1] / 16, size[0] / 16]
    inside = Outline(boundary_polygons((4,), grid, size, THETA)[0]).contains_points(pixels.reshape(-1, 2)).reshape(grid)
    expected = np.zeros(grid, bool)
    expected[4:12, 4:12] = True
    np.testing.assert_array_equal(inside, expected)


def test_the_identity_carries_squares_onto_themselves():
    corners = boundary_polygons((1, 8), (16, 16), (80, 160), np.eye(2, 3))
    np.testing.assert_allclose(corners[0], [(70, 35), (90, 35), (90, 45), (70, 45)], atol=1e-9)
    np.testing.assert_allclose(corners[1], [(0, 0), (160, 0), (160, 80), (0, 80)], atol=1e-9)
    smooth = draw_boundaries(np.full((160, 160, 3), 128, np.uint8), (2, 8), (16, 16), np.eye(2, 3))
    assert smooth[80, 1, 0] > 200 and (smooth[80, 58:63, 0] > 150).any(), "the frame is drawn just inside"


@pytest.mark.parametrize("size", [(97, 131), (64, 64)])
@pytest.mark.parametrize("theta", [THETA, np.eye(2, 3, dtype=np.float32), np.float32([[1.6, 0, 0.9], [0, -1, 0]])])
def test_warp_is_torch_grid_sample(size, theta):
    photo = noise_photo(*size)
    grid = F.affine_grid(torch.from_numpy(theta)[None], (1, 3, *size), align_corners=True)
    batch = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
    expected = F.grid_sample(batch, grid, mode="bilinear", padding_mode="border", align_corners=True)[0].permute(1, 2, 0).numpy()
    assert np.abs(warp_photo(photo, theta) - expected).max() < 0.51  # half a level of rounding, and float32 positions


def test_warp_by_the_identity_changes_nothing():
    photo = noise_photo(33, 50)
    np.testing.assert_array_equal(warp_photo(photo, np.eye(2, 3)), photo)


def test_colour_bars_run_from_vmin_to_vmax_and_write_both():
    scale = Scale(0, 0.42, "image")
    bar = colour_bar(scale, "viridis", 160)
    assert bar.shape[0] == 160 and bar.dtype == np.uint8
    top, bottom = (np.rint(np.array(matplotlib.colormaps["viridis"](end)[:3]) * 255) for end in (0.995, 0.005))
    assert np.abs(bar[1, 4] - top).max() <= 3 and np.abs(bar[-2, 4] - bottom).max() <= 3  # one step inside the outline
    assert bar_ticks(scale, 4)[0] == 0 and bar_ticks(scale, 4)[-1] == 0.42 and len(bar_ticks(scale, 4)) > 2
    assert bar_ticks(Scale(2, 2, "image"), 4) == [2, 2]
    lying = inline_bar(scale, "viridis", 160)
    assert lying.shape == (line_height(11), 160, 3)
    assert (lying[:, :8] < 128).any() and (lying[:, -8:] < 128).any(), "both numbers are written, near the ends"


@pytest.mark.parametrize(("ends", "width", "lines"), [((0, 0.42), 160, 1), ((9.3614, 9.4102), 80, 2), ((-1.234e-5, 1.234e-5), 64, 3)])
def test_numbers_of_a_lying_bar_are_never_cut_and_keep_clear_of_their_neighbours(ends, width, lines):
    """Two bars side by side, as under narrow panels: there is white between the numbers of the one and of the other."""
    scale = Scale(*ends, "image", signed=ends[0] < 0)
    assert inline_bar_lines(scale, width, 10) == lines
    bar = inline_bar(scale, "viridis", width, 10)
    assert bar.shape == (lines * line_height(10), width, 3)
    assert (bar[:, :3] == 255).all() and (bar[:, -3:] == 255).all()
    ink = text_mask([format_numbers(ends)[1]], width, 10).sum() + text_mask([format_numbers(ends)[0]], width, 10).sum()
    below = bar[line_height(10) :] if lines > 1 else None
    if below is not None:
        assert (1 - below.mean(axis=2) / 255).sum() == pytest.approx(ink, rel=0.05), "both numbers, whole"


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 0.42], ["0", "0.42"]),
        ([0, 0.2, 0.41], ["0", "0.20", "0.41"]),
        ([27.7128, 27.7131], ["27.7128", "27.7131"]),
        ([27.5, 27.5], ["27.5", "27.5"]),
        ([-1e-9, 1], ["0", "1"]),
        ([0, 3.21e-7], ["0", "3.2e-7"]),
        ([1e6, 1e6 + 1], ["1.000000e6", "1.000001e6"]),
        ([0, 0], ["0", "0"]),
        ([14262.3], ["14262"]),
        ([3.04], ["3.0"]),
    ],
)
def test_numbers_tell_their_range_apart(values, texts):
    assert format_numbers(values) == texts


def test_labels_are_shortened_in_the_middle_and_never_cut():
    label = "drone_0300_annex_building_image-01.jpeg"
    for width in (30, 60, 100, 200, 400):
        short = shorten(label, width, 12)
        assert text_width(short, 12) <= width
        assert short == label or (ELLIPSIS in short and short[0] == "d" and (width < 60 or short.endswith("g")))
    assert shorten(label, 400, 12) == label


def test_lines_break_at_spaces_and_the_last_takes_the_rest():
    lines = wrap("identical to input: FAM moves no cell", 160, 11, 2)
    assert " ".join(lines) == "identical to input: FAM moves no cell" and len(lines) == 2
    assert wrap("one\ntwo", 100, 11, 3) == ["one", "two"] and wrap("", 100, 11, 3) == []
    cut = wrap("word " * 40, 100, 11, 2)
    assert len(cut) == 2 and ELLIPSIS in cut[1] and all(text_width(line, 11) <= 100 for line in cut)


def test_ink_stays_inside_its_lines():
    mask = text_mask(["Ägypq|"], 80, 14, "centre")
    assert mask.shape == (line_height(14), 80) and mask.max() == 1
    assert not mask[:, 0].any() and not mask[:, -1].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: overlay(noise_photo(8, 8), np.zeros((2, 2)), "infreno"), "colour map 'infreno' is unknown to Matplotlib; did you mean 'inferno'"),
        (lambda: overlay(noise_photo(8, 8), np.zeros((3, 2, 2))), r"heat: shape \(3, 2, 2\); expected one map \[h, w\]"),
        (lambda: overlay(noise_photo(8, 8), np.full((2, 2), 1.5)), r"heat runs from 1.5 to 1.5; expected 0..1. Apply Scale.normalise"),
        (lambda: overlay(noise_photo(8, 8), np.zeros((2, 2)), alpha=1.2), "alpha = 1.2; expected a number from 0"),
        (lambda: overlay(np.zeros((8, 8, 3)), np.zeros((2, 2))), "photo: shape .* dtype float64; expected an RGB photo"),
        (lambda: upsample(np.array([[np.inf, 1.0]]), (4, 4)), "1 infinite cells; expected finite"),
        (lambda: check_map(np.zeros((2, 2), np.int64)), "dtype int64; expected a floating-point map"),
        (lambda: find_scale([np.full((2, 2), np.nan)], "relu", "image"), "none of the 1 maps has a finite cell"),
        (lambda: Scale(1, 0, "image"), "vmin = 1, vmax = 0; expected two finite numbers"),
        (lambda: Scale(-1, 2, "image", signed=True), "vmin = -1 is not -vmax = -2"),
        (lambda: Scale(0, 1, "epoch"), "scope = 'epoch'; expected one of image, percentile"),
        (lambda: boundary_rectangles((2, 9), (16, 16), (8, 8)), "expected .* whole half-widths from 1 to 8 on a grid of 16 x 16"),
        (lambda: boundary_rectangles((1.5,), (16, 16), (8, 8)), "expected .* whole half-widths"),
        (lambda: warp_photo(noise_photo(8, 8), np.eye(3)), r"theta: shape \(3, 3\); expected \[2, 3\]"),
    ],
)
def test_errors_say_what_was_found_and_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
