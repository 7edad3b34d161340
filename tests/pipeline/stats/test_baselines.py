"""The baselines of a run, image by image from its stores."""

import numpy as np
import pytest

from pipeline.stats.staleness import all_inputs, open_stats
from pipeline.stats.state import sources_of
from stages.schema import MASKS
from stages.stats.heats import heats_of


@pytest.mark.parametrize("key", ["aligned/match/grad_cam", "patch/none/l2_norm", "part/match/grad_cam"])
def test_the_baselines_of_a_run_are_those_of_its_maps(finished, key):
    """Every map against the masks of every other place of its group; the right map, group and checkpoint."""
    (one,) = [inputs for inputs in all_inputs(finished, ["net_000", "net_001", "net_002"]) if inputs.name == "net_001"]
    sources = sources_of(finished, one)
    map_key = next(found for found in one.map_keys if found.key == key)
    cams = sources.cams.arrays([map_key.key, map_key.facts_key])
    features = sources.features.arrays(["theta", "source_cell", *MASKS])
    heat = heats_of(cams, features, [map_key], {}, sources.network, finished.settings.stats)[map_key]
    place = sources.features.values("place").astype(str)
    told = open_stats(finished).sel(checkpoint="net_001", product=key)
    seen = 0
    for number, group in enumerate(one.groups.name):
        members = np.flatnonzero(one.groups.index == number)
        masked = [image for image in members if np.isfinite(heat.masks.share[image]).all()]
        rows = []
        for image in members[heat.inside[0][members]]:
            others = [other for other in masked if place[other] != place[image]]
            if others:
                centres, shares = heat.masks.centre[others] == 1, heat.masks.share[others]
                rows.append([(heat.hottest[image] * centres).sum(axis=1).mean(), (heat.shares[image] * shares).sum(axis=1).mean()])
        expected = np.mean(rows, axis=0) if rows else [np.nan, np.nan]
        found = told["shuffled"].sel(group=group, shuffled_figure=["pointing", "energy"]).values
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        assert told["shuffled_known"].sel(group=group, shuffled_figure="energy") == len(rows)
        seen += len(rows)
    assert seen
