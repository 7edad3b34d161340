"""Promises of compute_cams: laziness, any chunking, honesty about what is undefined; properties of the maps; the goldens of the full-size network."""

import warnings
from dataclasses import replace
from pathlib import Path

import golden_weights
import numpy as np
import pytest
import torch
import xarray as xr
from feature_blocks import IDENTITY, context_of, feature_block, random_net
from golden_model import golden_state
from hypothesis import given, settings
from hypothesis import strategies as st

from safenet import load_checkpoint
from stages.cam.compute import CamContext, compute_cams, needed_features
from stages.cam.facts import FACTS
from stages.cam.map_keys import MapKey, StoredBlocks, left_out, map_keys_of
from stages.cam.methods import METHODS
from stages.cam.positions import POSITIONS
from stages.cam.settings import CamSettings
from stages.schema import FEATURES
from stages.targets.head_weights import head_weights
from stages.targets.names import parse_target
from stages.targets.part_heads import AffineHeads

AT_MAPS = tuple(name for name, method in METHODS.items() if method.where != "blocks")
GRADIENT = tuple(name for name in AT_MAPS if METHODS[name].kind == "gradient")
TARGETS = ("label", "predicted.part_1.softmax", "counter", "match", "match_share.flip", "best_contrast.whole")
ALL = map_keys_of(CamSettings(methods=AT_MAPS, targets=TARGETS))


def maps_of(found: xr.Dataset) -> dict[str, np.ndarray]:
    return {str(key): found[key].values for key in found if not str(key).startswith("facts/")}


@pytest.mark.parametrize("map_key", [p for p in ALL if p.exact], ids=lambda p: p.key)
@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
def test_exact_maps_add_up_to_the_score(sampling, map_key):
    """Completeness: the cells sum to the score less what is left at a map of zeros."""
    model = random_net(sampling, parts=4)
    found = compute_cams(feature_block(model, map_keys=[map_key]), [map_key], context_of(model))
    facts = dict(zip(FACTS, found[map_key.facts_key].values.T, strict=True))
    np.testing.assert_allclose(found[map_key.key].sum(("y", "x")), facts["score"] - facts["constant"], rtol=1e-4, atol=1e-5)


def test_exactness_is_claimed_for_affine_scores_alone():
    claimed = {(p.position, p.target, p.method) for p in ALL if p.exact}
    assert {target for _, target, _ in claimed} == {"label", "counter", "match_share.flip", "best_contrast.whole"}
    assert {method for _, _, method in claimed} == {"hires_cam", "token_deletion"}
    assert {position for position, _, _ in claimed} == {"patch", "aligned"}


def test_folded_heads_give_the_stored_logits():
    model = random_net(parts=4)
    features, context = feature_block(model), context_of(model)
    for index, head in enumerate(context.targets.heads.folded):
        part = features["part_feature"].values[:, index].astype(np.float64)
        np.testing.assert_allclose(part @ head.embed_matrix.T + head.embed_const, features["embedding"].values[:, index], atol=1e-5)
        np.testing.assert_allclose(part @ head.matrix.T + head.const, features["logit"].values[:, index], atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 12), min_size=1, max_size=5), spatial=st.sampled_from([-1, 3]))
def test_any_chunking_gives_the_same_bits(cuts, spatial):
    """Every method, of a class and of a similarity."""
    model, map_keys = random_net("bilinear"), map_keys_of(CamSettings(methods=AT_MAPS, targets=("label", "match_share.flip")))
    features, context = feature_block(model, sum(cuts), map_keys=map_keys), context_of(model)
    whole = compute_cams(features, map_keys, context)
    lazy = compute_cams(features.chunk({"sample": tuple(cuts), "x": spatial, "channel": 5}), map_keys, context)
    assert set(lazy.chunks) == {"sample", "y", "x", "fact"}, "nothing is computed before it is asked for"
    xr.testing.assert_identical(lazy.compute(), whole)


