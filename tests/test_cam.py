"""Every heat map against autograd on its definition; promises of compute_cams; the goldens of the full-size network."""

from pathlib import Path

import golden_weights
import numpy as np
import pytest
import references
import torch
import xarray as xr
from feature_blocks import context_of, feature_block, random_net
from golden_model import golden_state
from hypothesis import given, settings
from hypothesis import strategies as st

from safenet import load_checkpoint
from safenet.heads import fold_head
from stages.cam import CamContext, CamSettings, Product, compute_cams, needed_features, products_of, without_closed_form
from stages.cam_methods import METHODS, CamInput
from stages.schema import FEATURES
from stages.targets import TargetContext

GRADIENT = [name for name, method in METHODS.items() if method.kind == "gradient"]
TARGETS = ("label", "predicted", "class_b", "match", "match_share", "match_contrast")
ALL = products_of(CamSettings(methods=tuple(METHODS), targets=TARGETS))


def score_of(target: str, features: xr.Dataset, index: int, context: CamContext):
    """The scalar that a target names, from its definition."""
    if target.startswith("match"):
        group = int(features["reference_group"][index])
        reference = context.targets.reference[group] - (context.targets.rivals[group] if target == "match_contrast" else 0)
        reference = torch.from_numpy(reference).double()

        def similarity(embedding, logit):
            norm = embedding.norm(dim=1, keepdim=True)
            return (embedding / (norm if target == "match" else norm.detach()) * reference).sum(dim=1).mean()

        return similarity
    number = {
        "label": int(features["class_index"][index]),
        "predicted": int(features["logit"].values[index, :-1].mean(axis=0).argmax()),
        "class_b": 1,
    }[target]
    return lambda embedding, logit: logit.mean(dim=0)[number]


def painted(values: np.ndarray, boundary: list[int], side: int) -> np.ndarray:
    heat = np.zeros((side, side))
    for value, outer in reversed(list(zip(values, boundary, strict=True))):
        references.square(heat, outer)[...] = value
    return heat


@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("target", TARGETS)
def test_gradient_maps_match_autograd(sampling, parts, target):
    """Closed forms in float32 against float64 autograd through resampling, pooling and heads."""
    model, count = random_net(sampling, parts, seed=parts), 4
    features, context = feature_block(model, count), context_of(model)
    found = compute_cams(features, [product for product in ALL if product.target == target], context)
    double = model.double()
    for index in range(count):
        at = features.isel(sample=slice(index, index + 1))
        patch = torch.from_numpy(at["patch_map"].values).permute(0, 3, 1, 2).double()
        boundary = torch.from_numpy(at["boundary"].values.astype(np.int64))
        score = score_of(target, features, index, context)
        expected = references.gradient_maps(double, patch, torch.from_numpy(at["theta"].values), boundary, score)
        for position, maps in expected.items():
            for method, heat in maps.items():
                heat = painted(heat, boundary[0].tolist(), 8) if position == "part" else heat.reshape(8, 8)
                actual = found[f"{position}/{target}/{method}"].values[index]
                # float32 products of 16 channels, and float32 theta in the resampling
                np.testing.assert_allclose(actual, heat, atol=2e-5 * np.abs(heat).max(), err_msg=f"{position} {method} sample {index}")


@pytest.mark.parametrize(("name", "definition"), [
    ("l2_norm", lambda cells: np.sqrt((cells.astype(np.float64) ** 2).sum(axis=-1))),
    ("max", lambda cells: cells.max(axis=-1)),
    ("mean", lambda cells: cells.astype(np.float64).mean(axis=-1)),
])  # fmt: skip
def test_statistics_match_their_definition(name, definition):
    features, context = feature_block(random_net(), blocks=(0, 1)), context_of(random_net())
    positions = ("patch", "aligned", "part", "block_1")
    found = compute_cams(features, [Product(position, "none", name) for position in positions], context)
    np.testing.assert_allclose(found[f"patch/none/{name}"], definition(features["patch_map"].values), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[f"aligned/none/{name}"], definition(features["aligned_map"].values), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[f"block_1/none/{name}"], definition(features["block_map"].values[:, 1]), rtol=1e-5, atol=1e-6)
    parts = definition(features["part_feature"].values)
    expected = [painted(row, cuts, 8) for row, cuts in zip(parts, features["boundary"].values.tolist(), strict=True)]
    np.testing.assert_allclose(found[f"part/none/{name}"], expected, rtol=1e-5, atol=1e-6)


