"""Our maps against pytorch-grad-cam, torch-cam and captum where they are right; and, where they are not, the case that shows it.

The peers get what we have: the stored patch map, behind it FAM, FPM and the part heads as a small network. Their maps come normalised, captum's raw.
"""

import cv2
import numpy as np
import pytest
import torch
from feature_blocks import context_of, feature_block, random_net
from torch import nn

from safenet.alignment import resample
from safenet.partition import pool_rings
from stages.cam.compute import compute_cams
from stages.cam.map_keys import MapKey

pytest.importorskip("pytorch_grad_cam")
pytest.importorskip("torchcam")
pytest.importorskip("captum")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers
CLASS = 1
COUNT = 3


class Tail(nn.Module):
    """From the patch map [B, K, y, x] to the mean part logits [B, C]; `map` is the layer that the peers hook."""

    def __init__(self, model, theta, boundary) -> None:
        super().__init__()
        self.map, self.model, self.theta, self.boundary, self.scale = nn.Identity(), model, theta, boundary, 1.0

    def forward(self, patch):
        patch = self.map(patch)
        repeats = len(patch) // len(self.theta)  # some peers stack altered copies
        aligned = resample(patch, self.theta.repeat(repeats, 1, 1), self.model.architecture.sampling)
        part = pool_rings(aligned, self.boundary.repeat(repeats, 1))
        return torch.stack([head(value)[1] for head, value in zip(self.model.heads[:-1], part.unbind(2), strict=True)]).mean(dim=0) * self.scale


@pytest.fixture
def case():
    return case_of(COUNT)


def case_of(count: int):
    model = random_net("nearest", parts=4, seed=3)
    features = feature_block(model, count)
    patch = torch.from_numpy(features["patch_map"].values).permute(0, 3, 1, 2).contiguous()
    tail = Tail(model, torch.from_numpy(features["theta"].values), torch.from_numpy(features["boundary"].values.astype(np.int64))).eval()
    return model, features, patch, tail


def ours(case, method: str) -> np.ndarray:
    model, features, _, _ = case
    map_key = MapKey("patch", "none" if method == "eigen_cam" else "class_b", method)
    return compute_cams(features, [map_key], context_of(model))[map_key.key].values


def as_gradcam_does(raw: np.ndarray) -> np.ndarray:
    """Its ReLU and scaling: less the minimum, over the maximum plus 1e-7, twice; no resizing at an input as large as the map."""
    found = []
    for heat in np.maximum(raw, 0):
        for _ in range(2):
            heat = heat - heat.min()
            heat = heat / (1e-7 + heat.max())
        found.append(heat)
    return np.stack(found)


def theirs(case, name: str) -> np.ndarray:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    _, _, patch, tail = case
    with getattr(pytorch_grad_cam, name)(model=tail, target_layers=[tail.map]) as peer:
        return peer(input_tensor=patch.clone().requires_grad_(), targets=[ClassifierOutputTarget(CLASS)] * len(patch))


@pytest.mark.parametrize(
    ("method", "name"),
    [("grad_cam", "GradCAM"), ("hires_cam", "HiResCAM"), ("layer_cam", "LayerCAM"), ("element_wise", "GradCAMElementWise")],
)
def test_pytorch_grad_cam_agrees(case, method, name):
    np.testing.assert_allclose(theirs(case, name), as_gradcam_does(ours(case, method)), atol=2e-4)  # float32, and its 1e-7 beside small maxima


@pytest.mark.parametrize(("method", "name"), [("eigen_cam", "EigenCAM"), ("eigen_grad_cam", "EigenGradCAM")])
def test_pytorch_grad_cams_eigen_methods_agree_but_for_the_sign(case, method, name):
    """An eigenvector has no sign: theirs is LAPACK's, ours is stated."""
    raw = ours(case, method)
    choices = [as_gradcam_does(raw), as_gradcam_does(-raw)]
    for sample, heat in enumerate(theirs(case, name)):
        assert min(np.abs(heat - choice[sample]).max() for choice in choices) < 1e-3


def test_pytorch_grad_cams_xgrad_cam_adds_an_epsilon(case):
    """w = sum (g A) / (sum A + 1e-7): the same but where a channel's sum is near zero, and then not by much."""
    np.testing.assert_allclose(theirs(case, "XGradCAM"), as_gradcam_does(ours(case, "xgrad_cam")), atol=5e-3)


