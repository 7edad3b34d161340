"""Findings in words, plots and the page, from a small set of figures."""

import itertools

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from told_intervals import HALF, with_intervals

import stages.report.plots as plots
from stages.report.findings import findings
from stages.report.page import Mosaic, epoch_tables, report_page
from stages.report.plots import draw_plots

PRODUCTS = ["aligned/match/hires_cam", "aligned/none/l2_norm", "patch/none/l2_norm"]


def figures(change=0.0, masks=True) -> xr.Dataset:
    """Three checkpoints, two groups, three products."""
    by_group, by_product = ("checkpoint", "group"), ("checkpoint", "group", "product")
    found = xr.Dataset(
        {
            "fam_change": (by_group, np.array([[0, 0], [change, change], [change, 2 * change]])),
            "moved_cells": (by_group, np.array([[0, 0], [change, change], [change, change]])),
            "warp_mean": ((*by_group, "warp"), np.tile([1.0 + change, 1, 10 * change, 0, 0, 0], (3, 2, 1))),
            "warp_std": ((*by_group, "warp"), np.tile([0.001, 0.001, 0.5, 0.001, 0.001, 0.001], (3, 2, 1))),
            "count": (by_group, np.full((3, 2), 10)),
            "low_contrast": (by_product, np.tile([0.0, 0.9, 1.0], (3, 2, 1)) * np.array([1, 0, 1])[:, None, None]),
            "zero": (by_product, np.zeros((3, 2, 3))),
            "variation": (by_product, np.full((3, 2, 3), np.nan)),
            "entropy": (by_product, np.full((3, 2, 3), 0.5)),
            "top": (by_product, np.full((3, 2, 3), 0.25)),
            "boundary_count": ((*by_group, "part", "ring"), np.tile([[1, 3, 0, 0], [0, 0, 0, 4]], (3, 2, 1, 1))),
            "cut_as_constant": (by_group, np.full((3, 2), 0.85)),
            "boundary_changed_to_previous": (by_group, np.array([[np.nan, np.nan], [0.5, 0.5], [0.25, 0.25]])),
            "recall_1": (("checkpoint", "direction"), np.array([[0.05, 0.1], [0.6, 0.5], [0.55, 0.5]])),
            "pearson_to_last": (by_product, np.ones((3, 2, 3))),
        },
        coords={
            "checkpoint": ["net_init", "net_004", "net_009"],
            "epoch": ("checkpoint", [-1.0, 4.0, 9.0]),
            "group": ["test drone", "train drone"],
            "product": PRODUCTS,
            "direction": ["drone to satellite", "satellite to drone"],
            "warp": ["scale_x", "scale_y", "rotation_deg", "shear", "shift_x", "shift_y"],
        },
    )
    for name in ("recall_5", "recall_10", "recall_top1pct", "average_precision"):
        found[name] = found["recall_1"]
    if masks:
        found["pointing"] = (by_product, np.tile(np.array([0.2, 0.5, 0.8])[:, None, None], (1, 2, 3)))
        found["energy"] = found["pointing"] / 2
        found["mask_area"] = (by_product, np.full((3, 2, 3), 0.15))
    return with_intervals(found)


def test_an_alignment_that_moves_nothing_is_said_first():
    assert findings(figures())[0].startswith("FAM moves no cell in any checkpoint: before and after are the same tensor, bit for bit.")


def test_an_alignment_that_moves_is_described():
    found = findings(figures(0.2))
    assert found[0] == (
        "FAM moves 0% of the cells at untrained and 20% at epoch 9; at the end its rotation in degrees, mean and standard deviation over images, "
        "is +2.0 +- 0.5 (test drone), +2.0 +- 0.5 (train drone)."
    )
    assert "one fixed warp" in found[1]


def test_views_that_are_turned_apart_are_no_fixed_warp():
    stats = figures(0.2)
    stats["warp_mean"].loc[{"group": "train drone", "warp": "rotation_deg"}] = -30
    assert "one fixed warp" not in findings(stats)[1]


def test_a_bilinear_identity_is_the_same_tensor_but_for_rounding():
    assert "the same tensor, but for rounding" in findings(figures(1e-7))[0]


def test_shares_of_images_are_weighted_by_their_number():
    stats = figures()
    stats["boundary_changed_to_previous"][-1] = [0.01, 0.99]
    stats["count"] = (("checkpoint", "group"), np.tile([5135, 95], (3, 1)))
    assert "the boundaries of 3% of the images changed" in "\n".join(findings(stats))