def test_formulas_are_exact_in_float64():
    """The same formulas, fed float64: only rounding separates them from the double sums of their definition."""
    rng = np.random.default_rng(0)
    cells, direction, weight = rng.standard_normal((2, 9, 5)), rng.standard_normal((2, 3, 5)), rng.random((2, 3, 9))
    gradient = np.einsum("bpk,bpn->bkn", direction, weight)
    view = CamInput(cells, direction, weight)
    expected = {
        "grad_cam": np.einsum("bk,bnk->bn", gradient.mean(axis=2), cells),
        "hires_cam": np.einsum("bkn,bnk->bn", gradient, cells),
    }
    assert set(expected) == set(GRADIENT), "a gradient method without a twin here"
    for name, heat in expected.items():
        np.testing.assert_allclose(METHODS[name].formula(view), heat, atol=1e-12)


@pytest.mark.parametrize("position", ["patch", "aligned"])
@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
def test_hires_cam_adds_up_to_the_score(position, sampling):
    """Completeness: the cells sum to the mean part logit less its value at a zero map."""
    model = random_net(sampling, parts=4)
    features, context = feature_block(model), context_of(model)
    maps = compute_cams(features, [Product(position, "class_b", "hires_cam")], context)[f"{position}/class_b/hires_cam"]
    constant = np.mean([head.const[1] for head in context.targets.heads])
    score = features["logit"].values[:, :-1, 1].mean(axis=1)
    np.testing.assert_allclose(maps.sum(("y", "x")), score - constant, rtol=1e-4, atol=1e-5)


def test_match_share_adds_up_to_the_cosine():
    """HiResCAM of match_share sums to the mean cosine less what the constant part of the embedding contributes."""
    model = random_net("bilinear", parts=4)
    features, context = feature_block(model), context_of(model)
    maps = compute_cams(features, [Product("aligned", "match_share", "hires_cam")], context)["aligned/match_share/hires_cam"]
    embedding = features["embedding"].values[:, :-1].astype(np.float64)
    norm = np.linalg.norm(embedding, axis=2, keepdims=True)
    reference = context.targets.reference[features["reference_group"].values]
    constant = np.stack([head.embed_const for head in context.targets.heads])
    expected = ((embedding - constant) / norm * reference).sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(maps.sum(("y", "x")), expected, rtol=1e-4, atol=1e-5)


def test_folded_heads_give_the_stored_logits():
    model = random_net(parts=4)
    features, context = feature_block(model), context_of(model)
    for index, head in enumerate(context.targets.heads):
        part = features["part_feature"].values[:, index].astype(np.float64)
        np.testing.assert_allclose(part @ head.embed_matrix.T + head.embed_const, features["embedding"].values[:, index], atol=1e-5)
        np.testing.assert_allclose(part @ head.matrix.T + head.const, features["logit"].values[:, index], atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 3), min_size=1, max_size=7), spatial=st.sampled_from([-1, 3]))
def test_any_chunking_gives_the_same_bits(cuts, spatial):
    model = random_net("bilinear")
    count = sum(cuts)
    features, context = feature_block(model, count), context_of(model)
    whole = compute_cams(features, ALL, context)
    lazy = compute_cams(features.chunk({"sample": tuple(cuts), "x": spatial, "channel": 5}), ALL, context)
    assert set(lazy.chunks) == {"sample", "y", "x"}, "nothing is computed before it is asked for"
    xr.testing.assert_identical(lazy.compute(), whole)


def test_asking_for_one_map_gives_the_same_bits_as_asking_for_all():
    model = random_net()
    features, context = feature_block(model), context_of(model)
    together = compute_cams(features, ALL, context)
    for product in ALL:
        xr.testing.assert_identical(compute_cams(features, [product], context)[product.key], together[product.key])


def test_inputs_are_not_written_into():
    model = random_net()
    features, context = feature_block(model), context_of(model)
    before = features.copy(deep=True)
    compute_cams(features, ALL, context)
    xr.testing.assert_identical(features, before)


def test_samples_without_an_image_or_a_target_are_nan():
    model = random_net()
    undefined = {"valid": np.array([True, False, True]), "class_index": np.array([0, 1, -1]), "reference_group": np.array([-1, 1, 0])}
    found = compute_cams(feature_block(model, 3, **undefined), ALL, context_of(model))
    defined = {key: np.isfinite(found[key].values).all(axis=(1, 2)).tolist() for key in found}
    assert defined["aligned/none/l2_norm"] == [True, False, True]
    assert defined["patch/label/hires_cam"] == [True, False, False]
    assert defined["part/match/grad_cam"] == [False, False, True]
    assert all(np.isnan(found[key].values[1]).all() for key in found)


