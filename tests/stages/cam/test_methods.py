"""Every heat map against its definition by autograd; completeness; what coincides with what."""

import numpy as np
import pytest
import references
import torch
from feature_blocks import context_of, feature_block, random_net

from stages.cam.compute import CamContext, compute_cams
from stages.cam.gradients import CellWeights, DenseGradient, FactoredGradient
from stages.cam.map_keys import map_keys_of
from stages.cam.methods import METHODS, CamInput, Cells
from stages.cam.names import METHOD_NAMES, POSITION_NAMES
from stages.cam.positions import POSITIONS
from stages.cam.settings import CamSettings
from stages.targets.head_weights import head_weights
from stages.targets.names import NO_TARGET, parse_target
from stages.targets.references import reference_name
from stages.targets.scores import CellRemoval, ChannelRemoval
from stages.targets.scoring import RIVAL_WEIGHT, class_of, open_score, rival_direction

AT_MAPS = tuple(name for name, method in METHODS.items() if method.where != "blocks")
EVERYWHERE = tuple(name for name in AT_MAPS if METHODS[name].where != "aligned")
GRADIENT = tuple(name for name in AT_MAPS if METHODS[name].kind == "gradient")
TARGETS = (
    "label",
    "predicted.part_2",
    "counter",
    "class_b.whole",
    "class_b.softmax",
    "class_c.part_1.softmax",
    "match",
    "match_share.part_1",
    "match_contrast",
    "best.flip",
    "best_share.whole",
    "pair_x/1.jpg.whole",
)
ALL = map_keys_of(CamSettings(methods=AT_MAPS, targets=TARGETS))
IN_FLOAT32 = {"grad_cam_pp": 1e-3, "xgrad_cam": 1e-4, "ablation_cam": 1e-4, "token_deletion": 1e-4}  # they divide, or take what is left


def test_settings_know_every_method_and_position_by_name():
    assert tuple(METHODS) == METHOD_NAMES
    assert tuple(POSITIONS) == POSITION_NAMES


def definition(target: str, features, index: int, context: CamContext, role: str = "own", rank: int = 0):
    """The scalar that a target names, and (role "rivals") those of its rivals, from its definition."""
    name = parse_target(target)
    weights = head_weights(name, context.targets.heads.count)
    block = {str(key): features[key].values for key in features}
    if name.row.kind == "class":
        number = int(class_of(block, name, context.targets)[index])
        if role == "rivals":
            rows = np.concatenate(list(context.targets.classifiers), axis=1)
            likeness = [rows[number] @ row / np.linalg.norm(rows[number]) / np.linalg.norm(row) for row in rows]
            others = sorted((other for other in range(len(rows)) if other != number), key=lambda other: -likeness[other])
            number = others[rank]
        return references.class_score(number, weights, block["logit"][index, -1], name.softmax)
    reference = block[reference_name(name, role)][index].astype(np.float64)
    if name.row.reading == "contrast" and role == "own":
        reference = reference - block[reference_name(name, "all")][index]
    flip = block["flip_embedding"][index] if name.flip else None
    return references.cosine_score(reference, weights, block["embedding"][index], flip, name.row.reading != "gradient")


def rivals_of(target: str, features, index: int, context: CamContext) -> list:
    count = 1 if parse_target(target).row.kind == "similarity" else len(context.targets.class_names) - 1
    return [definition(target, features, index, context, "rivals", rank) for rank in range(count)]


def tail_of(double, features, index: int, position: str) -> references.Tail:
    patch = torch.from_numpy(features["patch_map"].values[index : index + 1]).permute(0, 3, 1, 2).double()
    boundary = torch.from_numpy(features["boundary"].values[index : index + 1].astype(np.int64))
    return references.Tail(double, position, patch, torch.from_numpy(features["theta"].values[index : index + 1]), boundary)


def painted(values: np.ndarray, boundary: list[int], side: int) -> np.ndarray:
    heat = np.zeros((side, side))
    for value, outer in reversed(list(zip(values, boundary, strict=True))):
        references.square(heat, outer)[...] = value
    return heat


def test_settings_know_every_position_by_name():
    assert tuple(POSITIONS) == POSITION_NAMES


@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("target", TARGETS)
def test_every_map_matches_its_definition(sampling, parts, target):
    """Closed forms in float32 against float64 autograd and one-by-one removal, through resampling, pooling and heads."""
    compare_with_definition(random_net(sampling, parts, seed=parts), target)


@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("kind", [("leaky_relu", "mean"), ("none", "max"), ("leaky_relu", "max")], ids="-".join)
@pytest.mark.parametrize("target", ["predicted", "class_b.part_2.softmax", "match.flip", "match_share"])
def test_heads_without_a_closed_form_fall_back_to_autograd(kind, sampling, target):
    """The same calls, the same definitions: an activation in the heads, or parts that are channel maxima."""
    compare_with_definition(random_net(sampling, 2, seed=1, head_activation=kind[0], pooling=kind[1]), target)


