"""Bad checkpoints, as docs/bad-input.md lists them: refused in one line before anything is computed, and no code of theirs ever runs."""

import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.extract.stage import extract
from safenet import PRESETS, CheckpointError, SafeNet, load_checkpoint, save_checkpoint
from safenet.checkpoint import METADATA_KEY, load_imagenet_backbone

WEIGHT = "loc_model.transformer.blocks.0.mlp.fc1.weight"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """What a file of ours holds, as `torch.load` gives it."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("own") / "net_001.pth"
    save_checkpoint(path, SafeNet(PRESETS["tiny"]), epoch=1, class_names=["a", "b", "c"])
    return torch.load(path, weights_only=True)


@pytest.fixture
def bad(tmp_path):
    return tmp_path / "bad.pth"


def changed(own, state=(), **metadata):
    """A copy of a file's content with other tensors and metadata."""
    return {"state_dict": {**own["state_dict"], **dict(state)}, METADATA_KEY: {**own[METADATA_KEY], **metadata}}


def refused(path, said, **options):
    """Load, and expect one line that names the file."""
    with pytest.raises(CheckpointError, match=said) as caught:
        load_checkpoint(path, **options)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


# ---- damaged bytes


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_file_cut_at_any_length_is_refused(own, bad, is_archive):
    """Both forms of `torch.save`: an archive, and the older row of pickles."""
    torch.save(own, bad, _use_new_zipfile_serialization=is_archive)
    content = bad.read_bytes()
    for length in sorted({*range(130), *range(0, len(content), len(content) // 100), *(len(content) - cut for cut in (1, 2, 8, 22, 100))}):
        bad.write_bytes(content[:length])
        refused(bad, r"damaged or truncated \([\d,]+ bytes\)|not a PyTorch checkpoint, or damaged|never run .*copy it again if it is one")


def test_a_file_that_lost_its_end_says_so(own, bad):
    torch.save(own, bad)
    bad.write_bytes(bad.read_bytes()[:-1000])
    refused(bad, r"damaged or truncated \([\d,]+ bytes\): a zip archive that lacks its end; copy or train it again")


def test_one_changed_bit_of_a_weight_is_found(own, bad):
    torch.save(own, bad)
    content = bytearray(bad.read_bytes())
    at = content.index(own["state_dict"][WEIGHT].numpy().tobytes())
    content[at + 100] ^= 1
    bad.write_bytes(content)
    refused(bad, r"damaged or truncated \([\d,]+ bytes\): the checksum of bad/data/\d+ is wrong; copy or train it again")


@pytest.mark.parametrize("is_archive", [True, False])
def test_bytes_changed_anywhere_never_surprise(own, bad, is_archive):
    """Loaded, or refused as a bad checkpoint: no other error, whatever the unpickler met."""
    torch.save(own, bad, _use_new_zipfile_serialization=is_archive)
    content, rng = bad.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        changed_content = np.frombuffer(content, np.uint8).copy()
        changed_content[rng.integers(0, min(len(content), 8000), 2)] = rng.integers(0, 256, 2)
        bad.write_bytes(changed_content.tobytes())
        try:
            load_checkpoint(bad)
        except CheckpointError as error:
            assert len(str(error).splitlines()) == 1


# ---- code


class Code:
    """Unpickling this would make the file `ran`."""

    def __init__(self, ran):
        self.ran = str(ran)

    def __reduce__(self):
        return os.mkdir, (self.ran,)


WITH_CODE = {
    "in place of the weights": lambda code, own: code,
    "among the weights": lambda code, own: changed(own, {"loc_model.extra": code}),
    "in the metadata": lambda code, own: changed(own, metrics=code),
}


@pytest.mark.parametrize("wrapped", WITH_CODE)
@pytest.mark.parametrize("is_archive", [True, False])
def test_pickled_code_never_runs(own, bad, tmp_path, wrapped, is_archive):
    torch.save(WITH_CODE[wrapped](Code(tmp_path / "ran"), own), bad, _use_new_zipfile_serialization=is_archive)
    said = r"holds pickled objects other than tensors; they are never run \((posix|nt)\.mkdir\)\. Save it as a plain state dict"
    refused(bad, said)
    with pytest.raises(CheckpointError, match=said):
        load_imagenet_backbone(SafeNet(PRESETS["tiny"]), bad)
    assert not (tmp_path / "ran").exists()
    torch.load(bad, weights_only=False)
    assert (tmp_path / "ran").exists(), "the payload works"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_never_runs(bad, tmp_path, protocol):
    bad.write_bytes(pickle.dumps({"transformer.cls_token": Code(tmp_path / "ran")}, protocol=protocol))
    refused(bad, "they are never run|not a PyTorch checkpoint, or damaged|damaged or truncated")
    assert not (tmp_path / "ran").exists()
    pickle.loads(bad.read_bytes())
    assert (tmp_path / "ran").exists(), "the payload works"


def test_a_whole_pickled_network_is_refused(bad):
    torch.save({"model": SafeNet(PRESETS["tiny"])}, bad)
    refused(bad, r"never run \(safenet\.model\.SafeNet\)\. Save it as a plain state dict")


def test_a_torchscript_archive_is_refused(bad):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is giving TorchScript up
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), bad)
    refused(bad, "a TorchScript archive, whose code is never run; save the network's state_dict instead")


# ---- odd archives


def repacked(own, bad, compression=zipfile.ZIP_DEFLATED, **more):
    torch.save(own, bad)
    with zipfile.ZipFile(bad) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(bad, "w", compression) as archive:
        for name, content in {**records, **more}.items():
            archive.writestr(name, content)


def test_a_compressed_archive_is_refused(own, bad):
    """Torch would read the packed bytes of a mapped file as numbers."""
    repacked(own, bad)
    refused(bad, r"its records unpack to [\d,]+ bytes, but torch\.save never compresses; save it again with torch\.save")


def test_a_zip_bomb_is_refused_unopened(own, bad, monkeypatch):
    repacked(own, bad, **{"bad/data/bomb": bytes(100_000_000)})
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    monkeypatch.setattr(torch, "load", None)
    refused(bad, r"its records unpack to 100,\d{3},\d{3} bytes, but torch\.save never compresses")


def test_records_that_overlap_are_refused(own, bad):
    """A directory that lists the same stored bytes many times: a bomb without compression."""
    torch.save(own, bad)
    with zipfile.ZipFile(bad, "a") as archive:
        archive.filelist += archive.filelist * 9
        archive._didModify = True
    refused(bad, r"its records unpack to [\d,]+ bytes, but torch\.save never compresses")


def test_another_archive_is_refused(bad):
    with bad.open("wb") as file:
        np.savez(file, weight=np.zeros(3))
    refused(bad, r"not a PyTorch checkpoint: a zip archive without data\.pkl; give a file of torch\.save")


def test_an_archive_repacked_without_compression_is_used(own, bad):
    repacked(own, bad, zipfile.ZIP_STORED)
    assert torch.equal(load_checkpoint(bad).state_dict()[WEIGHT.removeprefix("loc_model.")], own["state_dict"][WEIGHT])


def test_an_encrypted_archive_is_refused(own, bad):
    torch.save(own, bad)
    content = bytearray(bad.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the first record's flags in the directory
    bad.write_bytes(content)
    refused(bad, r"damaged or truncated \([\d,]+ bytes\): .*(encrypted|password)")


def test_a_few_numbers_stretched_over_a_huge_shape_are_refused(own, bad):
    """A tensor of stride 0: 4 bytes on disk, 40 TB when copied."""
    torch.save(changed(own, {"loc_model.global_classifier.classifier.0.weight": torch.zeros(1, 1).expand(10**10, 1000)}), bad)
    refused(bad, r"its tensors claim 40,000,0\d\d,\d{3},\d{3} bytes, but the file has [\d,]+; save it again as a plain state dict")


# ---- another network


def test_another_network_is_refused(bad):
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict(), bad)
    refused(bad, r"not a Safe-Net checkpoint: no transformer\.cls_token; it holds 0\.weight, 0\.bias, 1\.weight")


def test_a_dict_of_anything_is_refused(bad):
    torch.save({3: torch.zeros(2), (1, 2): "x"}, bad)
    refused(bad, r"not a Safe-Net checkpoint: no transformer\.cls_token; it holds 3, \(1, 2\)")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("transformer.pos_embed", torch.zeros(65, 16), r"transformer\.pos_embed has shape \(65, 16\), expected 3 sizes above 0"),
        ("transformer.pos_embed", torch.zeros(1, 65, 0), r"transformer\.pos_embed has shape \(1, 65, 0\), expected 3 sizes above 0"),
        ("transformer.patch_embed.proj.weight", torch.tensor(1.0), r"patch_embed\.proj\.weight has shape \(\), expected 4 sizes above 0"),
        ("transformer.blocks.x.norm1.weight", torch.zeros(16), r"does not fit Safe-Net: transformer\.blocks\.2\."),
        ("transformer.blocks.999999999.norm1.weight", torch.zeros(16), r"does not fit Safe-Net: transformer\.blocks\.2\."),
        ("part_classifier1.classifier.0.weight", torch.zeros(5, 8), r"part_classifier1\.classifier\.0\.weight has shape \(5, 8\), expected \(3, 8\)"),
        ("loc_net.fc_loc.2.bias", torch.zeros(5), r"does not fit Safe-Net: loc_net\.fc_loc\.2\.bias has shape \(5,\), expected \(6,\)"),
        ("line\nbreak", torch.zeros(5), r"does not fit Safe-Net: line\\nbreak is unknown"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(own, bad, key, value, said):
    torch.save(changed(own, {f"loc_model.{key}": value})["state_dict"], bad)
    refused(bad, said, heads=2)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"architecture": {"classes": 5}}, "its metadata says classes = 5, its tensors 3; they belong to two networks. Save the checkpoint again"),
        ({"architecture": {"image_size": 10**9}}, r"does not fit Safe-Net: transformer\.pos_embed has shape \(1, 65, 16\), expected"),
        ({"architecture": {"depth": 3}}, "its metadata says depth = 3, its tensors 2; they belong to two networks"),
        ({"class_names": ["a", "b"]}, "its metadata names 2 classes, its classifiers have 3; they belong to two networks. Save the checkpoint again"),
        ({"class_names": "abc"}, r"its metadata is damaged: safenet_atlas\.class_names: .*valid list; copy or train it again"),
        ({"class_names": [1, 2, 3]}, r"its metadata is damaged: safenet_atlas\.class_names\.0: .*valid string"),
        ({"epoch": "last"}, r"its metadata is damaged: safenet_atlas\.epoch: .*valid integer"),
        ({"metrics": {"loss": [1.0]}}, r"its metadata is damaged: safenet_atlas\.metrics\.loss: .*valid number"),
        ({"architecture": {"heads": 0}}, r"its metadata is damaged: safenet_atlas\.architecture\.heads: .*greater than or equal to 1"),
        ({"architecture": {"sampling": "cubic"}}, r"its metadata is damaged: safenet_atlas\.architecture\.sampling: .*'nearest' or 'bilinear'"),
        ({"architecture": [1]}, r"its metadata is damaged: safenet_atlas\.architecture: "),
        ({"architecture": {"heads": 3}}, "width 16 is not a multiple of heads 3"),
    ],
)
def test_a_file_that_contradicts_its_own_metadata_is_refused(own, bad, metadata, said):
    torch.save(changed(own, **metadata), bad)
    refused(bad, said)


