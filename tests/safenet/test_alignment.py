"""FAM: source cells, both samplings, and the adjoint that carries gradients back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from safenet.alignment import LocNet, resample, resample_adjoint, source_cells

GOLDEN = Path(__file__).parents[1] / "golden"
IDENTITY = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])


def thetas(count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return IDENTITY + 0.3 * torch.randn(count, 2, 3, generator=generator)


def test_source_cells_match_the_golden_ones():
    """Eight warps, half-pixel ties included; made by running the published code."""
    golden = np.load(GOLDEN / "fam_source_index.npz")
    np.testing.assert_array_equal(source_cells(torch.from_numpy(golden["theta"]), (16, 16)), golden["source_token_index"])


def test_nearest_resampling_copies_the_source_cells():
    features = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    copied = features.flatten(2).gather(2, source_cells(thetas(), (8, 8)).flatten(1)[:, None].expand(-1, 4, -1)).view_as(features)
    assert torch.equal(resample(features, thetas(), "nearest"), copied)


@pytest.mark.parametrize("scale", [0.9335, 1.0, 1.0768])
def test_small_scales_move_no_cell(scale):
    """Why FAM is an exact no-op in the published code: its theta shrinks to 0.9935 at most."""
    theta = IDENTITY * scale
    assert source_cells(theta, (16, 16)).flatten().tolist() == list(range(256))


@pytest.mark.parametrize("scale", [0.933, 1.078])
def test_larger_scales_move_some(scale):
    assert source_cells(IDENTITY * scale, (16, 16)).flatten().tolist() != list(range(256))


@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
def test_adjoint_is_the_transpose_of_the_resampling(sampling):
    generator = torch.Generator().manual_seed(1)
    features, weights = (torch.randn(6, 2, 7, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    forward = (resample(features, thetas(), sampling) * weights).sum()
    backward = (features * resample_adjoint(weights, thetas(), sampling)).sum()
    torch.testing.assert_close(forward, backward, rtol=1e-12, atol=1e-12)  # float64 sums of 600 terms


@pytest.mark.parametrize(("sampling", "learns"), [("nearest", False), ("bilinear", True)])
def test_only_bilinear_sampling_teaches_the_localisation_network(sampling, learns):
    torch.manual_seed(0)
    net = LocNet(12, 8)
    features = torch.randn(3, 5, 8, 8)
    resample(features, net(torch.randn(3, 12)), sampling).square().sum().backward()
    gradient = net.fc_loc[2].weight.grad
    assert gradient is not None, "a zero gradient, not none: weight decay still reaches the weights, as upstream"
    assert bool(gradient.abs().max() > 0) is learns


def test_the_localisation_network_starts_at_the_identity():
    assert torch.equal(LocNet(6, 4)(torch.randn(2, 6)), IDENTITY.expand(2, -1, -1))