def test_asking_for_one_map_gives_the_same_bits_as_asking_for_all():
    model = random_net()
    features, context = feature_block(model, map_keys=ALL), context_of(model)
    together = compute_cams(features, ALL, context)
    for map_key in ALL:
        alone = compute_cams(features, [map_key], context)
        for key in (map_key.key, map_key.facts_key):
            np.testing.assert_array_equal(alone[key], together[key], err_msg=key)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_where_fam_moves_nothing_the_aligned_maps_are_the_patch_maps(pooling, monkeypatch):
    """They are computed once, and have the bits that they have alone."""
    model = random_net(pooling=pooling)
    with torch.no_grad():
        model.loc_net.fc_loc[2].weight.zero_()
        model.loc_net.fc_loc[2].bias.copy_(IDENTITY)
    features, context = feature_block(model, map_keys=ALL), context_of(model)
    opened = opened_positions(monkeypatch)
    together = compute_cams(features, ALL, context)
    assert opened == {"patch", "part"}
    for map_key in (p for p in ALL if p.position == "aligned"):
        alone = compute_cams(features, [map_key], context)
        for key in (map_key.key, map_key.facts_key):
            np.testing.assert_array_equal(alone[key], together[key], err_msg=key)
    assert opened == {"patch", "part", "aligned"}


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("changed", ["one cell's source", "one value of a map", "the sampling"])
def test_an_image_that_fam_changes_has_aligned_maps_of_its_own(changed, at_once, monkeypatch):
    """Whether it is looked at alone, so that only the others are taken from `patch`, or together with them."""
    monkeypatch.setattr("stages.cam.compute._AT_ONCE", at_once * 8 * 8 * 16)
    model = random_net()
    with torch.no_grad():
        model.loc_net.fc_loc[2].weight.zero_()
        model.loc_net.fc_loc[2].bias.copy_(IDENTITY)
    map_keys, context = map_keys_of(CamSettings(methods=("max", "hires_cam"), targets=("label",))), context_of(model)
    features = feature_block(model, 3)
    if changed == "one cell's source":
        features["source_cell"][1, 2, 2] += 1
    elif changed == "one value of a map":
        features["aligned_map"][1, 2, 2] *= 2
    else:
        context = replace(context, sampling="bilinear")
    opened = opened_positions(monkeypatch)
    found = compute_cams(features, map_keys, context)
    assert "aligned" in opened
    same = (found["aligned/none/max"] == found["patch/none/max"]).all(("y", "x")).values
    assert same.tolist() == [True, changed != "one value of a map", True]
    for position in ("patch", "aligned"):
        alone = [map_key for map_key in map_keys if map_key.position == position]
        for key, maps in maps_of(compute_cams(features, alone, context)).items():
            np.testing.assert_array_equal(found[key], maps, err_msg=key)


def opened_positions(monkeypatch) -> set[str]:
    """The names of the positions whose cells are laid out from now on."""
    opened = set()

    def noted(name, position):
        return replace(position, open=lambda *given: opened.add(name) or position.open(*given))

    monkeypatch.setattr("stages.cam.compute.POSITIONS", {name: noted(name, position) for name, position in POSITIONS.items()})
    return opened


def test_inputs_are_not_written_into():
    model = random_net()
    features, context = feature_block(model, map_keys=ALL), context_of(model)
    before = features.copy(deep=True)
    compute_cams(features, ALL, context)
    xr.testing.assert_identical(features, before)


def test_samples_without_an_image_or_a_target_are_nan_and_noted_as_absent():
    model = random_net()
    undefined = {"valid": np.array([True, False, True]), "class_index": np.array([0, 1, -1])}
    features = feature_block(model, 3, map_keys=ALL, **undefined)
    features["reference_own_match"][0] = np.nan
    found = compute_cams(features, ALL, context_of(model))
    defined = {key: np.isfinite(maps).all(axis=(1, 2)).tolist() for key, maps in maps_of(found).items()}
    assert defined["aligned/none/l2_norm"] == [True, False, True]
    assert defined["patch/label/hires_cam"] == [True, False, False]
    assert defined["part/match/grad_cam"] == [False, False, True]
    for map_key in ALL:
        maps, status = found[map_key.key].values, found[map_key.facts_key].values[:, FACTS.index("status")]
        assert (np.isnan(maps).all(axis=(1, 2)) == (status == 5)).all(), map_key.key
    assert all(np.isnan(maps[1]).all() for maps in maps_of(found).values())