def test_metadata_that_is_no_table_is_refused(own, bad):
    torch.save({**own, METADATA_KEY: [1, 2]}, bad)
    refused(bad, "its metadata is damaged: safenet_atlas: ")


def test_heads_that_do_not_divide_the_width_name_the_file(own, bad):
    torch.save(own, bad)
    refused(bad, "width 16 is not a multiple of heads 3", heads=3)


# ---- weights of which no number can come


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_are_not_finite_are_refused(own, bad, value, dtype):
    spoilt = own["state_dict"][WEIGHT].to(dtype, copy=True)
    spoilt[1, 2] = value
    torch.save(changed(own, {WEIGHT: spoilt}), bad)
    refused(bad, r"transformer\.blocks\.0\.mlp\.fc1\.weight has 1 of 768 weights NaN or infinite; train it again, or take an earlier epoch")


@pytest.mark.parametrize("kind", [lambda tensor: tensor.to(torch.complex64), lambda tensor: tensor.to_sparse(), lambda tensor: tensor.to("meta")])
def test_weights_that_are_no_plain_numbers_are_refused(own, bad, kind):
    torch.save(changed(own, {WEIGHT: kind(own["state_dict"][WEIGHT])}), bad)
    refused(bad, r"fc1\.weight is torch\..*; expected plain real numbers. Save it again as a plain state dict")


