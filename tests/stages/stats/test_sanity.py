"""The head-randomisation check: what hangs on the heads changes with them, what does not stays."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from feature_blocks import random_net

from pipeline.cam.references import References
from pipeline.stats.sanity import sanity_of
from pipeline.stats.stage import stats
from pipeline.stats.staleness import all_inputs
from safenet.head_arrays import HEAD_ARRAYS
from stages.cam.map_keys import MapKey
from stages.stats.sanity import can_be_checked, fresh_heads, sanity_figures


def test_fresh_heads_are_those_that_training_starts_from():
    network = random_net(parts=4).architecture
    found = fresh_heads(network, 0)
    assert set(found) == {f"head_{name}" for name in HEAD_ARRAYS}
    assert found["head_w1"].shape == (5, network.embedding, network.width)
    assert (found["head_bn_var"] == 1).all() and (found["head_b2"] == 0).all()
    assert float(found["head_w2"].std()) == pytest.approx(0.001, rel=0.3)
    again, others = fresh_heads(network, 0), fresh_heads(network, 1)
    assert all((found[key] == again[key]).all() for key in found)
    assert not (found["head_w1"] == others["head_w1"]).any()
    assert len(np.unique(found["head_w1"])) == found["head_w1"].size, "each head is drawn anew"


def test_the_figure_is_the_rank_correlation_of_both_maps():
    rng = np.random.default_rng(0)
    map_key, flipped = MapKey("aligned", "label", "grad_cam"), MapKey("aligned", "match.flip", "grad_cam")
    maps = {map_key.key: rng.standard_normal((3, 4, 4))}
    other = {map_key.key: maps[map_key.key] * np.array([1, -1, np.nan])[:, None, None]}
    found = sanity_figures(maps, other, [map_key, flipped, MapKey("aligned", "none", "max")])
    np.testing.assert_allclose(found[:, 0], [1, -1, np.nan], atol=1e-12)
    assert np.isnan(found[:, 1:]).all(), "neither can be checked"


def test_what_can_be_checked():
    assert can_be_checked(MapKey("aligned", "predicted", "hires_cam"))
    assert not can_be_checked(MapKey("block_0", "predicted", "hires_cam")), "it was made with the network"
    assert not can_be_checked(MapKey("aligned", "none", "max")), "no head is in it"


def test_fresh_heads_embed_no_more_images_than_the_check_needs(finished, monkeypatch):
    """What is left out is not read, and changes nothing here: no target of these maps looks at other places."""
    (one,) = all_inputs(finished, ["net_000"])
    features, read = finished.features("net_000"), []
    original = References._head_inputs

    def noted(self, rows):
        read.extend(range(rows.start, rows.stop))
        return original(self, rows)

    monkeypatch.setattr(References, "_head_inputs", noted)
    few = replace(finished, settings=finished.settings.model_copy(update={"stats": finished.settings.stats.model_copy(update={"sanity_samples": 1})}))
    everything = sanity_of(few, one)
    assert set(read) == set(range(15))
    read.clear()
    monkeypatch.setattr("pipeline.stats.sanity._COMPARED_WITH", 1)
    found = sanity_of(few, one)
    place = features.values("place")
    of_place = {number // 4 * 4 + offset for number in np.flatnonzero(place == place[0]) for offset in range(4)}
    assert set(read) == {number for number in of_place if number < 15} != set(range(15))
    xr.testing.assert_identical(found, everything)


def test_the_stage_keeps_it_beside_the_other_figures(lab, finished_copy, finished):
    """The products keep their order; asked for no samples, nothing is measured."""
    found = xr.open_zarr(finished.stats_path / "net_000").load()
    assert found["sanity"].dims == ("product",)
    has = {str(key): bool(np.isfinite(value)) for key, value in zip(found["product"].values, found["sanity"].values, strict=True)}
    assert has == {key: "/none/" not in key for key in has}
    assert (np.abs(found["sanity"].dropna("product")) <= 1).all()
    run = lab.run(finished_copy, "stats.sanity_samples=0")
    stats(run)
    assert "sanity" not in xr.open_zarr(run.stats_path / "net_000")
