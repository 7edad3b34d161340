"""Maps against the masks of other places, image by image and mask by mask."""

import numpy as np
import pytest
from figures_in_memory import heat_of

from stages.stats.baselines import MaskSums
from stages.stats.heat import Masks

PLACES = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 4])
GROUPS = np.array([0, 0, 1, 0, 1, 0, 0, 1, 1, -1, 1, 1])
RNG = np.random.default_rng(0)
SIDE = 3


def images():
    """Maps of two kinds, masks, and which images have one."""
    maps = [RNG.standard_normal((12, SIDE, SIDE)), 9 + RNG.random((12, SIDE, SIDE)) / 100]
    maps[0][5], maps[0][0] = np.nan, -1  # none, and one without heat
    maps[0][3, 0, :2] = maps[0][3].max() + 1  # two hottest cells
    share = RNG.random((12, SIDE * SIDE))
    centre = (share > 0.6).astype(int)
    share[6], centre[6] = np.nan, -1
    return maps, share, centre, np.arange(12) != 6


def sums(maps, share, centre, rows=slice(None)):
    pairs, pair = np.unique(np.stack([GROUPS, PLACES], axis=1), axis=0, return_inverse=True)
    heats = [
        heat_of(some[rows], kind, masks=Masks(share[rows], centre[rows]), on_photo=some[rows])
        for some, kind in zip(maps, ("gradient", "statistic"), strict=True)
    ]
    total = MaskSums.nothing(2, len(pairs), SIDE * SIDE)
    total.include(MaskSums.of(heats, np.where(GROUPS >= 0, pair.reshape(-1), -1)[rows]))
    return total, pairs[:, 0]


def drawn(heat, kind):
    return np.maximum(heat, 0) if kind == 0 else heat - heat.min()


def by_hand(maps, share, centre, has_mask, group, kind):
    """Mean over the images of a group of the mean over all images of its other places that have a mask: pointing, and energy."""
    found = [[], []]
    for image in np.flatnonzero((group == GROUPS) & has_mask):
        others = np.flatnonzero((group == GROUPS) & has_mask & (PLACES[image] != PLACES))
        if np.isnan(maps[kind][image]).any() or not len(others):
            continue
        heat = drawn(maps[kind][image], kind).ravel()
        hottest = np.flatnonzero((heat == heat.max()) & (heat > 0))
        found[0].append(np.mean([centre[other][hottest].mean() if len(hottest) else 0 for other in others]))
        found[1].append(np.mean([heat @ share[other] / heat.sum() if heat.sum() else 0 for other in others]))
    return [np.mean(values) for values in found], len(found[0])


@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize("kind", [0, 1])
def test_shuffled_masks_are_those_of_the_other_places_of_the_group(group, kind):
    maps, share, centre, has_mask = images()
    total, groups = sums(maps, share, centre, slice(0, 5))
    total.include(sums(maps, share, centre, slice(5, 12))[0])
    found = total.shuffled(groups, group)
    expected, count = by_hand(maps, share, centre, has_mask, group, kind)
    assert [one.mean[kind] for one in found] == pytest.approx(expected)
    assert found[0].count[:, kind].sum() == count


@pytest.mark.parametrize("kind", [0, 1])
def test_the_mean_map_against_each_mask(kind):
    maps, share, centre, has_mask = images()
    found, group = sums(maps, share, centre)
    chosen = [image for image in np.flatnonzero((GROUPS == 0) & has_mask) if np.isfinite(maps[kind][image]).all()]
    heats = [drawn(maps[kind][image], kind).ravel() for image in chosen]
    mean = np.mean([heat / heat.sum() if heat.sum() else heat for heat in heats], axis=0)
    masks = np.flatnonzero((GROUPS == 0) & has_mask)
    expected = [np.mean([centre[image][mean.argmax()] for image in masks]), np.mean([mean @ share[image] / mean.sum() for image in masks])]
    assert found.of_mean_map(group, 0)[:, kind] == pytest.approx(expected)


def test_of_one_place_there_is_nothing_to_compare_with():
    heats = [heat_of(RNG.random((3, SIDE, SIDE)), masks=Masks(np.ones((3, 9)), np.ones((3, 9), int)), on_photo=RNG.random((3, SIDE, SIDE)))]
    found = MaskSums.of(heats, np.array([0, 0, 0])).shuffled(np.array([0]), 0)
    assert np.isnan([one.mean for one in found]).all() and not any(one.count.any() for one in found)
    without = MaskSums.of([heat_of(np.ones((1, SIDE, SIDE)), masks=Masks(np.full((1, 9), np.nan), np.full((1, 9), -1)))], np.array([0]))
    assert np.isnan(without.of_mean_map(np.array([0]), 0)).all()


def test_a_map_that_knows_nothing_scores_what_chance_gives_it():
    """Masks and maps of one and the same place in the photo, whatever it shows: observed and shuffled are equal."""
    maps = np.tile(RNG.random((1, SIDE, SIDE)), (12, 1, 1))
    share, centre = np.tile(RNG.random((1, 9)), (12, 1)), np.tile(RNG.integers(0, 2, (1, 9)), (12, 1))
    found, group = sums([maps, maps], share, centre)
    heat = heat_of(maps, masks=Masks(share, centre), on_photo=maps)
    from stages.stats.maps import energy, pointing

    for one, figure in zip(found.shuffled(group, 1), (pointing, energy), strict=True):
        np.testing.assert_allclose(one.mean[0], figure(heat).mean())
