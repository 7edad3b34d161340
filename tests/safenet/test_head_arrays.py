"""The heads in NumPy: torch's twin, the fold, and heads as training starts from them."""

import numpy as np
import pytest
import torch

from safenet.architecture import PRESETS
from safenet.head_arrays import HEAD_ARRAYS, draw_head, embed_head, fold_head, run_behind_bottleneck, run_head, run_head_backward
from safenet.heads import Head, build_head

SIZES = (16, 8, 5)  # width, embedding, classes


def lively_head(activation: str) -> Head:
    torch.manual_seed(0)
    head = Head(*SIZES, activation)
    with torch.no_grad():
        for values in (head.add_block[1].weight, head.add_block[1].bias, head.add_block[1].running_mean, head.classifier[0].weight):
            values.normal_()
        head.add_block[1].running_var.uniform_(0.3, 2)
    return head.eval()


FEATURE = np.random.default_rng(0).standard_normal((7, SIZES[0])).astype(np.float32)


@pytest.mark.parametrize("activation", ["none", "leaky_relu"])
def test_a_head_gives_what_torchs_does(activation):
    arrays = lively_head(activation).arrays()
    with torch.no_grad():
        expected = build_head(arrays, activation, torch.float64)(torch.from_numpy(FEATURE.astype(np.float64)))
    for found, value in zip(run_head(arrays, activation, FEATURE), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=0, atol=1e-13)  # float64 sums of 16 terms
        assert activation == "none" or (found < 0).any(), "the activation has something to do"
    np.testing.assert_array_equal(embed_head(arrays, activation, FEATURE), run_head(arrays, activation, FEATURE)[0])


def test_a_folded_head_is_the_head():
    arrays = lively_head("none").arrays()
    folded, (embedding, logit) = fold_head(arrays), run_head(arrays, "none", FEATURE)
    np.testing.assert_allclose(FEATURE @ folded.embed_matrix.T + folded.embed_const, embedding, rtol=0, atol=1e-13)
    np.testing.assert_allclose(FEATURE @ folded.matrix.T + folded.const, logit, rtol=0, atol=1e-13)


def test_a_drawn_head_has_the_distributions_that_training_starts_from():
    network = PRESETS["small"]
    torch.manual_seed(0)
    theirs = Head(network.width, network.embedding, network.classes).arrays()
    ours = draw_head(network, np.random.default_rng(0))
    assert list(ours) == list(HEAD_ARRAYS)
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape and ours[name].dtype == expected.dtype
        if name in ("w1", "w2"):
            assert abs(ours[name].mean()) < 5 * expected.std() / expected.size**0.5
            assert ours[name].std() == pytest.approx(expected.std(), rel=0.02)  # of 50,000 values and more
            assert not np.array_equal(ours[name], expected)
        else:
            np.testing.assert_array_equal(ours[name], expected)


@pytest.mark.parametrize("activation", ["none", "leaky_relu"])
@pytest.mark.parametrize("output", ["embedding", "logit"])
def test_a_gradient_goes_back_as_by_autograd(activation, output):
    arrays = lively_head(activation).arrays()
    value = torch.tensor(FEATURE, dtype=torch.float64, requires_grad=True)
    given = build_head(arrays, activation, torch.float64)(value)[output == "logit"]
    gradient = np.random.default_rng(1).standard_normal(given.shape)
    (expected,) = torch.autograd.grad(given, value, torch.from_numpy(gradient))
    np.testing.assert_allclose(run_head_backward(arrays, activation, FEATURE, output, gradient), expected, rtol=0, atol=1e-13)


def test_a_head_can_be_run_from_behind_its_first_product():
    arrays = lively_head("leaky_relu").arrays()
    hidden = FEATURE @ arrays["w1"].T.astype(np.float64)
    before = hidden.copy()
    for found, expected in zip(run_behind_bottleneck(arrays, "leaky_relu", hidden), run_head(arrays, "leaky_relu", FEATURE), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(hidden, before)
