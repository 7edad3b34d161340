"""Checkpoint files: upstream's in every wrapping, ours, and every kind of bad one."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from safenet import PRESETS, CheckpointError, SafeNet, load_checkpoint, save_checkpoint
from safenet.architecture import Architecture
from safenet.checkpoint import epoch_from_name, load_imagenet_backbone, read_checkpoint, resize_position_embedding

GOLDEN = Path(__file__).parent / "golden"
TINY = PRESETS["tiny"]


@pytest.fixture
def model():
    torch.manual_seed(1)
    return SafeNet(TINY).eval()


def upstream_state(model):
    state = {f"loc_model.{key}": value for key, value in model.state_dict().items()}
    state["loc_model.transformer.fc.weight"], state["loc_model.transformer.fc.bias"] = torch.zeros(1000, 16), torch.zeros(1000)
    return state


def write(path, content):
    torch.save(content, path)
    return path


WRAPPINGS = {
    "plain": lambda state: state,
    "bare inner model": lambda state: {key.removeprefix("loc_model."): value for key, value in state.items()},
    "several GPUs": lambda state: {f"module.{key}": value for key, value in state.items()},
    "under state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "under model": lambda state: {"model": state},
    "without the unused head": lambda state: {key: value for key, value in state.items() if ".fc." not in key},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_upstream_files_load(tmp_path, model, wrapping):
    path = write(tmp_path / "net_119.pth", WRAPPINGS[wrapping](upstream_state(model)))
    loaded = load_checkpoint(path, heads=2)
    assert loaded.architecture == Architecture(**{**TINY.as_dict(), "drop_path": 0.1})
    assert not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert read_checkpoint(path).info.epoch == 119


def test_own_files_come_back_whole(tmp_path, model):
    architecture = Architecture(**{**TINY.as_dict(), "sampling": "bilinear", "drop_path": 0.0})
    model = SafeNet(architecture).eval()
    save_checkpoint(tmp_path / "a.pth", model, epoch=7, metrics={"loss": 0.5}, class_names=["0001", "0002", "0005"])
    found = read_checkpoint(tmp_path / "a.pth")
    assert found.info.architecture == architecture
    assert (found.info.epoch, found.info.metrics, found.info.class_names) == (7, {"loss": 0.5}, ("0001", "0002", "0005"))
    image = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(found.build()(image).embedding, model(image).embedding)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"], "no temporary file is left"


def test_saved_names_are_upstreams(tmp_path):
    """The 145 names of the published file, of which only the sizes differ here."""
    import json

    model = SafeNet(Architecture(**{**TINY.as_dict(), "depth": 8, "parts": 4}))
    save_checkpoint(tmp_path / "a.pth", model)
    state = torch.load(tmp_path / "a.pth", weights_only=True)["state_dict"]
    assert set(state) == set(json.loads((GOLDEN / "state_dict_keys.json").read_text()))


def test_loading_leaves_the_seed_alone(tmp_path, model):
    path = write(tmp_path / "a.pth", upstream_state(model))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_checkpoint(path, heads=2)
    assert torch.equal(torch.rand(1), expected)


class Code:
    """Unpickling this would run it."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def bad_files(path, model):
    state = upstream_state(model)
    whole = path.with_name("whole.pth")
    torch.save(state, whole)
    without = {key: value for key, value in state.items() if not key.endswith("blocks.1.norm2.bias")}
    other_shape = {**state, "loc_model.loc_net.fc_loc.2.bias": torch.zeros(5)}
    return {
        "truncated": (whole.read_bytes()[: whole.stat().st_size // 2], "damaged or truncated"),
        "empty": (b"", "damaged"),
        "text": (b"not a checkpoint at all", "not a PyTorch checkpoint, or damaged"),
        "foreign": ({"features.0.weight": torch.zeros(3)}, r"not a Safe-Net checkpoint: no transformer\.cls_token; it holds features\.0\.weight"),
        "a list": ([torch.zeros(1)], "holds a list; expected a state dict"),
        "missing": (without, r"does not fit Safe-Net: transformer\.blocks\.1\.norm2\.bias is missing"),
        "unknown": ({**state, "loc_model.extra": torch.zeros(1)}, "does not fit Safe-Net: extra is unknown"),
        "shape": (other_shape, r"loc_net\.fc_loc\.2\.bias has shape \(5,\), expected \(6,\)"),
        "no head": ({k: v for k, v in state.items() if "classifier.0.weight" not in k}, "not a whole Safe-Net checkpoint: global_classifier"),
        "parts": ({k: v for k, v in state.items() if "part_classifier2" not in k and "part_classifier1" not in k}, "parts is 0"),
    }


@pytest.mark.parametrize("fault", ["truncated", "empty", "text", "foreign", "a list", "missing", "unknown", "shape", "no head", "parts"])
def test_bad_files_are_named_in_one_line(tmp_path, model, fault):
    content, text = bad_files(tmp_path / "x", model)[fault]
    path = tmp_path / "bad.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=text) as caught:
        load_checkpoint(path, heads=2)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_code_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"transformer.cls_token": Code()}, "evil.pth")
    Path("old.pth").write_bytes(pickle.dumps({"transformer.cls_token": Code()}))
    for name in ("evil.pth", "old.pth"):
        with pytest.raises(CheckpointError, match=r"pickled objects other than tensors; they are never run|not a PyTorch checkpoint"):
            load_checkpoint(name)
    assert not Path("ran").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: no such checkpoint file"):
        load_checkpoint(tmp_path / "absent.pth")


@pytest.mark.parametrize(("name", "epoch"), [("net_119.pth", 119), ("epoch-29.pt", 29), ("7.pth", 7), ("net_init.pth", None), ("v2_best.pth", None)])
def test_epoch_is_read_off_the_name(name, epoch):
    assert epoch_from_name(Path(name)) == epoch


def test_position_embedding_resize_matches_the_golden():
    golden = np.load(GOLDEN / "pos_embed_resize.npz")
    np.testing.assert_allclose(resize_position_embedding(torch.from_numpy(golden["src"]), 16), golden["dst"], atol=1e-6)


def test_imagenet_weights_are_taken_by_upstreams_rules(tmp_path, model):
    """Unwraps, skips heads, resizes the position embedding, reshapes a flat kernel, names what does not fit."""
    torch.manual_seed(9)
    donor = {key: torch.randn_like(value) for key, value in model.transformer.state_dict().items()}
    flat = {**donor, "pos_embed": torch.randn(1, 17, 16), "patch_embed.proj.weight": donor["patch_embed.proj.weight"].flatten(1)}
    path = write(tmp_path / "imagenet.pth", {"model": {**flat, "head.weight": torch.zeros(1), "norm.weight": torch.zeros(3), "odd": torch.zeros(1)}})
    before = model.transformer.norm.weight.clone()
    assert load_imagenet_backbone(model, path) == ["norm.weight", "odd"]
    assert torch.equal(model.transformer.patch_embed.proj.weight, donor["patch_embed.proj.weight"])
    assert torch.equal(model.transformer.norm.weight, before)
    torch.testing.assert_close(model.transformer.pos_embed.data, resize_position_embedding(flat["pos_embed"], 8))