def test_structure_that_blending_makes_is_named():
    """Norms vary more behind FAM than before it only where sampling blends; alike, nothing is said."""
    stats = figures(0.2)
    stats["variation"].loc[{"product": "patch/none/l2_norm"}] = 0.001
    stats["variation"].loc[{"product": "aligned/none/l2_norm"}] = 0.004
    assert "aligned/none/l2_norm varies 4.0 times as much as patch/none/l2_norm" in "\n".join(findings(stats))
    stats["variation"].loc[{"product": "aligned/none/l2_norm"}] = 0.001
    assert "times as much" not in "\n".join(findings(stats))


def test_a_partition_that_follows_the_rings_alone_is_said():
    stats = figures()
    assert "FPM is inert" not in "\n".join(findings(stats))
    stats["cut_as_constant"][-1] = [1, 0.9]
    assert "FPM is inert: it cuts 95% of the images of epoch 9 where it cuts a map whose cells are all alike." in "\n".join(findings(stats))


def test_maps_that_all_look_alike_are_named():
    stats = figures()
    stats["alike"] = stats["zero"] + np.array([0.3, 0.9996, 0.9])
    (sentence,) = [text for text in findings(stats) if text.startswith("All maps")]
    assert sentence.startswith("All maps look alike at epoch 9: aligned/none/l2_norm (1.000) (mean correlation")


def test_queries_and_gallery_images_that_cannot_be_ranked_are_told():
    stats = figures()
    at = ("checkpoint", "direction")
    stats["queries"], stats["queries_unmatched"] = (at, np.full((3, 2), 40.0)), (at, np.tile([3.0, 0], (3, 1)))
    stats["queries_not_finite"], stats["gallery_not_finite"] = (at, np.array([[0, 0], [0, 0], [2.0, 0]])), (at, np.array([[0, 0], [0, 0], [0, 1.0]]))
    text = "\n".join(findings(stats))
    assert "Queries drone to satellite without a gallery image of their place: 3 of 40. They count as misses." in text
    assert "epoch 9, drone to satellite: 2 queries with an embedding that is not finite, counted as misses; 0 gallery images left out" in text
    assert "epoch 9, satellite to drone: 0 queries with an embedding that is not finite, counted as misses; 1 gallery image left out" in text
    assert "queries satellite to drone have no gallery" not in text and "epoch 4, drone to satellite" not in text


def test_no_figure_is_never_nan_in_a_sentence():
    """Maps of `label` on test places, a network whose values are not finite: what is not defined is not said."""
    stats = figures(0.2)
    for name in ("pointing", "energy", "low_contrast", "fam_change", "moved_cells", "boundary_changed_to_previous"):
        stats[name] = stats[name] * np.nan
    stats["boundary_count"] = stats["boundary_count"] * 0
    text = "\n".join(findings(stats))
    assert "nan" not in text and "FAM's warp is not finite on any image" in text and "Recall@1" in text and "FPM cuts" not in text


def test_a_sentence_names_so_many_products_and_counts_the_rest():
    stats = figures()
    names = [f"aligned/class_{number}/hires_cam" for number in range(12)]
    stats = stats.isel(product=[0] * 12).assign_coords(product=names)
    status = ["ok", "low contrast", "zero", "clipped", "not finite", "absent", "constant"]
    stats["status_share"] = (("checkpoint", "group", "product", "status"), np.zeros((3, 2, 12, 7)))
    stats = stats.assign_coords(status=status)
    stats["status_share"].loc[{"status": "not finite"}] = 1.0
    (sentence,) = [text for text in findings(stats) if text.startswith("Maps that are not finite")]
    assert sentence.endswith("aligned/class_7/hires_cam on 100% of the images, and 4 more (see the table).")


@pytest.mark.parametrize(
    ("change", "said"), [(0.2, "FAM moves 20% of the cells at epoch 4 and 20% at epoch 4;"), (0, "any checkpoint whose warp is finite (1 of 3)")]
)
def test_what_is_said_of_the_alignment_is_said_of_warps_that_are_finite(change, said):
    stats = figures(change)
    for name in ("fam_change", "moved_cells", "warp_mean", "warp_std"):
        stats[name] = stats[name].where(stats["epoch"] == 4)
    text = findings(stats)[0]
    assert said in text and "nan" not in text


def several_series() -> xr.Dataset:
    """Two trainings whose epochs are the same, and a checkpoint without an epoch."""
    stats = xr.concat([figures(), figures()], "checkpoint").isel(checkpoint=[1, 2, 4, 5, 5])
    names = ["a-net_004", "a-net_009", "b-net_004", "b-net_009", "final"]
    epochs, series = [4, 9, 4, 9, np.nan], ["seed1", "seed1", "seed2", "seed2", "seed2"]
    return stats.assign_coords(checkpoint=names, epoch=("checkpoint", np.array(epochs, float)), series=("checkpoint", series))


