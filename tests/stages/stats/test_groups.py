"""Grouping, chunk-combine-finalize, and what changes between checkpoints."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from feature_blocks import context_of, feature_block, random_net
from figures_in_memory import figures_of_images, reduced, retrieval
from scipy.stats import spearmanr

from stages.cam.compute import compute_cams
from stages.cam.map_keys import map_keys_of
from stages.cam.settings import CamSettings
from stages.stats.drift import boundary_changed
from stages.stats.groups import Groups
from stages.stats.mean_maps import MapSums
from stages.stats.settings import StatsSettings

PRODUCTS = map_keys_of(CamSettings(methods=("l2_norm", "hires_cam"), targets=("match",)))
SETTINGS = StatsSettings()
BILINEAR = random_net("bilinear").architecture
COUNT = 9


@pytest.fixture(scope="module")
def inputs():
    model = random_net("bilinear")
    undefined = {"reference_group": np.array([0, 1, 0, -1, 1, 0, 1, 0, 1]), "valid": np.arange(COUNT) != 4}
    features = feature_block(model, COUNT, map_keys=PRODUCTS, **undefined)
    rng = np.random.default_rng(0)
    share = rng.random((COUNT, 8, 8)).astype(np.float32)
    features["mask_share"] = (("sample", "y", "x"), share)
    features["mask_centre"] = (("sample", "y", "x"), (share > 0.7).astype(np.int8))
    groups = Groups.of(["test"] * 5 + ["train"] * 4, ["drone", "satellite"] * 4 + ["drone"], features["valid"].values.tolist())
    return features, compute_cams(features, PRODUCTS, context_of(model)), groups


def figures(cams, features, groups, network=BILINEAR, cuts=(0, COUNT), **more):
    parts = [slice(*pair) for pair in pairwise(cuts)]
    made = [figures_of_images(cams.isel(sample=part), features.isel(sample=part), network, SETTINGS) for part in parts]
    return reduced(made, cams, groups, network, **more)


def whole(inputs):
    features, cams, groups = inputs
    return figures(cams, features, groups)


def test_groups_are_split_and_view_of_valid_images(inputs):
    groups = inputs[2]
    assert groups.name == ("test drone", "test satellite", "train drone", "train satellite")
    assert groups.index.tolist() == [0, 1, 0, 1, -1, 3, 2, 3, 2]


@pytest.mark.parametrize("cuts", [(0, 1, 9), (0, 3, 4, 9), tuple(range(10))])
def test_any_cut_into_blocks_gives_the_same_figures(inputs, cuts):
    features, cams, groups = inputs
    xr.testing.assert_allclose(figures(cams, features, groups, cuts=cuts), whole(inputs), rtol=1e-12)


@pytest.mark.parametrize("cuts", [(0, 1, 9), (0, 3, 4, 9), tuple(range(10))])
def test_sums_of_maps_are_folded_block_by_block(inputs, cuts):
    _, cams, groups = inputs
    maps = [cams[map_key.key].values for map_key in PRODUCTS]
    parts = [MapSums.of([heat[slice(*pair)] for heat in maps], groups.index[slice(*pair)], 4) for pair in pairwise(cuts)]
    expected = MapSums.of(maps, groups.index, 4).statistics()
    for name, values in sum(parts[1:], start=parts[0]).statistics().items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-12, atol=1e-6, err_msg=name)  # a standard deviation is a difference of squares


def test_maps_are_averaged_over_the_groups_defined_samples(inputs):
    _, cams, groups = inputs
    found = whole(inputs)
    for number, name in enumerate(groups.name):
        for map_key in PRODUCTS:
            maps = cams[map_key.key].values[groups.index == number].astype(np.float64)
            maps = maps[np.isfinite(maps).all(axis=(1, 2))]
            at = found.sel(group=name, product=map_key.key)
            assert float(at["defined"]) == len(maps)
            np.testing.assert_allclose(at["map_mean"], maps.mean(axis=0), rtol=1e-6)
            np.testing.assert_allclose(at["map_std"], maps.std(axis=0), atol=1e-6)
            assert float(at["range_high"]) == pytest.approx(np.quantile(maps.max(axis=(1, 2)), 0.99))
            assert float(at["range_low"]) == pytest.approx(np.quantile(maps.min(axis=(1, 2)), 0.01))


def test_maps_of_low_contrast_are_counted(inputs):
    features, cams, groups = inputs
    low = cams.copy(deep=True)
    low["patch/none/l2_norm"][...] = 27.7128 + 1e-6 * np.random.default_rng(0).standard_normal((COUNT, 8, 8))
    found = figures(low, features, groups)
    assert (found["low_contrast"].sel(product="patch/none/l2_norm") == 1).all()
    assert (found["low_contrast"].sel(product="patch/match/hires_cam") == 0).all()


def test_module_figures(inputs):
    features, _, groups = inputs
    found = whole(inputs)
    chosen = groups.index == 0
    own = np.arange(64).reshape(8, 8)
    assert float(found["moved_cells"].sel(group="test drone")) == pytest.approx((features["source_cell"].values[chosen] != own).mean())
    assert float(found["fam_change"].sel(group="test drone")) == pytest.approx(features["fam_change"].values[chosen].mean())
    assert found["boundary_count"].sel(group="test drone").sum("ring").values.tolist() == [2, 2]
    assert found["count"].values.tolist() == [2, 2, 2, 2]


def test_masks_are_used_where_there_are_some(inputs):
    features, cams, groups = inputs
    assert {"pointing", "energy", "mask_area"} <= set(whole(inputs))
    bare = features.drop_vars(["mask_share", "mask_centre"])
    assert "pointing" not in figures(cams, bare, groups, masks=False)


def test_drift_is_averaged_by_group(inputs):
    features, cams, groups = inputs
    part = figures_of_images(cams, features, BILINEAR, SETTINGS, {"last": cams[[map_key.key for map_key in PRODUCTS]] * 2})
    found = reduced([part], cams, groups, BILINEAR, kinds=["last"])
    assert {"cosine_to_last", "spearman_to_last", "overlap_to_last"} <= set(found)
    np.testing.assert_allclose(found["cosine_to_last"].sel(product="aligned/none/l2_norm"), 1, rtol=1e-6)


def test_a_map_that_the_other_checkpoint_lacks_has_no_drift(inputs):
    features, cams, _ = inputs
    part = figures_of_images(cams, features, BILINEAR, SETTINGS, {"previous": cams[[PRODUCTS[0].key]]})
    assert np.isfinite(part[f"previous/{PRODUCTS[0].key}"]).any()
    assert np.isnan(part[f"previous/{PRODUCTS[1].key}"]).all()


def test_changed_boundaries(inputs):
    features = {name: inputs[0][name].values for name in ("boundary", "saliency")}
    other = {name: values.copy() for name, values in features.items()}
    other["boundary"][0, 0] += 1
    assert boundary_changed(features, other).tolist() == [1, *[0] * 8]
    other["saliency"][0] = np.nan  # what cut these boundaries is none
    np.testing.assert_array_equal(boundary_changed(features, other), [np.nan, *[0] * 8])


def test_maps_that_one_mean_map_explains_are_alike(inputs):
    """The figure is the mean correlation of a map with the mean of the maps, each less its mean and over its length."""
    features, cams, groups = inputs
    found = figures(cams, features, groups)
    key = PRODUCTS[0].key
    for number, name in enumerate(groups.name):
        maps = cams[key].values[groups.index == number].astype(np.float64)
        units = [(heat - heat.mean()) / np.linalg.norm(heat - heat.mean()) for heat in maps if np.isfinite(heat).all()]
        mean = np.mean(units, axis=0)
        expected = np.mean([(unit * mean).sum() for unit in units]) / np.linalg.norm(mean) if len(units) > 1 else np.nan
        np.testing.assert_allclose(found["alike"].sel(group=name, product=key), expected, rtol=1e-9)
    same = cams.assign({key: cams[key] * 0 + np.arange(64.0).reshape(8, 8)})
    found = figures(same, features, groups)
    assert found["alike"].sel(product=key).dropna("group").values == pytest.approx(1)


def test_retrieval_in_both_directions():
    embedding = np.zeros((4, 2, 3), np.float32)
    embedding[[0, 1]] = [1, 0, 0]
    embedding[[2, 3]] = [0, 1, 0]
    columns = (["a", "a", "b", "b"], ["drone", "satellite"] * 2, ["gallery+query"] * 4)
    found = retrieval(embedding, *columns, [True] * 4)
    assert found["recall_1"].values.tolist() == [1, 1]
    blind = retrieval(embedding, *columns, [True, False, True, True])
    assert blind["recall_1"].sel(direction="drone to satellite") == 0.5, "the satellite image of a is void"
    none = retrieval(embedding, columns[0], ["drone"] * 4, columns[2], [True] * 4)
    assert np.isnan(none["recall_1"]).all()


def test_trust_figures_are_those_of_their_definition():
    """Statuses, completeness, deletion and agreement, averaged over the groups; blanks where nothing is claimed."""
    model = random_net("nearest", parts=4)
    map_keys = map_keys_of(CamSettings(methods=("max", "hires_cam", "grad_cam"), targets=("predicted", "match")))
    features = feature_block(model, 6, map_keys=map_keys, class_index=np.array([0, 1, -1, 0, 1, 2]))
    cams = compute_cams(features, map_keys, context_of(model))
    groups = Groups.of(["test"] * 6, ["drone"] * 6, [True] * 6)
    found = figures(cams, features, groups, model.architecture, (0, len(groups.index)), masks=False).isel(group=0)
    assert found["status_share"].sel(product="aligned/predicted/hires_cam", status="ok") == 1
    np.testing.assert_allclose(found["status_share"].sum("status"), 1)
    residual = found["residual"].dropna("product")
    assert residual["product"].values.tolist() == ["aligned/predicted/hires_cam", "patch/predicted/hires_cam"]
    assert (residual < 1e-5).all()
    deletion = found["deletion"].dropna("product")
    expected = {f"{p}/{t}" for p in ("patch", "aligned") for t in ("none/max", "predicted/hires_cam", "predicted/grad_cam")}
    assert set(deletion["product"].values) == expected, "of an affine score alone, and where its exact map is there"
    own = deletion.sel(product="aligned/predicted/hires_cam")
    assert all(float(own) <= float(deletion.sel(product=name)) + 1e-12 for name in expected if name.startswith("aligned/"))
    np.testing.assert_allclose(found["insertion"] + found["deletion"], 2 * found["deletion_random"])
    assert (found["deletion_lower_quartile"].dropna("product") <= found["deletion_median"].dropna("product")).all()
    assert set(found["insertion_median"].dropna("product")["product"].values) == expected
    agreement = found["agreement"]
    np.testing.assert_allclose([agreement.sel(product=p.key, other=p.key) for p in map_keys if p.position != "part"], 1)
    assert np.isnan(agreement.sel(product="aligned/none/max", other="patch/none/max"))
    each = [
        spearmanr(*(cams[f"aligned/{key}"].values[sample].ravel() for key in ("none/max", "predicted/hires_cam"))).statistic for sample in range(6)
    ]
    np.testing.assert_allclose(agreement.sel(product="aligned/none/max", other="aligned/predicted/hires_cam"), np.mean(each))


@pytest.mark.parametrize("kind", [{"head_activation": "leaky_relu"}, {"pooling": "max"}], ids=str)
def test_nothing_is_called_exact_of_a_score_that_is_not_affine(kind):
    """What is left of such a score is no sum of cells; its maps are as good or bad as autograd's."""
    model = random_net(parts=4, **kind)
    map_keys = map_keys_of(CamSettings(methods=("max", "hires_cam"), targets=("predicted",)))
    features = feature_block(model, 3, map_keys=map_keys)
    cams = compute_cams(features, map_keys, context_of(model))
    groups = Groups.of(["test"] * 3, ["drone"] * 3, [True] * 3)
    found = figures(cams, features, groups, model.architecture, (0, len(groups.index)), masks=False)
    for name in ("residual", "deletion", "insertion", "deletion_random", "deletion_median"):
        assert found[name].isnull().all(), name
    assert found["agreement"].notnull().any()


def test_one_map_alone_is_not_said_to_be_alike():
    maps = np.random.default_rng(0).random((3, 4, 4)).astype(np.float32)
    found = MapSums.of([maps], np.array([0, 1, 1]), 2).statistics()
    assert np.isnan(found["alike"][0, 0])
    assert found["alike"][1, 0] > 0
    assert found["defined"].tolist() == [[1], [2]]
