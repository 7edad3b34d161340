"""Intervals over places: their coverage, what they are made of, and where there is none."""

import numpy as np
import pytest

from stages.stats.bootstrap import DRAWS, PlaceBootstrap


def bootstrap_of(sizes) -> PlaceBootstrap:
    """Of one split, with so many photos of each place."""
    places = [f"{number:03d}" for number, size in enumerate(sizes) for _ in range(size)]
    return PlaceBootstrap.of(places, ["test"] * len(places))


def simulated(rng, sizes, share) -> np.ndarray:
    """A figure whose variance of 1 lies between the places by this share, and within them by the rest; its mean is 0."""
    between, within = rng.standard_normal(len(sizes)), rng.standard_normal(sum(sizes))
    return np.sqrt(share) * between.repeat(sizes) + np.sqrt(1 - share) * within


@pytest.mark.parametrize(("places", "photos", "share"), [(40, 1, 0.0), (40, 5, 0.5), (100, 3, 0.9), (12, 4, 0.5), (5, 4, 0.5), (2, 4, 0.5)])
def test_intervals_hold_the_mean_as_often_as_they_say(places, photos, share):
    """95 +- 2 % of 1,000 simulations, whose own standard error is 0.7 %."""
    rng, sizes = np.random.default_rng(places), [photos] * places
    bootstrap, images = bootstrap_of(sizes), np.arange(sum(sizes))
    values = np.stack([simulated(rng, sizes, share) for _ in range(1000)], axis=1)
    low, high = bootstrap.interval(bootstrap.means(bootstrap.sums(values, images)), images).T
    assert 0.93 <= ((low <= 0) & (high >= 0)).mean() <= 0.97


def test_photos_taken_one_by_one_would_be_too_sure():
    """The interval over places is as much wider than that over photos as the design effect says: sqrt(1 + (photos - 1) * share)."""
    rng, sizes = np.random.default_rng(0), [20] * 60
    values, images = simulated(rng, sizes, 0.5), np.arange(1200)
    widths = [np.ptp(one.interval(one.means(one.sums(values[:, None], images)), images)) for one in (bootstrap_of(sizes), bootstrap_of([1] * 1200))]
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(1 + 19 * 0.5), rel=0.2)


def test_a_draw_is_the_mean_of_the_photos_of_its_places():
    rng = np.random.default_rng(1)
    place, split = ["b", "a", "b", "c", "a", "x", "y"], ["test"] * 5 + ["train"] * 2
    bootstrap, images = PlaceBootstrap.of(place, split), np.array([0, 1, 3, 4, 2])
    values = rng.standard_normal((5, 3))
    values[1, 0] = np.nan
    found = bootstrap.means(bootstrap.sums(values, images))
    assert found.shape == (DRAWS, 3)
    for draw in (0, 7, DRAWS - 1):
        times = [int(bootstrap.drawn[draw, bootstrap.place[image]]) for image in images]
        repeated = np.repeat(values, times, axis=0)
        expected = np.nanmean(repeated, axis=0) if len(repeated) else np.full(3, np.nan)
        np.testing.assert_allclose(found[draw], expected, atol=1e-12)
    assert (bootstrap.drawn[:, np.unique(bootstrap.place[:5])].sum(axis=1) == 3).all(), "three places of test are drawn from three"


def test_groups_and_checkpoints_share_their_draws():
    """What is the same in both does not spread their difference."""
    rng, sizes = np.random.default_rng(2), [2] * 30
    bootstrap, drone, satellite = bootstrap_of(sizes), np.arange(0, 60, 2), np.arange(1, 60, 2)
    of_place = rng.standard_normal(30)
    one, other = (bootstrap.means(bootstrap.sums(values[:, None], images)) for values, images in ((of_place, drone), (of_place + 0.25, satellite)))
    np.testing.assert_allclose(other - one, 0.25, atol=1e-12)
    np.testing.assert_array_equal(bootstrap.drawn, bootstrap_of(sizes).drawn)


def test_one_place_has_no_interval():
    bootstrap, images = bootstrap_of([5]), np.arange(5)
    assert np.isnan(bootstrap.interval(bootstrap.means(bootstrap.sums(np.arange(5.0)[:, None], images)), images)).all()
    several, values = bootstrap_of([2, 2, 2]), np.array([[1, 1], [2, 2], [np.nan, 3], [np.nan, 4], [np.nan, 5], [np.nan, 6]])
    found = several.interval(several.means(several.sums(values, np.arange(6))), np.arange(6))
    assert np.isnan(found).all(axis=1).tolist() == [True, False], "a figure that the photos of one place alone have"
    assert np.isnan(several.interval(several.means(several.sums(values[:0], np.arange(0))), np.arange(0))).all()