def test_series_are_spoken_of_one_by_one_and_no_two_rows_are_called_alike():
    stats = several_series()
    text = findings(stats)
    assert [sentence.partition(": ")[0] for sentence in text if "Recall@1 drone" in sentence] == ["seed1", "seed2"]
    begin = "seed1: Recall@1 drone to satellite: 60.0% [55.0%, 65.0%] at epoch 4, 55.0% [50.0%, 60.0%] at epoch 9"
    assert any(sentence.startswith(begin) for sentence in text)
    rows = [row["checkpoint"] for row in epoch_tables(stats)["match"]]
    assert rows == ["epoch 4 (seed1)", "epoch 9 (seed1)", "epoch 4 (seed2)", "epoch 9 (seed2)", "final (seed2)"]


def test_no_line_goes_through_several_series(monkeypatch):
    """One line a series and figure; a series with an epoch twice has marks alone."""
    drawn = []
    monkeypatch.setattr(Axes, "plot", lambda axes, x, y, **style: drawn.append((list(x), style.get("linestyle"), style.get("label"))))
    stats = several_series().isel(checkpoint=slice(0, 4))
    draw_plots(stats)
    assert drawn and {tuple(x) for x, *_ in drawn} == {(4.0, 9.0)}
    assert sum(label == "Recall@1 drone to satellite" for *_, label in drawn) == 1, "one entry a figure in the legend"
    drawn.clear()
    draw_plots(stats.assign_coords(series=("checkpoint", ["one"] * 4)))
    assert {tuple(x) for x, *_ in drawn} == {(0.0, 1.0, 2.0, 3.0)} and {dash for _, dash, _ in drawn} == {"none"}


@pytest.mark.parametrize(
    ("recall", "spread", "said"),
    [
        (
            [0.3, 0.39, 0.4],
            0.0,
            "40.0% [35.0%, 45.0%] at epoch 9 (+10.0 points [+10.0, +10.0]); highest at epoch 9, higher than at each of the 2 others.",
        ),
        ([0.3, 0.4, 0.39], 5.0, "highest 40.0% [35.0%, 45.0%] at epoch 4, which cannot be told from untrained and epoch 9."),
        ([0.3, 0.4, 0.399], 0.1, "highest 40.0% [35.0%, 45.0%] at epoch 4, which cannot be told from epoch 9."),
    ],
)
def test_the_best_checkpoint_is_said_with_those_that_it_cannot_be_told_from(recall, spread, said):
    """Differences of 1 and 10 points and of a tenth of a point, against spreads of the difference of none, of 7 and of 0.14 points."""
    stats = figures()
    stats["recall_1"] = (("checkpoint", "direction"), np.repeat(np.array(recall)[:, None], 2, axis=1))
    text = findings(with_intervals(stats, spread))
    assert any(sentence.startswith("Recall@1 drone to satellite: ") and sentence.endswith(said) for sentence in text), text


def test_of_one_checkpoint_one_number_is_told():
    text = findings(figures().isel(checkpoint=[1]))
    assert "Recall@1 drone to satellite: 60.0% [55.0%, 65.0%] at epoch 4." in text


def test_of_one_place_there_is_no_interval_and_it_is_said():
    stats = figures()
    for name in ("retrieval_interval", "retrieval_draws", "map_interval", "map_of_views_interval", "image_interval", "image_of_views_interval"):
        stats[name] = stats[name] * np.nan
    text = "\n".join(findings(stats))
    assert "5.0% (too few places: no interval) at untrained, 55.0% (too few places: no interval) at epoch 9 (+50.0 points);" in text
    assert "on 20% (too few places: no interval) of the images" in text
    assert "nan" not in text and "cannot be told" not in text
    assert draw_plots(stats)


def test_every_line_of_a_plot_has_its_band(monkeypatch):
    """A band a series; bars where there is no course."""
    bands, bars = [], []
    monkeypatch.setattr(Axes, "fill_between", lambda axes, x, low, high, **style: bands.append((len(x), np.max(high - low))))
    monkeypatch.setattr(Axes, "vlines", lambda axes, x, low, high, **style: bars.append(len(x)))
    draw_plots(figures(0.2))
    assert len(bands) == 4 + 2 + 2 + 2 + 6 + 2, "retrieval, pointing, energy, moved, warp, drift"
    assert {count for count, _ in bands} == {3} and not bars
    assert min(width for _, width in bands) == pytest.approx(2 * HALF / 90), "of quarter turns; all others are wider"
    bands.clear()
    draw_plots(several_series().assign_coords(series=("checkpoint", ["one"] * 5)))
    assert bars and not bands