def test_a_map_that_is_not_finite_is_noted_and_the_others_are_whole():
    """A denominator of exactly zero: channel 0 sums to zero over the cells, so that XGrad-CAM divides by it."""
    model = random_net("nearest")
    features = feature_block(model, 2)
    aligned = features["aligned_map"].values
    aligned[0, :, ::2, 0], aligned[0, :, 1::2, 0] = 1.0, -1.0
    map_key = MapKey("aligned", "predicted", "xgrad_cam")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compute_cams(features, [map_key], context_of(model))
    assert found[map_key.facts_key].values[0, FACTS.index("status")] == 4
    assert np.isfinite(found[map_key.key].values[1]).all()


def test_bad_denominators_are_counted(monkeypatch):
    monkeypatch.setattr("stages.cam.methods._NEAR_ZERO", 0.1)  # few channels are nearer
    model = random_net(parts=4)
    features, context = feature_block(model, 6), context_of(model)
    map_keys = [MapKey("aligned", "predicted", name) for name in ("xgrad_cam", "grad_cam_pp", "ablation_cam", "grad_cam")]
    facts = {p.method: compute_cams(features, [p], context)[p.facts_key].values for p in map_keys}
    clipped = {method: values[:, FACTS.index("clipped")] for method, values in facts.items()}
    cells = features["aligned_map"].values.reshape(6, 64, -1)
    near_zero = np.abs(cells.sum(axis=1)) < 0.1 * np.abs(cells).sum(axis=1)
    np.testing.assert_allclose(clipped["xgrad_cam"], near_zero.mean(axis=1))
    assert 0 < near_zero.mean() < 0.2 < (cells.sum(axis=1) <= 0).mean(), "a negative sum is harmless: its sign cancels"
    assert (clipped["grad_cam"] == 0).all()
    score = facts["grad_cam"][:, FACTS.index("score")]
    np.testing.assert_array_equal(clipped["ablation_cam"], score <= 0)
    for sample in range(6):  # one by one, from the definition
        cuts = [0, *features["boundary"].values[sample].tolist()]
        number = features["logit"].values[sample, :-1].mean(axis=0).argmax()
        used = bad = 0
        for part, head in enumerate(context.targets.heads.folded):
            gradient = head.matrix[number] / 4 / (2 * cuts[part + 1]) ** 2
            denominator = 2 + cells[sample].sum(axis=0) * gradient
            members = 4 * (cuts[part + 1] ** 2 - cuts[part] ** 2)
            used += members * (gradient > 0).sum()
            bad += members * ((gradient > 0) & (denominator <= 0)).sum()
        np.testing.assert_allclose(clipped["grad_cam_pp"][sample], bad / used, rtol=1e-5)


def test_scaling_the_logit_scales_the_map():
    """All but Grad-CAM++, which is documented to change, and Ablation-CAM, whose weights are shares of the score."""
    model = random_net()
    features, context = feature_block(model), context_of(model)
    doubled = [type(head)(head.embed_matrix, head.embed_const, 2 * head.matrix, 2 * head.const) for head in context.targets.heads.folded]
    other = CamContext(replace(context.targets, heads=AffineHeads(doubled)), context.sampling)
    scaled = features.assign(logit=2 * features["logit"])
    factor = dict.fromkeys(GRADIENT, 2) | {"ablation_cam": 1}
    for map_key in (MapKey("aligned", "label", name) for name in GRADIENT if name != "grad_cam_pp"):
        one, two = (compute_cams(block, [map_key], used)[map_key.key] for block, used in ((features, context), (scaled, other)))
        scale = np.abs(one.values).max()
        np.testing.assert_allclose(two, factor[map_key.method] * one, rtol=0, atol=1e-5 * scale, err_msg=map_key.key)