def test_scaling_the_logit_scales_the_map():
    model = random_net()
    features, context = feature_block(model), context_of(model)
    doubled = [type(head)(head.embed_matrix, head.embed_const, 2 * head.matrix, 2 * head.const) for head in context.targets.heads]
    other = CamContext(TargetContext(doubled, context.targets.class_names), context.sampling)
    for product in (Product("aligned", "label", name) for name in GRADIENT):
        one, two = (compute_cams(features, [product], used)[product.key] for used in (context, other))
        np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


def test_products_are_the_cross_of_the_settings():
    chosen = CamSettings(positions=("aligned", "block_0"), methods=("max", "grad_cam"), targets=("label", "match"))
    assert [product.key for product in products_of(chosen)] == [
        "aligned/label/grad_cam",
        "aligned/match/grad_cam",
        "aligned/none/max",
        "block_0/none/max",
    ]
    assert without_closed_form(chosen) == ["grad_cam at block_0"]
    assert Product.parse("aligned/label/grad_cam") == Product("aligned", "label", "grad_cam")


def test_only_what_is_needed_is_read():
    assert needed_features([Product("aligned", "none", "max")]) == {"valid", "source_cell", "aligned_map"}
    assert "patch_map" not in needed_features([Product("part", "match", "hires_cam")])


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"methods": ("grad_cm",)}, "cam.methods: 'grad_cm' is unknown. Did you mean 'grad_cam'"),
        ({"targets": ("mach",)}, "cam.targets: 'mach' is unknown. Did you mean 'match'"),
        ({"positions": ("alined",)}, "cam.positions: 'alined' is unknown. Did you mean 'aligned'"),
        ({"positions": ("block_x",)}, "cam.positions: 'block_x' is unknown. Did you mean 'block_<i>'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(wrong, text):
    with pytest.raises(ValueError, match=text):
        CamSettings(**wrong)


def test_a_variable_that_was_not_stored_is_named():
    model = random_net()
    features, context = feature_block(model), context_of(model)
    with pytest.raises(ValueError, match="has no aligned_map; it was extracted without it"):
        compute_cams(features.drop_vars("aligned_map"), [Product("aligned", "none", "max")], context)
    with pytest.raises(ValueError, match=r"block_5 is not in the feature store, which holds blocks \[0\]"):
        compute_cams(feature_block(model, blocks=(0,)), [Product("block_5", "none", "max")], context)


def test_the_full_size_golden_maps(tmp_path):
    """Grad-CAM of the mean part logit and per-cell contributions, computed with the published code."""
    torch.save(golden_state(), tmp_path / "net_119.pth")
    model = load_checkpoint(tmp_path / "net_119.pth")
    golden = np.load(Path(__file__).parent / "golden" / "cam_recipe.npz")
    with torch.inference_mode():
        output = model(torch.from_numpy(golden_weights.images(4)[:2]))
    arrays = {
        "aligned_map": output.aligned_map.permute(0, 2, 3, 1),
        "source_cell": output.source_cell,
        "theta": output.theta,
        "boundary": output.boundary,
        "logit": output.logit.transpose(1, 2),
        "embedding": output.embedding.transpose(1, 2),
    }
    features = xr.Dataset({name: (FEATURES[name].dims, value.numpy()) for name, value in arrays.items()})
    features = features.assign(
        {
            name: ("sample", value)
            for name, value in {"valid": [True, True], "class_index": golden["target_class"], "reference_group": [-1, -1]}.items()
        }
    )
    context = CamContext(TargetContext([fold_head(head.arrays()) for head in model.heads[:-1]], [str(c) for c in range(701)]), "nearest")
    found = compute_cams(
        features, products_of(CamSettings(positions=("aligned",), methods=("grad_cam", "hires_cam"), targets=("label", "predicted"))), context
    )
    np.testing.assert_allclose(np.maximum(found["aligned/label/grad_cam"], 0), golden["gradcam_mean_part_logit"], atol=1e-7)
    np.testing.assert_allclose(found["aligned/label/hires_cam"], golden["per_cell_contribution"].mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(found["aligned/predicted/grad_cam"], found["aligned/label/grad_cam"])