def test_every_kind_of_finding():
    text = "\n".join(findings(figures()))
    for sentence in (
        "Recall@1 drone to satellite: 5.0% [0.0%, 10.0%] at untrained, 55.0% [50.0%, 60.0%] at epoch 9 (+50.0 points [+50.0, +50.0]); "
        "highest 60.0% [55.0%, 65.0%] at epoch 4, higher than at each of the 2 others.",
        "aligned/match/hires_cam, test drone: the hottest point lies in the target on 20% [15%, 25%] of the images at untrained and "
        "80% [75%, 85%] at epoch 9; share of the heat in the target 10% and 40%; "
        "against the masks of other places the maps of epoch 9 have 40% and 20%.",
        "aligned/none/l2_norm has low contrast on most images in untrained, epoch 9",
        "FPM cuts most often at half-widths 2 (75%), 4 (100%) cells in epoch 9.",
        "the boundaries of 25% of the images changed",
    ):
        assert sentence in text
    assert "hires_cam has low contrast" not in text


def test_without_masks_nothing_is_said_of_them():
    assert not any("hottest point" in sentence for sentence in findings(figures(masks=False)))


@pytest.mark.parametrize(("of_test", "of_train", "is_told"), [(10, 30, False), (30, 10, True)])
def test_low_contrast_is_told_of_most_of_all_images_and_not_of_most_groups(of_test, of_train, is_told):
    """37.5 % and 72.5 % of the images; either way 55 % is the mean of the groups."""
    stats = figures()
    for group, count, share in (("test drone", of_test, 0.9), ("train drone", of_train, 0.2)):
        stats["count"].loc[{"group": group}] = count
        stats["low_contrast"].loc[{"group": group}] = share
    assert ("patch/none/l2_norm has low contrast on most images" in "\n".join(findings(stats))) == is_told


def test_low_contrast_everywhere_is_said_so():
    stats = figures()
    stats["low_contrast"][...] = 1
    assert "patch/none/l2_norm has low contrast on most images in every checkpoint" in "\n".join(findings(stats))


@pytest.mark.parametrize(("masks", "expected"), [(True, {"Pointing", "Energy"}), (False, set())])
def test_plots(masks, expected):
    plots = draw_plots(figures(0.2, masks))
    always = {"Retrieval", "Cells that FAM moves", "FAM's warp", "FPM's boundaries", "Drift to the last checkpoint"}
    assert {plot.title for plot in plots} == always | expected
    assert all(plot.svg.startswith("<svg") and plot.svg.rstrip().endswith("</svg>") for plot in plots)


def many_checkpoints(epochs=None):
    """Figures of fifteen checkpoints with long names, of two trainings."""
    stats = xr.concat([figures().isel(checkpoint=0)] * 15, "checkpoint", data_vars="minimal", coords="minimal", compat="override")
    names = [f"{number:02d}_weights_of_a_long_training_run" for number in range(15)]
    epoch = [np.nan] * 15 if epochs is None else epochs
    return stats.assign_coords(checkpoint=names, epoch=("checkpoint", epoch), series=("checkpoint", ["a", "b"] + ["b"] * 13))


def drawn_axes(monkeypatch, stats):
    """Axes of the line plots, laid out and drawn."""
    kept = []
    monkeypatch.setattr(plots, "_finish", lambda figure, axes, stats, finish=plots._finish: (finish(figure, axes, stats), kept.append(axes)))
    draw_plots(stats)
    assert kept
    return kept


def overlap(boxes):
    return any(left.overlaps(right) for left, right in itertools.pairwise(boxes))


def test_names_below_an_axis_do_not_run_into_each_other(monkeypatch):
    for axes in drawn_axes(monkeypatch, many_checkpoints()):
        labels = axes.get_xticklabels()
        assert 5 <= len(labels) <= 10 and all(len(label.get_text()) <= 26 for label in labels)
        assert all(label.get_rotation() == 40 and label.get_ha() == "right" for label in labels)
        assert all(label.get_text()[:2].isdigit() and label.get_text().endswith("run") for label in labels), "both ends are kept"
        ends = [label.get_window_extent().x1 for label in labels]
        assert min(np.diff(ends)) > labels[0].get_fontsize() and axes.get_window_extent().height > 100


