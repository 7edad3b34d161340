"""Heat maps at transformer blocks: against plain autograd in float64; what else is stored stays as it was; refused before anything is computed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import references
import torch
from feature_blocks import photos, random_net

from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.look.verify import verify
from pipeline.render.stage import render
from safenet.attention import attention_weights
from safenet.preprocess import normalise
from stages.extract.batch import FeatureExtractor
from stages.extract.gradient_plan import plan_gradients
from stages.extract.settings import ExtractSettings

CPU = torch.device("cpu")
TARGETS = ("predicted", "counter.softmax", "label", "class_b.part_2", "label.global", "predicted.whole")
SCORES = {  # of the logits [C, heads], the image's own class
    "predicted": lambda logit, label: logit[:, :-1].mean(dim=1)[logit[:, :-1].mean(dim=1).argmax()],
    "counter.softmax": lambda logit, label: logit[:, :-1].mean(dim=1).softmax(dim=0).sort(descending=True).values[1],
    "label": lambda logit, label: logit[label, :-1].mean(),
    "class_b.part_2": lambda logit, label: logit[1, 1],
    "label.global": lambda logit, label: logit[label, -1],
    "predicted.whole": lambda logit, label: logit[logit[:, :-1].mean(dim=1).argmax()].mean(),
}


def extracted(model, images, label=None, **settings):
    chosen = ExtractSettings(map_dtype="float32", device="cpu", **settings)
    return FeatureExtractor(model, chosen, CPU, ["a", "b", "c"])(images, label)


@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("blocks", [(), (1,), (0, 2)])
def test_maps_are_those_of_autograd(sampling, blocks):
    model, images, label = random_net(sampling, depth=3), photos(3), torch.tensor([2, 0, 1])
    found = extracted(model, images, label, gradient_targets=TARGETS, gradient_blocks=blocks)["block_cam"].numpy()
    double = random_net(sampling, depth=3).double()
    for sample in range(3):
        image = normalise(images[sample : sample + 1])[0].double()
        for row, target in enumerate(TARGETS):
            for column, number in enumerate(blocks or range(3)):
                expected = references.block_heat(double, image, number, lambda logit, t=target, s=sample: SCORES[t](logit, label[s]))
                # at the last block hires_cam cancels to nothing: LayerNorm does not see its input's scale, so that its gradient is orthogonal to it
                scale = max(np.abs(heat).max() for heat in expected.values())
                for method, (name, heat) in enumerate(expected.items()):
                    where = f"{target}, block {number}, {name}"
                    # float32 through three blocks, against float64
                    np.testing.assert_allclose(found[sample, row, column, method], heat, rtol=0, atol=2e-4 * scale + 1e-9, err_msg=where)


def test_the_global_head_reads_nothing_of_the_last_blocks_patches():
    found = extracted(random_net(), photos(2), torch.tensor([0, 1]), gradient_targets=("label.global",))["block_cam"]
    assert not found[:, 0, -1].any()
    assert found[:, 0, 0].abs().max() > 0


def test_other_tensors_keep_their_bits_and_weights_get_no_gradient():
    model, images = random_net("bilinear"), photos(4)
    requested = {"blocks": (0,), "store": ("cls_attention", "rollout", "block_rollout", "flip_embedding")}
    plain = extracted(random_net("bilinear"), images, **requested)
    found = extracted(model, images, gradient_targets=("predicted",), gradient_blocks=(1,), **requested)
    assert set(found) - set(plain) == {"block_cam"}
    for name, values in plain.items():
        assert torch.equal(found[name], values), name
    assert all(weight.grad is None for weight in model.parameters())


def test_batches_do_not_see_each_other():
    model, images, label = random_net(), photos(5), torch.tensor([0, 1, 2, 0, 1])
    together = extracted(model, images, label, gradient_targets=TARGETS)["block_cam"]
    alone = torch.cat([extracted(model, images[[s]], label[[s]], gradient_targets=TARGETS)["block_cam"] for s in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-6)


def test_images_without_the_target_are_nan():
    found = extracted(random_net(), photos(3), torch.tensor([0, -1, 1]), gradient_targets=("label", "predicted"))["block_cam"]
    assert torch.isnan(found[1, 0]).all()
    assert torch.isfinite(found[[0, 2]]).all()
    assert torch.isfinite(found[1, 1]).all()


def test_a_gradient_that_overflows_is_infinite_and_a_target_that_is_not_there_nan():
    """So that a reader can tell the two: within attention, one value that is not finite makes every cell NaN."""
    model = random_net()
    with torch.no_grad():
        model.transformer.blocks[-1].mlp.fc2.weight.mul_(1e38)
    found = extracted(model, photos(2), torch.tensor([0, -1]), gradient_targets=("label",))["block_cam"]
    assert torch.isinf(found[0]).any() and not torch.isnan(found[0]).any()
    assert torch.isnan(found[1]).all()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_gives_nearly_the_same_maps(precision):
    model, images = random_net(), photos(3)
    exact = extracted(model, images, gradient_targets=("predicted",))["block_cam"]
    found = extracted(model, images, gradient_targets=("predicted",), precision=precision)["block_cam"]
    assert found.dtype == torch.float32
    spread = torch.stack([exact.flatten(4), found.flatten(4)]).double()
    cosine = torch.nn.functional.cosine_similarity(spread[0], spread[1], dim=-1)
    assert cosine.min() > 0.9
    np.testing.assert_allclose(spread[1].norm(dim=-1), spread[0].norm(dim=-1), rtol=0.2)  # float16 computes with scaled gradients


def test_rollout_of_each_block_is_the_product_so_far():
    """Abnar and Zuidema 2020, eq. 1, in float64; the last one is the rollout of the whole."""
    model, images = random_net(depth=3), photos(2)
    found = extracted(model, images, store=("rollout", "block_rollout"))
    inputs = []
    for block in model.transformer.blocks:
        block.attn.register_forward_pre_hook(lambda module, args: inputs.append((module, args[0])))
    with torch.no_grad():
        model(normalise(images))
    map_key = torch.eye(65).double().expand(2, -1, -1)
    for number, (layer, tokens) in enumerate(inputs):
        step = attention_weights(layer, tokens).detach().double().mean(dim=1) + torch.eye(65)
        map_key = step / step.sum(dim=-1, keepdim=True) @ map_key
        torch.testing.assert_close(found["block_rollout"][:, number].double(), map_key[:, 0, 1:].reshape(2, 8, 8), rtol=1e-4, atol=1e-7)
    assert torch.equal(found["block_rollout"][:, -1], found["rollout"])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"gradient_targets": ("match",)}, "'match' is a similarity: it needs the embeddings of other images"),
        ({"gradient_targets": ("predictd",)}, "extract.gradient_targets: 'predictd' is unknown. Did you mean 'predicted'"),
        ({"gradient_blocks": (0,)}, "extract.gradient_blocks: no class scores to trace back to them"),
        ({"gradient_targets": ("predicted",), "gradient_blocks": (-1,)}, "extract.gradient_blocks: -1 is not a block"),
    ],
)
def test_wrong_settings_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        ExtractSettings(**settings)


@pytest.mark.parametrize(
    ("targets", "blocks", "names", "text"),
    [
        (("predicted",), (9,), "abc", "block 9 does not exist: the network has blocks 0 to 1"),
        (("predicted.part_3",), (0,), "abc", "part 3 does not exist: the network has parts 1 to 2"),
        (("class_x",), (0,), "abc", "class of 'class_x': 'x' is unknown"),
        (("label",), (0,), "", "'label' needs the names of the 3 training classes"),
        (("counter",), (0,), "a", "'counter' needs a second class; the network has 1. Use 'predicted'"),
    ],
)
def test_what_the_network_does_not_have_is_refused(targets, blocks, names, text):
    with pytest.raises(ValueError, match=text):
        plan_gradients(targets, blocks, random_net(classes=max(1, len(names)) if "counter" in targets else 3).architecture, list(names))


def test_the_label_must_be_given():
    with pytest.raises(ValueError, match="target label needs the class of each image; pass class_index"):
        extracted(random_net(), photos(1), gradient_targets=("label",))


def test_stages_carry_them_to_the_pictures(lab, indexed, tmp_path):
    """extract stores them, cam copies them beside the other maps, a second call computes nothing, verify finds nothing; depth strips are drawn."""
    directory = Path(shutil.copytree(indexed, tmp_path / "run"))
    more = (
        "extract.gradient_targets=['predicted','label.global']",
        "extract.store=['image','cls_attention','block_rollout']",
        "cam.positions=['aligned','block_0','block_1']",
        "cam.methods=['hires_cam','layer_cam','rollout','cls_attention','max']",
        "cam.targets=['predicted','match']",
        "render.mosaics=['depth','methods','pair']",
        "render.methods=['hires_cam','rollout']",
        "render.targets=['predicted']",
    )
    run = lab.run(directory, *more, checkpoints="net_00[02].pth")
    extract(run)
    outcome = cam(run)
    notes = " ".join(outcome.notes)
    assert "left out: hires_cam of match at block_0, layer_cam of match at block_0, hires_cam of match at block_1 and 1 more" in notes
    assert "left out: max at block_0: add 0 to extract.blocks and extract again" in notes
    features, cams = run.features("net_000"), run.cams("net_000")
    stored = features.read(["block_cam", "gradient_target", "gradient_block", "gradient_method", "cls_attention", "block_rollout"])
    assert stored["gradient_target"].values.tolist() == ["predicted", "label.global"]
    assert stored["gradient_method"].values.tolist() == ["grad_cam", "hires_cam", "layer_cam"]
    for number in (0, 1):
        maps = cams.read([f"block_{number}/{key}" for key in ("predicted/hires_cam", "none/rollout", "none/cls_attention")])
        np.testing.assert_array_equal(maps[f"block_{number}/predicted/hires_cam"], stored["block_cam"][:, 0, number, 1])
        np.testing.assert_array_equal(maps[f"block_{number}/none/rollout"], stored["block_rollout"][:, number])
        attention = stored["cls_attention"].values[:, number].astype(np.float32).mean(axis=1)
        np.testing.assert_array_equal(maps[f"block_{number}/none/cls_attention"], attention)
    again = lab.run(directory, *more, checkpoints="net_00[02].pth")
    assert (extract(again).computed, cam(again).computed) == (0, 0)
    assert verify(again).faults == []
    drawn = render(again)
    assert drawn.computed == 5, "depth of two methods, methods of two images, one pair"
    assert render(lab.run(directory, *more, checkpoints="net_00[02].pth")).computed == 0


def test_a_resumed_extraction_gives_the_same_bits(lab, indexed, tmp_path):
    more = ("extract.gradient_targets=['predicted']", "extract.gradient_blocks=[1]")
    runs = [lab.run(Path(shutil.copytree(indexed, tmp_path / name)), *more, checkpoints="net_001.pth") for name in ("one", "two")]
    for run in runs:
        extract(run)
    second = runs[1].features("net_001")
    second.ledger.forget(second.blocks[2])
    second.ledger.forget_whole()
    assert extract(lab.run(tmp_path / "two", *more, checkpoints="net_001.pth")).computed == 1
    one, two = (run.features("net_001").read(["block_cam"])["block_cam"].values for run in runs)
    np.testing.assert_array_equal(one, two)
