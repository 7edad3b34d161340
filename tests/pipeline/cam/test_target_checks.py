"""Targets that a dataset or a network cannot have: each refusal in one line, before anything is computed."""

import shutil
from pathlib import Path

import pytest

import pipeline
from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.index.stage import index
from pipeline.pixels.stage import pixels
from safenet.checkpoint import save_checkpoint

METHOD = "cam.methods=['grad_cam']"


def refused(run, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        cam(run)
    assert "\n" not in str(caught.value)
    assert not run.cams("net_000").exists


def extracted_of(lab, directory: Path, photos: Path, *more: str):
    run = lab.run(directory, *more, photos=photos, checkpoints="net_000.pth")
    index(run)
    extract(run)
    return lambda target: lab.run(directory, *more, METHOD, f"cam.targets=['{target}']", photos=photos, checkpoints="net_000.pth")


def test_a_network_of_one_class_has_no_second_best(lab, indexed, tmp_path, make_network):
    save_checkpoint(tmp_path / "net_000.pth", make_network(0, classes=1), epoch=0, class_names=("0000",))
    directory = Path(shutil.copytree(indexed, tmp_path / "run"))
    run = lab.run(directory, f"extract.checkpoints=['{tmp_path}/net_000.pth']", METHOD, "cam.targets=['counter']")
    extract(run)
    refused(run, r"target 'counter': the network has one class, and no second best\. Use 'predicted'")


def test_an_image_that_is_void_is_compared_with_nothing(lab, tmp_path):
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    (photos / "train" / "drone" / "0000" / "image-01.jpeg").write_bytes(b"cut")
    asked = extracted_of(lab, tmp_path / "run", photos, "extract.max_bad_share=0.5")
    refused(asked("pair_drone/0000/image-01"), r"that image is void, and has no embedding\. `atlas status --bad` says why")


def test_a_view_without_a_gallery(lab, tmp_path):
    """Query images alone: they can be compared with a gallery, and have none of their own to be set against."""
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    shutil.rmtree(photos / "test" / "gallery_drone")
    asked = extracted_of(lab, tmp_path / "run", photos, "dataset.splits=['test']")
    refused(asked("pair_contrast_drone/0003/image-01"), r"there is no gallery of that image's view and split to compare with\. Use pair_share_")
    cam(asked("pair_share_drone/0003/image-01"))


def test_no_gallery_at_all(lab, tmp_path):
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    for view in ("drone", "satellite"):
        shutil.rmtree(photos / "test" / f"gallery_{view}")
    asked = extracted_of(lab, tmp_path / "run", photos, "dataset.splits=['test']")
    refused(asked("best"), r"needs gallery images of another view, and there are none\. Use target 'predicted'")
    refused(asked("match"), r"needs images of the same place in another view, and there are none")


def test_drone_photos_alone_are_refused_before_they_are_extracted(lab, tmp_path, computed):
    """Where the stages to run include cam; `atlas extract` alone says it."""
    photos, run = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(lab.photos / "train" / "drone", photos / "train" / "drone")
    one, more = "net_000.pth", (f"dataset.root='{photos}'", "cam.targets=['predicted', 'match']")
    result = lab.atlas("run", run, more=more, checkpoints=one)
    reason = "cam.targets: 'match' needs images of the same place in another view, and there are none. Use target 'predicted'"
    assert result.exit_code != 0 and reason in result.output and computed == []
    extracted = lab.atlas("extract", run, more=more, checkpoints=one)
    assert extracted.exit_code == 0 and f"warning: `atlas cam` will refuse: {run / 'manifest.parquet'}: {reason}" in extracted.output
    assert "will refuse" not in lab.atlas("extract", run, more=(*more, "cam.targets=['predicted']"), checkpoints=one).output


def test_the_flipped_photo_is_not_altered(lab, indexed, tmp_path):
    directory = Path(shutil.copytree(indexed, tmp_path / "run"))
    run = lab.run(directory, "extract.store=['flip_embedding']", "cam.targets=['match.flip']", METHOD, checkpoints="net_000.pth")
    extract(run)
    cam(run)
    with pytest.raises(ValueError, match=r"pixels\.target: 'match\.flip': the flipped photo would have to be altered as well"):
        pixels(run)
    with pytest.raises(ValueError, match="flip_embedding cannot be computed for other heads"):
        pipeline.open_run(directory).explain.maps("net_000", ["aligned/match.flip/grad_cam"], heads_of="net_000")


def test_networks_without_a_closed_form_say_what_they_cannot_give(lab, indexed, tmp_path, make_network, monkeypatch):
    """An activation, max pooling, and heads of other sizes, in one run."""
    monkeypatch.setattr("pipeline.extract.stage.check_same_sizes", lambda run, infos: None)  # as in runs of earlier versions
    kinds = {"net_000": {"head_activation": "leaky_relu"}, "net_001": {"pooling": "max"}, "net_002": {"parts": 4}}
    for epoch, (name, sizes) in enumerate(kinds.items()):
        save_checkpoint(tmp_path / f"{name}.pth", make_network(epoch, **sizes), epoch=epoch, class_names=("0000", "0001", "0002"))
    directory = Path(shutil.copytree(indexed, tmp_path / "run"))
    run = lab.run(directory, f"extract.checkpoints=['{tmp_path}/net_*.pth']")
    extract(run)
    explain = pipeline.cam.explain.Explainer(run)
    with pytest.raises(ValueError, match="net_000: its heads have no closed form, which maps of all classes need; use `maps` for single classes"):
        explain.class_maps("net_000", [0])
    with pytest.raises(ValueError, match=r"the parts of this network are maxima over their cells: .* Use token_deletion"):
        explain.curves("net_001", "aligned/predicted/hires_cam", [0])
    with pytest.raises(ValueError, match="net_002: its heads read 4 parts of width 16, and the features of net_001 are 2 parts of width 16"):
        explain.maps("net_001", ["aligned/predicted/hires_cam"], [0], heads_of="net_002")
    assert explain.maps("net_000", ["aligned/predicted/hires_cam"], [0]).sizes["sample"] == 1


def test_no_image_no_mean(lab, tmp_path):
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    (photos / "train" / "drone" / "0000" / "image-01.jpeg").write_bytes(b"cut")
    extracted_of(lab, tmp_path / "run", photos, "extract.max_bad_share=0.5")
    run = pipeline.open_run(tmp_path / "run")
    with pytest.raises(ValueError, match="none of the samples has an image"):
        run.explain.mean_class_maps("net_000", ["drone/0000/image-01"])