def test_pytorch_grad_cams_grad_cam_pp_is_another_formula_for_small_gradients(case):
    """It adds 1e-6 to a denominator of the size of g^2: where ring pooling makes gradients of 1e-4, the epsilon is what decides."""
    _, _, patch, tail = case
    np.testing.assert_allclose(theirs(case, "GradCAMPlusPlus"), as_gradcam_does(ours(case, "grad_cam_pp")), atol=0.05)  # large gradients
    tail.scale = 0.01
    cells = patch.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(tail(cells)[:, CLASS].sum(), cells)
    g, A = (value.detach().numpy().astype(np.float64) for value in (gradient, cells))
    total = A.sum(axis=(2, 3), keepdims=True)
    alpha = np.where(g != 0, g**2 / (2 * g**2 + total * g**3 + 1e-6), 0)
    with_epsilon = ((np.maximum(g, 0) * alpha).sum(axis=(2, 3), keepdims=True) * A).sum(axis=1)
    np.testing.assert_allclose(theirs(case, "GradCAMPlusPlus"), as_gradcam_does(with_epsilon), atol=2e-2)
    exact = ((np.maximum(g, 0) * np.where(g != 0, 1 / (2 + total * g), 0)).sum(axis=(2, 3), keepdims=True) * A).sum(axis=1)
    assert not np.allclose(theirs(case, "GradCAMPlusPlus"), as_gradcam_does(exact), atol=0.05)


def test_pytorch_grad_cams_ablation_cam_does_not_switch_channels_off_here():
    """It sets a channel to the minimum of all activations less 1e7 where that is negative, not to zero: on signed maps no ablation."""
    case = case_of(1)
    expected = as_gradcam_does(ours(case, "ablation_cam"))
    assert not np.allclose(theirs(case, "AblationCAM"), expected, atol=0.05)


@pytest.mark.parametrize(("method", "name"), [("grad_cam", "GradCAM"), ("layer_cam", "LayerCAM"), ("xgrad_cam", "XGradCAM")])
def test_torch_cam_agrees(case, method, name):
    """After its own normalisation: less the minimum, over the maximum, of the ReLU'd map."""
    import torchcam.methods

    _, _, patch, tail = case
    raw = np.maximum(ours(case, method), 0)
    with getattr(torchcam.methods, name)(tail, target_layer="map") as peer:
        scores = tail(patch.clone().requires_grad_())
        (found,) = peer([CLASS] * COUNT, scores)
    expected = np.stack([(heat - heat.min()) / max(heat.max() - heat.min(), 1e-12) for heat in raw])
    np.testing.assert_allclose(found.numpy().reshape(expected.shape), expected, atol=2e-3)


def test_torch_cams_grad_cam_pp_is_not_the_papers(case):
    """0.5 leaves the division by alpha's denominator out of its weights: no oracle."""
    import torchcam.methods

    _, _, patch, tail = case
    raw = np.maximum(ours(case, "grad_cam_pp"), 0)
    with torchcam.methods.GradCAMpp(tail, target_layer="map") as peer:
        (found,) = peer([CLASS] * COUNT, tail(patch.clone().requires_grad_()))
    expected = np.stack([(heat - heat.min()) / (heat.max() - heat.min()) for heat in raw])
    assert not np.allclose(found.numpy().reshape(expected.shape), expected, atol=0.05)


def test_captum_agrees_raw_and_signed(case):
    from captum.attr import LayerGradCam, LayerGradientXActivation

    _, _, patch, tail = case
    targets = [CLASS] * COUNT
    found = LayerGradCam(tail, tail.map).attribute(patch.clone().requires_grad_(), target=targets).detach().numpy()[:, 0]
    np.testing.assert_allclose(found, ours(case, "grad_cam"), rtol=0, atol=1e-5 * np.abs(found).max())
    found = LayerGradientXActivation(tail, tail.map).attribute(patch.clone().requires_grad_(), target=targets).detach().numpy().sum(axis=1)
    np.testing.assert_allclose(found, ours(case, "hires_cam"), rtol=0, atol=1e-5 * np.abs(found).max())


def test_captums_ablation_is_our_token_deletion(case):
    """FeatureAblation of one cell in all channels at a time: y less y without it."""
    from captum.attr import FeatureAblation

    _, _, patch, tail = case
    side = patch.shape[2]
    cells = torch.arange(side * side).view(1, 1, side, side)
    found = FeatureAblation(tail).attribute(patch, target=CLASS, feature_mask=cells).numpy()[:, 0]
    expected = ours(case, "token_deletion")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_resizing_a_map_before_its_relu_is_another_picture(case):
    """Why a peer's map at the photo's size is not ours enlarged by another order of ReLU, scaling and resizing."""
    raw = ours(case, "grad_cam")[0]
    late = np.maximum(cv2.resize(raw, (64, 64)), 0)
    early = cv2.resize(np.maximum(raw, 0), (64, 64))
    assert np.abs(late - early).max() > 0.01 * early.max()