def test_permuting_the_channels_changes_nothing():
    model = random_net("bilinear", parts=4)
    map_keys = [p for p in ALL if p.method not in ("eigen_cam", "eigen_grad_cam")]  # their sign hangs on rounding where two cells tie
    features, context = feature_block(model, map_keys=map_keys), context_of(model)
    order = np.random.default_rng(1).permutation(features.sizes["channel"])
    heads = [type(h)(h.embed_matrix[:, order], h.embed_const, h.matrix[:, order], h.const) for h in context.targets.heads.folded]
    before = compute_cams(features, map_keys, context)
    after = compute_cams(features.isel(channel=order), map_keys, CamContext(replace(context.targets, heads=AffineHeads(heads)), context.sampling))
    for map_key in map_keys:
        scale = np.abs(before[map_key.key].values).max()
        np.testing.assert_allclose(after[map_key.key], before[map_key.key], rtol=0, atol=2e-5 * scale, err_msg=map_key.key)


def test_what_coincides_for_this_head():
    """What the notes of METHODS say: sum is K means, token deletion is hires_cam for an affine score, grad_cam follows hires_cam within a ring."""
    model = random_net("nearest", parts=4)
    targets = ("predicted", "predicted.part_2")
    map_keys = map_keys_of(CamSettings(positions=("aligned",), methods=("sum", "mean", "hires_cam", "token_deletion", "grad_cam"), targets=targets))
    features = feature_block(model, 3)
    found = maps_of(compute_cams(features, map_keys, context_of(model)))
    np.testing.assert_allclose(found["aligned/none/sum"], 16 * found["aligned/none/mean"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found["aligned/predicted/token_deletion"], found["aligned/predicted/hires_cam"])
    for sample, (inner, outer) in enumerate(features["boundary"].values[:, :2]):
        ring = np.zeros((8, 8), bool)
        ring[4 - outer : 4 + outer, 4 - outer : 4 + outer] = True
        ring[4 - inner : 4 + inner, 4 - inner : 4 + inner] = False
        ratio = found["aligned/predicted.part_2/grad_cam"][sample][ring] / found["aligned/predicted.part_2/hires_cam"][sample][ring]
        np.testing.assert_allclose(ratio, (1 - (inner / outer) ** 2) / 64 * (2 * outer) ** 2, rtol=1e-4)


def test_products_are_the_cross_of_the_settings():
    chosen = CamSettings(positions=("aligned", "block_0"), methods=("max", "grad_cam", "rollout"), targets=("label", "match"))
    assert [map_key.key for map_key in map_keys_of(chosen)] == [
        "aligned/label/grad_cam",
        "aligned/match/grad_cam",
        "aligned/none/max",
        "block_0/none/max",
    ]
    stored = StoredBlocks(gradients={"label": frozenset({0})}, variables=frozenset({"block_rollout"}))
    assert [map_key.key for map_key in map_keys_of(chosen, stored)][3:] == ["block_0/label/grad_cam", "block_0/none/rollout"]
    reasons = {map_key.key: why for map_key, why in left_out(chosen, stored).items()}
    assert "a similarity is not possible there" in reasons["block_0/match/grad_cam"]
    assert reasons["block_0/none/max"] == "add 0 to extract.blocks and extract again"
    assert "add 'label' to extract.gradient_targets" in next(iter(left_out(chosen).values()))


def test_a_key_is_undone_by_parse():
    for target in ("label", "pair_test/query/a 1.jpg.part_2", "class_a%b/c"):
        map_key = MapKey("aligned", target, "grad_cam")
        assert MapKey.parse(map_key.key) == map_key
        assert map_key.key.count("/") == 2


def test_equal_targets_are_one():
    assert CamSettings(targets=("label.softmax.part_1", "label.part_1.softmax")).targets == ("label.part_1.softmax",)


def test_only_what_is_needed_is_read():
    assert needed_features([MapKey("aligned", "none", "max")]) == {"valid", "source_cell", "aligned_map"}
    assert "patch_map" not in needed_features([MapKey("part", "match", "hires_cam")])
    assert "flip_embedding" in needed_features([MapKey("part", "match.flip", "hires_cam")])
    assert needed_features([MapKey("block_1", "none", "rollout")]) == {"valid", "source_cell", "block_rollout"}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"methods": ("grad_cm",)}, "cam.methods: 'grad_cm' is unknown. Did you mean 'grad_cam'"),
        ({"targets": ("mach",)}, "cam.targets: 'mach' is unknown. Did you mean 'match'"),
        ({"targets": ("match.softmax",)}, "'match.softmax': softmax is of a class; this target is a similarity"),
        ({"targets": ("label.flip",)}, "'label.flip': flip is of a similarity; this target is a class"),
        ({"targets": ("label.global.whole",)}, "'label.global.whole': global, whole contradict each other"),
        ({"targets": ("class_",)}, "'class_' lacks a name; expected class_<class>"),
        ({"positions": ("alined",)}, "cam.positions: 'alined' is unknown. Did you mean 'aligned'"),
        ({"positions": ("block_x",)}, "cam.positions: 'block_x' is unknown. Did you mean 'block_<i>'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(wrong, text):
    with pytest.raises(ValueError, match=text):
        CamSettings(**wrong)


def test_a_part_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"target label.part_3: part 3 does not exist: the network has parts 1 to 2"):
        head_weights(parse_target("label.part_3"), 2)