def compare_with_definition(model, target: str) -> None:
    count = 2
    map_keys = map_keys_of(CamSettings(methods=AT_MAPS, targets=(target,)))
    features, context = feature_block(model, count, map_keys=map_keys), context_of(model)
    found = compute_cams(features, map_keys, context)
    double = model.double()
    for index in range(count):
        score, rivals = definition(target, features, index, context), rivals_of(target, features, index, context)
        for position in POSITION_NAMES:
            tail = tail_of(double, features, index, position)
            for map_key in (p for p in map_keys if p.position == position):
                heat = references.heat(map_key.method, tail, score, rivals)
                boundary = features["boundary"].values[index].tolist()
                heat = painted(heat, boundary, 8) if position == "part" else heat.reshape(8, 8)
                # float32 sums over 16 channels and 64 cells; denominators near zero magnify them; rounding of theta in the resampling
                tolerance = IN_FLOAT32.get(map_key.method, 1e-5)
                actual = found[map_key.key].values[index]
                np.testing.assert_allclose(actual, heat, atol=tolerance * np.abs(heat).max(), err_msg=f"{map_key.key} sample {index}")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("parts", [2, 4])
def test_formulas_are_exact_in_float64(parts, target):
    """The same formulas fed float64: only rounding separates them from their definition."""
    model = random_net("nearest", parts, seed=parts + 7)
    map_keys = [p for p in ALL if p.target in (target, NO_TARGET)]
    features, context = feature_block(model, 2, map_keys=map_keys), context_of(model)
    block = {str(name): features[name].values for name in features}
    name, double = parse_target(target), model.double()
    for index in range(2):
        tails = {position: tail_of(double, features, index, position) for position in POSITION_NAMES}
        part = tails["part"].value[None].numpy()
        embedding, logit = (value.detach().numpy()[None] for value in tails["part"](tails["part"].value))
        exact = {key: value[index : index + 1] for key, value in block.items()}
        exact = {key: value.astype(np.float64) if value.dtype.kind == "f" else value for key, value in exact.items()}
        exact["embedding"] = np.concatenate([embedding, exact["embedding"][:, -1:]], axis=1)
        exact["logit"] = np.concatenate([logit, exact["logit"][:, -1:]], axis=1)
        score = open_score(exact, name, context.targets)
        one = features.assign({key: (features[key].dims, np.repeat(exact[key], 2, axis=0)) for key in ("embedding", "logit")})
        expected, rivals = definition(target, one, index, context), rivals_of(target, one, index, context)
        for position, tail in tails.items():
            cells = Cells(tail.value[None].numpy())
            weights = CellWeights(exact_weights(exact, position))
            contrast = score.direction - RIVAL_WEIGHT * rival_direction(exact, name, context.targets)
            gradient, other = (
                FactoredGradient(cells.values, direction, weights, lambda cells=cells: cells.magnitude) for direction in (score.direction, contrast)
            )
            view = CamInput(cells, gradient, score, other, ChannelRemoval(part), CellRemoval(cells.values, weights.values))
            for method in EVERYWHERE:
                made = METHODS[method].formula(view)
                made = (cells.values @ made[:, :, None])[:, :, 0] if METHODS[method].gives == "weights" else made
                heat = references.heat(method, tail, expected, rivals)
                # sums of up to 64 x 16 float64 terms; a denominator near zero magnifies their rounding
                tolerance = 1e-9 if method in ("grad_cam_pp", "xgrad_cam", "ablation_cam") else 1e-12
                np.testing.assert_allclose(made[0], heat, rtol=0, atol=tolerance * max(1, np.abs(heat).max()), err_msg=f"{method} at {position}")


def exact_weights(block, position: str) -> np.ndarray:
    """T_p of one sample in float64, the transpose of nearest sampling as a plain loop."""
    of_aligned = POSITIONS["part" if position == "part" else "aligned"].open(block, "nearest", "mean", True).weights.values.astype(np.float64)
    if position != "patch":
        return of_aligned
    found = np.zeros_like(of_aligned)
    for cell, source in enumerate(block["source_cell"].ravel()):
        found[0, :, source] += of_aligned[0, :, cell]
    return found


def test_dense_and_factored_gradients_agree():
    """The two forms of a gradient answer alike, cells that count in several parts included."""
    rng = np.random.default_rng(0)
    cells, direction = rng.standard_normal((3, 9, 5)), rng.standard_normal((3, 2, 5))
    weights = CellWeights(rng.random((3, 2, 9)) * (rng.random((3, 2, 9)) > 0.5))
    assert len(weights.mixed[0]), "no cell counts in two parts"
    factored = FactoredGradient(cells, direction, weights, lambda: np.abs(cells))
    dense = DenseGradient(cells, np.einsum("bpk,bpn->bnk", direction, weights.values))
    for question in ("mean", "contribution", "absolute_contribution", "magnitude_contribution", "channel_contribution", "products"):
        np.testing.assert_allclose(getattr(factored, question), getattr(dense, question), atol=1e-13, err_msg=question)
    squares = [gradient.sum_over_cells(lambda g, sample: g**2 * (sample + 1)) for gradient in (factored, dense)]
    np.testing.assert_allclose(*squares, atol=1e-13)
