"""Checkpoint files: upstream's in every wrapping, ours, and every kind of bad one."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from safenet import PRESETS, CheckpointError, SafeNet, load_checkpoint, save_checkpoint
from safenet.architecture import Architecture
from safenet.checkpoint import epoch_from_name, load_imagenet_backbone, read_checkpoint, resize_position_embedding

GOLDEN = Path(__file__).parents[1] / "golden"
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
    assert read_checkpoint(path).info.epoch == (3 if "state_dict" in wrapping else 119)


def named(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


def shifted(state):
    """The same names with other weights: a moving average, or a second network."""
    return {key: value + 1 for key, value in state.items()}


# what a file holds, given a state dict; what is taken; what is said to be left out
OTHER_WRAPPINGS = {
    "torch.compile": (lambda state: named("_orig_mod.", state), "top", ()),
    "compiled within DataParallel": (lambda state: named("module._orig_mod.", state), "top", ()),
    "compiled inside": (lambda state: {key.replace("loc_model.", "loc_model._orig_mod."): value for key, value in state.items()}, "top", ()),
    "net": (lambda state: {"net": state}, "net", ()),
    "network": (lambda state: {"network": state}, "network", ()),
    "params": (lambda state: {"params": state}, "params", ()),
    "model_state_dict": (lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {0: {"step": 1}}}}, "model_state_dict", ()),
    "ema alone": (lambda state: {"ema": state}, "ema", ()),
    "DeepSpeed": (lambda state: {"module": state, "optimizer": None}, "module", ()),
    "nested": (lambda state: {"checkpoint": {"model": state}}, "checkpoint.model", ()),
    "four mappings deep": (lambda state: {"a": {"b": {"c": {"d": state}}}}, "a.b.c.d", ()),
    "Lightning": (lambda state: {"state_dict": named("model.", state), "epoch": 4, "hyper_parameters": {"lr": 0.1}}, "state_dict.model", ()),
    "beside a moving average": (lambda state: {"model_ema": shifted(state), "model": state}, "model", ("model_ema",)),
    "beside one by prefix": (lambda state: {**state, **named("ema_model.", shifted(state))}, "top", ("ema_model",)),
    "Lightning with more": (
        lambda state: {"state_dict": {**named("net.", state), "criterion.centre": torch.zeros(2), "temperature": torch.zeros(1)}},
        "state_dict.net",
        ("2 other tensors (criterion.centre, temperature)",),
    ),
    "AveragedModel": (lambda state: {"n_averaged": torch.tensor(3), **named("module.", state)}, "top", ("1 other tensor (n_averaged)",)),
}


@pytest.mark.parametrize("wrapping", OTHER_WRAPPINGS)
def test_what_is_unambiguous_is_taken_and_told(tmp_path, model, wrapping):
    wrapped, taken, left = OTHER_WRAPPINGS[wrapping]
    path = write(tmp_path / "a.pth", wrapped(upstream_state(model)))
    found = read_checkpoint(path, heads=2)
    assert (found.info.taken.name, found.info.taken.left) == (taken, left)
    assert found.info.taken.is_plain == (taken in ("top", "state_dict", "model") and not left)
    loaded = found.build().state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(loaded[key], value)


def test_of_several_networks_one_is_named(tmp_path, model):
    state = upstream_state(model)
    path = write(tmp_path / "a.pth", {"student": state, "teacher": {"net": shifted(state), "ema": shifted(shifted(state))}})
    said = r"holds several networks: student, teacher\.net, teacher\.ema\. Name the one to take: extract\.state_key = 'student'"
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(path, heads=2)
    for key, more in (("student", 0), ("teacher.net", 1), ("net", 1), ("ema", 2)):
        found = load_checkpoint(path, heads=2, state_key=key).state_dict()["transformer.cls_token"]
        torch.testing.assert_close(found, model.state_dict()["transformer.cls_token"] + more)
    assert read_checkpoint(path, heads=2, state_key="ema").info.taken.left == ("student", "teacher.net")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("studnet", r"extract\.state_key: it holds no network 'studnet'\. Did you mean 'student'\? Known: student, teacher\.net, teacher\.ema"),
        ("teacher", r"extract\.state_key = 'teacher' may be any of teacher\.net, teacher\.ema; give the whole name"),
    ],
)
def test_a_name_that_no_network_or_several_have_is_refused(tmp_path, model, key, said):
    state = upstream_state(model)
    path = write(tmp_path / "a.pth", {"student": state, "teacher": {"net": shifted(state), "ema": dict(state)}})
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(path, heads=2, state_key=key)


def test_beside_no_wrapper_an_unknown_tensor_is_still_refused(tmp_path, model):
    for prefix in ("", "module.", "_orig_mod."):
        path = write(tmp_path / "a.pth", named(prefix, {**upstream_state(model), "centre": torch.zeros(2)}))
        with pytest.raises(CheckpointError, match="does not fit Safe-Net: centre is unknown"):
            load_checkpoint(path, heads=2)


def test_one_tensor_under_two_names_is_refused(tmp_path, model):
    state = upstream_state(model)
    path = write(tmp_path / "a.pth", {**state, **named("module.", shifted(state))})
    with pytest.raises(CheckpointError, match=r"holds loc_model\.\S+ and module\.loc_model\.\S+, two tensors of one name"):
        load_checkpoint(path, heads=2)


def test_a_mapping_that_holds_itself_ends(tmp_path, model):
    content = {"model": upstream_state(model)}
    content["again"] = content
    assert read_checkpoint(write(tmp_path / "a.pth", content), heads=2).info.taken.name == "model"


def test_what_a_file_says_of_itself_is_found_beside_the_network(tmp_path, model):
    save_checkpoint(tmp_path / "own.pth", model, epoch=7, class_names=["0001", "0002", "0005"])
    path = write(tmp_path / "a.pth", {"checkpoint": torch.load(tmp_path / "own.pth", weights_only=True)})
    found = read_checkpoint(path).info
    assert (found.epoch, found.class_names, found.architecture.heads) == (7, ("0001", "0002", "0005"), 2)


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


NAMES = {
    "net_119.pth": 119,
    "NET_007.pth": 7,
    "net_119_seed1.pth": 119,
    "seed2-net_119.pth": 119,
    "epoch-29.pt": 29,
    "epoch12.pt": 12,
    "epoch=3-step=100.ckpt": 3,
    "net_2_epoch_5.pth": 5,
    "net_init.pth": None,
    "v2_best.pth": None,
    "7.pth": None,
    "univ1652.pth": None,
    "net_final_20240115.pth": None,
    "subnet_5.pth": None,
    "net_5b.pth": None,
    "net_1_net_2.pth": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_epoch_is_read_off_whole_words_of_the_name_and_nothing_else(name):
    assert epoch_from_name(Path("some.folder12") / name) == NAMES[name]


@pytest.mark.parametrize(("said", "epoch"), [(7, 7), (0, 0), (True, 119), (-1, 119), (7.0, 119), ("7", 119)])
def test_a_whole_number_in_the_file_wins_over_the_name(tmp_path, model, said, epoch):
    path = write(tmp_path / "net_119.pth", {"state_dict": upstream_state(model), "epoch": said})
    assert read_checkpoint(path).info.epoch == epoch


def test_our_own_metadata_win_over_a_number_beside_them(tmp_path, model):
    save_checkpoint(tmp_path / "net_5.pth", model, epoch=-1)
    content = torch.load(tmp_path / "net_5.pth", weights_only=True)
    assert read_checkpoint(write(tmp_path / "net_5.pth", {**content, "epoch": 9})).info.epoch == -1


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