def test_epochs_below_an_axis_stay_level(monkeypatch):
    for axes in drawn_axes(monkeypatch, many_checkpoints(np.arange(15.0) * 10)):
        labels = axes.get_xticklabels()
        assert [label.get_text() for label in labels] == [str(epoch) for epoch in range(0, 150, 20)]
        assert not overlap([label.get_window_extent() for label in labels]) and not any(label.get_rotation() for label in labels)


@pytest.mark.parametrize(
    ("ticks", "texts"),
    [([0, 0.5, 1], ["0%", "50%", "100%"]), ([0, 0.002, 0.004], ["0.0%", "0.2%", "0.4%"]), ([0, 0.025, 0.05], ["0.0%", "2.5%", "5.0%"])],
)
def test_percentages_have_the_decimals_that_tell_them_apart(monkeypatch, ticks, texts):
    axes = drawn_axes(monkeypatch, figures())[0]
    assert axes.yaxis.get_major_formatter().format_ticks(ticks) == texts


def test_plots_are_the_same_bytes_each_time():
    assert [plot.svg for plot in draw_plots(figures())] == [plot.svg for plot in draw_plots(figures())]


def test_the_page_holds_everything_and_needs_no_network():
    mosaics = [Mosaic("../mosaics/paper/a%20b.png", "paper", "Place <a> & b"), Mosaic("../mosaics/epochs/x.png", "epochs", "strip")]
    page = report_page("Run <1>", {"dataset": "x & y"}, figures(), mosaics)
    assert "Run &lt;1&gt;" in page
    assert "x &amp; y" in page
    assert "Place &lt;a&gt; &amp; b" in page
    assert page.index("By epoch") < page.index("Input, aligned image") and 'src="../mosaics/paper/a%20b.png"' in page
    assert "before and after are the same tensor" in page
    assert page.count("<svg") == len(draw_plots(figures()))
    linked = [part.split('"')[0] for part in page.split('src="')[1:] + page.split('<a href="')[1:]]
    assert all(link.startswith("../mosaics/") for link in linked)


def test_epoch_tables():
    tables = epoch_tables(figures())
    assert list(tables) == ["match"]
    rows = tables["match"]
    assert [row["checkpoint"] for row in rows] == ["untrained", "epoch 4", "epoch 9"]
    assert rows[-1] == {
        "checkpoint": "epoch 9",
        "R@1 drone to satellite": "55.0 %",
        "R@1 satellite to drone": "50.0 %",
        "pointing hires_cam": "80.0 %",
        "energy hires_cam": "40.0 %",
    }


def test_a_group_without_a_figure_has_no_weight():
    stats = figures()
    stats["low_contrast"].loc[{"product": "patch/none/l2_norm", "group": "train drone"}] = np.nan
    stats["low_contrast"].loc[{"product": "patch/none/l2_norm", "group": "test drone"}] = 0.9
    assert "patch/none/l2_norm has low contrast on most images in every checkpoint" in "\n".join(findings(stats))


def by_height() -> xr.Dataset:
    """`figures` with two heights of the drone's, and a satellite group."""
    one = figures().isel(group=[0])
    groups = {"test drone 150": 0.2, "test drone 300": 0.6, "test satellite": 0.9}
    parts = [one.assign(pointing=xr.full_like(one["pointing"], value)).assign_coords(group=[name]) for name, value in groups.items()]
    found = xr.concat(parts, dim="group", data_vars="minimal").transpose("checkpoint", "group", ...)
    for name in ("recall_1", "recall_5", "recall_10", "recall_top1pct", "average_precision"):
        found[name] = one[name]
        found[f"{name}_by_variant"] = xr.concat([one[name], one[name] / 2], dim="variant").assign_coords(variant=["150", "300"])
    return with_intervals(found)


def test_views_weigh_alike_though_the_drone_flew_at_two_heights():
    """(0.2 + 0.6) / 2 of the drone's, 0.9 of the satellite's."""
    assert epoch_tables(by_height())["match"][0]["pointing hires_cam"] == "65.0 %"
    assert len(draw_plots(by_height())) == len(draw_plots(figures()))


def test_retrieval_by_height_is_a_table_of_its_own():
    page = report_page("t", {}, by_height(), [])
    table = page[page.index("Retrieval by flight height of the drone images") :]
    table = table[: table.index("</table>")]
    assert "<th>checkpoint</th><th>variant</th><th>R@1 drone to satellite</th>" in table
    assert "<td>epoch 4</td><td>150</td><td>60.0 %</td>" in table
    assert "<td>epoch 4</td><td>300</td><td>30.0 %</td>" in table
    assert "Retrieval by flight height" not in report_page("t", {}, figures(), [])