def test_a_variable_that_was_not_stored_is_named():
    model = random_net()
    features, context = feature_block(model, blocks=(0,)), context_of(model)
    with pytest.raises(ValueError, match="has no aligned_map; it was extracted without it"):
        compute_cams(features.drop_vars("aligned_map"), [MapKey("aligned", "none", "max")], context)
    with pytest.raises(ValueError, match=r"the feature store holds blocks \[0\], not 5; extract again with it"):
        compute_cams(features, [MapKey("block_5", "none", "max")], context)
    with pytest.raises(ValueError, match="the features lack reference_own_match: what the samples are compared with"):
        compute_cams(features, [MapKey("aligned", "match", "grad_cam")], context)


def test_the_full_size_golden_maps(tmp_path):
    """Grad-CAM of the mean part logit and per-cell contributions, computed with the published code."""
    torch.save(golden_state(), tmp_path / "net_119.pth")
    model = load_checkpoint(tmp_path / "net_119.pth")
    golden = np.load(Path(__file__).parents[2] / "golden" / "cam_recipe.npz")
    with torch.inference_mode():
        output = model(torch.from_numpy(golden_weights.images(4)[:2]))
    arrays = {
        "aligned_map": output.aligned_map.permute(0, 2, 3, 1),
        "source_cell": output.source_cell,
        "theta": output.theta,
        "boundary": output.boundary,
        "part_feature": output.part_feature.transpose(1, 2),
        "logit": output.logit.transpose(1, 2),
        "embedding": output.embedding.transpose(1, 2),
    }
    features = xr.Dataset({name: (FEATURES[name].dims, value.numpy()) for name, value in arrays.items()})
    features = features.assign(valid=("sample", [True, True]), class_index=("sample", golden["target_class"]))
    context = replace(context_of(model), targets=replace(context_of(model).targets, class_names=[str(number) for number in range(701)]))
    chosen = CamSettings(positions=("aligned",), methods=("grad_cam", "hires_cam"), targets=("label", "predicted", "label.part_3"))
    found = compute_cams(features, map_keys_of(chosen), context)
    np.testing.assert_allclose(np.maximum(found["aligned/label/grad_cam"], 0), golden["gradcam_mean_part_logit"], atol=1e-7)
    np.testing.assert_allclose(found["aligned/label/hires_cam"], golden["per_cell_contribution"].mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(found["aligned/label.part_3/hires_cam"], golden["per_cell_contribution"][:, 2], atol=1e-6)
    np.testing.assert_array_equal(found["aligned/predicted/grad_cam"], found["aligned/label/grad_cam"])