def test_weights_of_half_precision_are_used(own, bad):
    half = {key: value.half() if value.is_floating_point() else value for key, value in own["state_dict"].items()}
    torch.save(changed(own, half), bad)
    model = load_checkpoint(bad)
    assert {value.dtype for value in model.parameters()} == {torch.float32}


# ---- ImageNet weights for training


def test_imagenet_weights_of_another_network_are_refused(bad):
    model = SafeNet(PRESETS["tiny"])
    torch.save({"conv1.weight": torch.zeros(3, 3), "pos_embed": torch.zeros(1, 7, 16), "patch_embed.proj.weight": torch.zeros(7), 3: "x"}, bad)
    with pytest.raises(CheckpointError, match="none of its 4 entries fits the transformer; expected timm's vit_small_patch16_224 of old"):
        load_imagenet_backbone(model, bad)


def test_imagenet_weights_stretched_over_a_huge_shape_are_refused(bad):
    torch.save({"pos_embed": torch.zeros(1, 1, 1).expand(1, 10**10 + 1, 16)}, bad)
    with pytest.raises(CheckpointError, match="its tensors claim 640,000,000,064 bytes, but the file has"):
        load_imagenet_backbone(SafeNet(PRESETS["tiny"]), bad)


def test_imagenet_weights_that_are_not_finite_are_refused_before_one_is_taken(bad):
    model = SafeNet(PRESETS["tiny"])
    before = model.transformer.cls_token.clone()
    torch.save({"cls_token": torch.ones_like(before), "norm.weight": torch.full((16,), torch.nan)}, bad)
    with pytest.raises(CheckpointError, match=r"norm\.weight has 16 of 16 weights NaN or infinite"):
        load_imagenet_backbone(model, bad)
    assert torch.equal(model.transformer.cls_token, before)


