"""The whole network against the goldens, made by running the published code with `golden_weights`."""

import json

import golden_weights
import numpy as np
import pytest
import torch
from golden_model import GOLDEN, golden_state

from safenet import PRESETS, Architecture, SafeNet, load_checkpoint
from safenet.attention import AttentionRecorder
from safenet.model import descriptor

ATOL = 1e-4  # float32 through eight blocks; batch 4 against batch 1 alone differs by 2e-6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("golden") / "net_119.pth"
    torch.save(golden_state(), path)
    return load_checkpoint(path)


@pytest.fixture(scope="module")
def output(model):
    with torch.inference_mode():
        return model(torch.from_numpy(golden_weights.images(4)))


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "small_recipe.npz")


def test_architecture_is_inferred(model):
    assert model.architecture == Architecture()


@pytest.mark.parametrize(
    ("field", "entry"),
    [
        ("theta", "theta"),
        ("saliency", "saliency"),
        ("part_feature", "part_features"),
        ("embedding", "eval_output"),
        ("logit", "logits"),
        ("global_feature", "global_feature"),
    ],
)
def test_outputs_match(output, golden, field, entry):
    np.testing.assert_allclose(getattr(output, field), golden[entry], atol=ATOL)


def test_tokens_match(output, golden):
    np.testing.assert_allclose(output.tokens[:, :, :4], golden["tokens_first4dims"], atol=ATOL)


def test_boundaries_match_exactly(output, golden):
    np.testing.assert_array_equal(output.boundary, golden["boundaries"])


def test_aligned_map_matches(output, golden):
    np.testing.assert_allclose(output.aligned_map.norm(dim=1), golden["aligned_l2"], atol=ATOL)
    np.testing.assert_allclose(output.aligned_map.sum(dim=1), golden["aligned_sum"], atol=10 * ATOL)  # a sum of 768 terms
    np.testing.assert_allclose(output.aligned_map.amax(dim=1), golden["aligned_max"], atol=ATOL)


def test_flip_descriptor_matches(model, output, golden):
    with torch.inference_mode():
        flipped = model(torch.from_numpy(golden_weights.images(4)).flip(3))
    found = descriptor(output.embedding + flipped.embedding)
    np.testing.assert_allclose(found, golden["descriptor_flip_tta"], atol=ATOL)
    np.testing.assert_allclose(found.norm(dim=1), 1, rtol=1e-5)


def test_parameters_are_counted_as_published(model):
    """52,671,519 entries upstream, of which 769,000 are the 1000-class head that is never called."""
    entries = json.loads((GOLDEN / "state_dict_keys.json").read_text())
    unused = sum(np.prod(entry["shape"]) for key, entry in entries.items() if ".transformer.fc." in key)
    assert sum(parameter.numel() for parameter in model.parameters()) == 52_671_519 - unused


def test_other_image_size_is_refused(model):
    with pytest.raises(ValueError, match=r"images are \(3, 128, 128\); this network reads \(3, 256, 256\)"):
        model(torch.zeros(1, 3, 128, 128))


def tiny(**sizes) -> SafeNet:
    torch.manual_seed(0)
    return SafeNet(Architecture(**{**PRESETS["tiny"].as_dict(), **sizes})).eval()


def test_block_maps_are_the_blocks_outputs():
    model = tiny()
    images = torch.randn(2, 3, 32, 32)
    seen = []
    model.transformer.blocks[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    output = model(images, blocks=(1,))
    assert list(output.block_maps) == [1]
    expected = seen[0][:, 1:].transpose(1, 2).reshape(2, 16, 8, 8)
    torch.testing.assert_close(output.block_maps[1], expected)
    with pytest.raises(ValueError, match="block 2 does not exist: the network has blocks 0 to 1"):
        model(images, blocks=(2,))


def test_autocast_leaves_the_decisions_in_float32():
    model = tiny(sampling="bilinear")
    images = torch.randn(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        low = model(images)
    with torch.inference_mode():
        full = model(images)
    assert {getattr(low, name).dtype for name in ("theta", "saliency", "part_feature", "embedding", "logit")} == {torch.float32}
    torch.testing.assert_close(low.embedding, full.embedding, rtol=0.1, atol=0.1)  # bfloat16 keeps 8 bits


def test_fused_and_explicit_attention_agree():
    model = tiny(depth=3)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        fused = model(images).tokens
        for block in model.transformer.blocks:
            block.attn.fused_attn = False
        torch.testing.assert_close(model(images).tokens, fused, rtol=1e-4, atol=1e-5)  # another order of float32 sums


def test_recorded_attention_is_that_of_the_forward_pass():
    """CLS rows and rollout against the attention matrices that the unfused layers really use."""
    model = tiny(depth=3)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode(), AttentionRecorder(model) as recorder:
        model(images)
    matrices = []
    for block in model.transformer.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: matrices.append(output))
    with torch.inference_mode():
        model(images)
    rollout = torch.eye(65)
    for matrix in matrices:
        step = matrix.mean(dim=1) + torch.eye(65)
        rollout = (step / step.sum(dim=-1, keepdim=True)) @ rollout
    expected_rows = torch.stack([matrix[:, :, 0, 1:].reshape(2, 2, 8, 8) for matrix in matrices], dim=1)
    torch.testing.assert_close(recorder.cls_attention, expected_rows, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(recorder.rollout, rollout[:, 0, 1:].reshape(2, 8, 8), rtol=1e-4, atol=1e-6)


def test_recording_ends_with_its_block():
    model = tiny()
    with torch.inference_mode(), AttentionRecorder(model) as recorder:
        model(torch.randn(1, 3, 32, 32))
    kept = recorder.cls_attention
    with torch.inference_mode():
        model(torch.randn(1, 3, 32, 32))
    assert torch.equal(recorder.cls_attention, kept)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"parts": 3}, "parts is 3; expected a power of two, at most 4"),
        ({"width": 15}, "width 15 is not a multiple of heads 2"),
        ({"sampling": "cubic"}, "sampling is 'cubic'; expected one of nearest, bilinear"),
        ({"image_size": 4}, "image_size 4 px holds fewer than 2 x 2 patches of 4 px"),
    ],
)
def test_contradicting_sizes_are_refused(sizes, text):
    with pytest.raises(ValueError, match=text):
        Architecture(**{**PRESETS["tiny"].as_dict(), **sizes})


def test_l2_norm_is_flat_at_initialisation():
    """The map is a LayerNorm's output: every token has norm sqrt(width)."""
    norm = tiny()(torch.randn(2, 3, 32, 32)).patch_map.norm(dim=1)
    np.testing.assert_allclose(norm.detach(), 4.0, rtol=1e-4)


def test_the_global_head_does_not_see_the_aligned_map():
    model = tiny()
    output = model(torch.randn(1, 3, 32, 32))
    (of_global,) = torch.autograd.grad(output.logit[0, :, -1].sum(), output.aligned_map, retain_graph=True)
    (of_part,) = torch.autograd.grad(output.logit[0, :, 0].sum(), output.aligned_map)
    assert (of_global == 0).all()
    assert (of_part != 0).any()
