"""The intervals of figures: which figures have one, over which images, and how views are averaged."""

import numpy as np
import pytest

from safenet.architecture import PRESETS
from stages.stats.bootstrap import PlaceBootstrap
from stages.stats.figures import DRIFT_FIGURES, IMAGE_FIGURES, MAP_FIGURES, columns_of, mean_columns
from stages.stats.groups import Groups
from stages.stats.images import sizes_of
from stages.stats.intervals import Intervals

SIZES = sizes_of(PRESETS["tiny"])


def test_every_figure_whose_mean_is_told_has_one():
    assert list(mean_columns(DRIFT_FIGURES, {})) == list(DRIFT_FIGURES)
    of_maps, columns = mean_columns(MAP_FIGURES, SIZES), columns_of(MAP_FIGURES, SIZES)
    assert set(columns) - set(of_maps) == {"low", "high", "status"}, "quantiles and counts"
    assert all(columns[number] == name for name, number in of_maps.items())
    assert "ring_share_1" in of_maps and "warp_rotation_deg" in mean_columns(IMAGE_FIGURES, SIZES)
    assert not any(name.startswith("boundary") for name in mean_columns(IMAGE_FIGURES, SIZES))


def test_groups_and_the_mean_of_the_views_of_test():
    """By hand: the draws of each group's mean, and of the mean of the groups' means."""
    rng = np.random.default_rng(0)
    place = [f"{number % 12}" for number in range(60)]
    view, split = ["drone"] * 36 + ["satellite"] * 24, (["test"] * 48 + ["train"] * 12)
    groups, bootstrap = Groups.of(split, view, [True] * 59 + [False]), PlaceBootstrap.of(place, split)
    values = rng.standard_normal((60, 3))
    values[:20, 1], values[:, 2] = np.nan, np.nan
    certain, columns = Intervals(groups, bootstrap), {"a": 0, "c": 2, "b": 1}
    both = certain.of([certain.sums(values, columns), certain.sums(values + 1, columns)])
    for name, of_one in both.items():
        shift = 0 if name == "known" else 1
        np.testing.assert_allclose(
            of_one.take(1, axis=int(name in ("known", "interval"))), of_one.take(0, axis=int(name in ("known", "interval"))) + shift
        )
    found = {name: value.take(0, axis=int(name in ("known", "interval"))) for name, value in both.items()}
    assert found["known"].tolist() == [[36, 0, 16], [12, 0, 12], [11, 0, 11]]
    assert groups.name == ("test drone", "test satellite", "train satellite") and groups.index[-1] == -1
    drone, satellite = (np.flatnonzero(groups.index == number) for number in (0, 1))
    for column, number in (("a", 0), ("b", 2)):
        own = values[:, 0 if column == "a" else 1 : 1 if column == "a" else 2]
        draws = [bootstrap.means(bootstrap.sums(own[images], images)) for images in (drone, satellite)]
        np.testing.assert_allclose(found["interval"][0, number], bootstrap.interval(draws[0], drone)[0])
        np.testing.assert_allclose(found["of_views"][number], (np.nanmean(own[drone]) + np.nanmean(own[satellite])) / 2)
        together = bootstrap.interval((draws[0] + draws[1]) / 2, np.concatenate([drone, satellite]))
        np.testing.assert_allclose(found["of_views_interval"][number], together[0])
    assert np.isnan(found["interval"][:, 1]).all() and np.isnan(found["of_views_interval"][1]).all()


@pytest.mark.parametrize("name", ["map_interval", "map_of_views_interval", "image_interval", "drift_interval_to_last", "retrieval_interval"])
def test_the_means_of_a_run_lie_in_their_intervals(finished, name):
    """Of the run that all tests share; a bound is NaN where the mean is, or where one place alone has the figure."""
    from pipeline.stats.staleness import open_stats

    stats = open_stats(finished)
    assert not [other for other in stats if "_to_" in str(other) and stats[other].dtype.kind != "f"], "a suffix is no part of a coordinate"
    low, high = (stats[name].sel(bound=bound).values for bound in ("low", "high"))
    if name == "map_interval":
        for figure, mean in {"entropy": stats["entropy"], "top": stats["top"], "ring_share_1": stats["ring_share"].isel(ring=0)}.items():
            bounds = stats[name].sel(map_figure=figure).transpose(*mean.dims, "bound").values
            known = np.isfinite(bounds).all(axis=-1)
            assert known.any() and ((bounds[..., 0] - 1e-6 <= mean.values) & (mean.values <= bounds[..., 1] + 1e-6))[known].all()
    assert np.isfinite(low).any() and (np.isnan(low) | (low <= high)).all()
    if name == "retrieval_interval":
        recall = stats["recall_1"].values
        assert ((low[..., 0] <= recall) & (recall <= high[..., 0])).all()
        draws = stats["retrieval_draws"].sel(retrieval="recall_1").mean("draw").values
        np.testing.assert_allclose(draws, recall, atol=0.03)


def test_a_draw_without_a_view_is_not_that_of_the_other_view_alone():
    """Drone photos of ten places, and satellite photos of one, whose figure is another: the interval lies about the mean, or there is none."""
    place, view = [f"{number % 10}" for number in range(40)] + ["0", "0"], ["drone"] * 40 + ["satellite"] * 2
    groups, bootstrap = Groups.of(["test"] * 42, view, [True] * 42), PlaceBootstrap.of(place, ["test"] * 42)
    certain = Intervals(groups, bootstrap)
    values = np.concatenate([np.random.default_rng(0).random(40) * 0.4, [0.9, 0.9]])[:, None]
    found = certain.of([certain.sums(values, {"a": 0})])
    assert found["of_views"][0, 0] == pytest.approx((values[:40].mean() + 0.9) / 2)
    assert np.isnan(found["of_views_interval"]).all()