# ---- end to end


def not_finite(own):
    return changed(own, {WEIGHT: torch.full_like(own["state_dict"][WEIGHT], torch.nan)})


END_TO_END = {
    "cut": (lambda own: own, "a zip archive that lacks its end"),
    "code": (lambda own: changed(own, {"loc_model.extra": Code("ran")}), "they are never run"),
    "two class counts": (lambda own: changed(own, class_names=["a"]), "its metadata names 1 classes, its classifiers have 3"),
    "not finite": (not_finite, "NaN or infinite"),
}


@pytest.mark.parametrize("fault", END_TO_END)
def test_extract_refuses_a_bad_checkpoint_before_it_computes_or_writes(lab, fresh, own, tmp_path, monkeypatch, fault):
    monkeypatch.chdir(tmp_path)
    content, said = END_TO_END[fault]
    bad = tmp_path / "line\nbreak.pth"
    torch.save(content(own), bad)
    if fault == "cut":
        bad.write_bytes(bad.read_bytes()[:-1000])
    monkeypatch.setattr(SafeNet, "forward", None)
    run = lab.run(fresh, "extract.heads=2", checkpoints="net_000.pth")
    settings = run.settings.model_copy(update={"extract": run.settings.extract.model_copy(update={"checkpoints": (str(bad),)})})
    with pytest.raises(CheckpointError, match=said) as caught:
        extract(type(run)(fresh, settings, progress=False))
    assert str(caught.value).startswith(f"{tmp_path}/line\\nbreak.pth: ")
    assert len(str(caught.value).splitlines()) == 1
    assert not run.features_path.exists()
    assert not Path("ran").exists()


def test_a_checkpoint_that_is_not_there_is_told_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"line\\nbreak\.pth: no such checkpoint file") as caught:
        load_checkpoint(tmp_path / "line\nbreak.pth")
    assert len(str(caught.value).splitlines()) == 1
