"""Bad input: refused in one line before anything is computed, or quarantined with its reason while the run goes on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.features.bad_images import TooManyBadImagesError, bad_images
from pipeline.index.stage import index
from pipeline.look.status import run_status
from pipeline.run.directory import Run
from pipeline.run.manifest import read_manifest, write_manifest
from pipeline.settings.all import Settings
from pipeline.stages import STAGES
from pipeline.stats.staleness import open_stats
from safenet.checkpoint import save_checkpoint
from safenet.checkpoint_info import CheckpointError
from safenet.model import SafeNet

ONE = "net_000.pth"
LENIENT = "extract.max_bad_share=0.3"


# ---- photos


@pytest.fixture(scope="module")
def marred_photos(lab, tmp_path_factory):
    """A cut JPEG and a photo of one pixel among the training drone views, and an empty file among those of a test place."""
    photos = Path(shutil.copytree(lab.photos, tmp_path_factory.mktemp("marred") / "photos"))
    cut = photos / "train" / "drone" / "0000" / "image-01.jpeg"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    Image.new("RGB", (1, 1)).save(photos / "train" / "drone" / "0001" / "image-02.jpeg")
    for split in ("query", "gallery"):
        (photos / "test" / f"{split}_drone" / "0003" / "image-01.jpeg").write_bytes(b"")
    return photos


REASONS = {"0000": "cannot be decoded: .*truncated", "0001": r"too small: 1 x 1 px \(height x width\), at least 16 needed", "0003": "zero bytes"}


@pytest.fixture(scope="module")
def marred(lab, marred_photos, tmp_path_factory):
    """Every stage on the marred photos, and what each said."""
    run = lab.run(tmp_path_factory.mktemp("marred_run") / "run", LENIENT, photos=marred_photos, checkpoints=ONE)
    return run, {stage.name: str(stage.bring_up_to_date(run)) for stage in STAGES}


def test_a_bad_photo_never_stops_a_run(marred):
    run, said = marred
    assert said["extract"].startswith("extract: 4 blocks computed")
    assert "3 bad images are void: `atlas status" in said["extract"]
    assert "2 bad images stay out: " in said["index"]
    assert run.report_path.is_file()


def test_each_bad_photo_is_listed_with_its_reason(marred):
    run, _ = marred
    found = bad_images(run)
    assert len(found) == 3
    table = run.manifest.set_index("id")
    for name, reason in found.items():
        with pytest.raises(ValueError, match=REASONS[table.loc[name, "place"]]):
            raise ValueError(reason.reason)


def test_a_bad_photo_is_void_in_every_store(marred):
    run, _ = marred
    void = run.manifest["id"].isin(bad_images(run)).to_numpy()
    stored = xr.open_zarr(run.features_path, group="net_000", consolidated=False).load()
    np.testing.assert_array_equal(stored["valid"], ~void)
    for target, method in (("none", "l2_norm"), ("match", "grad_cam"), ("label", "grad_cam")):
        maps = xr.open_zarr(run.cams_path, group=f"net_000/aligned/{target}", consolidated=False)[method].values
        assert np.isnan(maps[void]).all()
        if target == "none":
            assert np.isfinite(maps[~void]).all()


def test_the_neighbours_of_a_bad_photo_are_as_ever(marred, finished):
    """It takes a place in the batch, and nothing leaks from it."""
    run, _ = marred
    rows = {name: row for row, name in enumerate(finished.manifest["id"])}
    good, reference = (xr.open_zarr(r.features_path, group="net_000", consolidated=False).load() for r in (run, finished))
    for row, name in enumerate(run.manifest["id"]):
        if good["valid"][row]:
            np.testing.assert_allclose(good["embedding"][row], reference["embedding"][rows[name]], rtol=1e-5, atol=1e-5)  # another batch


def test_figures_take_no_notice_of_bad_photos(marred):
    run, _ = marred
    stats = open_stats(run).sel(checkpoint="net_000")
    count = dict(zip(stats["group"].values.tolist(), stats["count"].values.tolist(), strict=True))
    assert count == {"test drone": 3, "test satellite": 2, "train drone": 4, "train satellite": 3}
    maps = xr.open_zarr(run.cams_path, group="net_000/patch/none", consolidated=False)["l2_norm"].values.astype(np.float64)
    valid = run.features("net_000").read(["valid"])["valid"].values
    chosen = valid & ((run.manifest["split"] == "train") & (run.manifest["view"] == "drone")).to_numpy()
    np.testing.assert_allclose(stats["map_mean"].sel(group="train drone", product="patch/none/l2_norm"), maps[chosen].mean(axis=0), rtol=1e-12)
    assert np.isfinite(stats["fam_change"]).all()


def test_the_page_tells_of_the_bad_photos(marred):
    page = marred[0].report_path.read_text(encoding="utf-8")
    assert "truncated" in page
    assert "too small" in page


def test_a_second_extraction_still_knows_the_bad_photos(lab, marred, monkeypatch):
    monkeypatch.setattr(SafeNet, "forward", None)
    assert "3 bad images are void" in str(extract(marred[0]))


def test_more_bad_photos_than_allowed_stop_the_run(lab, marred_photos, tmp_path):
    run = lab.run(tmp_path / "run", photos=marred_photos, checkpoints=ONE)  # 5 % of 15: none
    index(run)
    said = r"2 of 15 images are bad \(for instance .*\), more than extract\.max_bad_share = 0\.05 allows\. Repair the dataset and run"
    with pytest.raises(TooManyBadImagesError, match=said):
        extract(run)
    assert not run.features_path.exists()
    two_of_them = lab.run(tmp_path / "run", "extract.max_bad_share=0.14", photos=marred_photos, checkpoints=ONE)
    with pytest.raises(TooManyBadImagesError, match=r"3 of 15 images are bad"):  # the third shows when it is decoded
        extract(two_of_them)


def test_photos_that_vanish_after_indexing_are_bad_photos(lab, tmp_path):
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    run = lab.run(tmp_path / "run", LENIENT, photos=photos, checkpoints=ONE)
    index(run)
    (photos / "train" / "satellite" / "0001" / "0001.jpg").unlink()
    extract(run)
    (fault,) = bad_images(run).values()
    assert "No such file" in fault.reason


# ---- datasets


def test_a_missing_dataset_folder(lab, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        index(lab.run(tmp_path / "run", photos=tmp_path / "nowhere"))


def test_an_empty_dataset_folder(lab, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises((FileNotFoundError, ValueError), match="empty"):
        index(lab.run(tmp_path / "run", photos=tmp_path / "empty"))


def test_no_dataset_at_all(tmp_path):
    with pytest.raises(ValueError, match=r"dataset\.root is not set; name the photos' folder in the \[dataset\] table"):
        index(Run(tmp_path, Settings(), progress=False))


# ---- checkpoints


@pytest.fixture
def broken(tmp_path, lab, make_network):
    """Checkpoint files that cannot be used, by kind."""
    good = (lab.checkpoints / ONE).read_bytes()
    (tmp_path / "truncated.pth").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    torch.save({"conv1.weight": torch.zeros(3, 3), "fc.bias": torch.zeros(2)}, tmp_path / "foreign.pth")
    state = torch.load(lab.checkpoints / ONE, weights_only=True)
    del state["state_dict"]["loc_model.loc_net.fc_loc.2.bias"]
    torch.save(state, tmp_path / "lacking.pth")
    torch.save({"model": make_network(0)}, tmp_path / "pickled.pth")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("truncated", r"damaged or truncated \([\d,]+ bytes\)|not a PyTorch checkpoint, or damaged"),
        ("empty", r"damaged or truncated \(0 bytes\)|not a PyTorch checkpoint, or damaged \(0 bytes\)"),
        ("text", "not a PyTorch checkpoint, or damaged"),
        ("foreign", r"not a Safe-Net checkpoint: no transformer\.cls_token; it holds conv1\.weight, fc\.bias"),
        ("lacking", r"does not fit Safe-Net: loc_net\.fc_loc\.2\.bias is missing"),
        ("pickled", "holds pickled objects other than tensors"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused_before_anything_is_computed(lab, fresh, broken, monkeypatch, kind, said):
    monkeypatch.setattr(SafeNet, "forward", None)
    run = lab.run(fresh, f"extract.checkpoints=['{lab.checkpoints / ONE}', '{broken / kind}.pth']")
    with pytest.raises(CheckpointError, match=rf"{kind}\.pth: .*({said})") as caught:
        extract(run)
    assert "\n" not in str(caught.value)


def test_heads_that_do_not_divide_the_width_are_refused(lab, fresh):
    with pytest.raises(ValueError, match="width 16 is not a multiple of heads 3"):
        extract(lab.run(fresh, "extract.heads=3", checkpoints=ONE))


# ---- targets and positions that the stores do not give


@pytest.fixture
def nameless(lab, make_network, tmp_path):
    """Features of a checkpoint without class names, on the test split alone."""
    save_checkpoint(tmp_path / "net_000.pth", make_network(0))
    more = ("dataset.splits=['test']", f"extract.checkpoints=['{tmp_path}/net_000.pth']")
    run = lab.run(tmp_path / "run", *more)
    index(run)
    extract(run)
    return tmp_path / "run"


@pytest.mark.parametrize("target", ["label", "class_0000"])
def test_without_class_names_a_class_is_no_target(lab, nameless, target):
    said = rf"features\.zarr/net_000: target '{target}' needs the names of the 3 training classes, and neither .* Index the training split"
    with pytest.raises(ValueError, match=said):
        cam(lab.run(nameless, f"cam.targets=['{target}']"))


def test_without_class_names_the_other_targets_work(lab, nameless):
    assert cam(lab.run(nameless, "cam.targets=['predicted','match']")).computed == 3 * (1 + 2)


def test_class_names_come_from_the_training_places_where_the_file_has_none(lab, make_network, tmp_path):
    save_checkpoint(tmp_path / "net_000.pth", make_network(0))
    run = lab.run(tmp_path / "run", f"extract.checkpoints=['{tmp_path}/net_000.pth']")
    index(run)
    extract(run)
    assert run.features("net_000").attributes["class_names"] == ["0000", "0001", "0002"]


def test_an_unknown_class_is_refused_with_the_nearest(lab, finished_copy):
    with pytest.raises(ValueError, match=r"cam\.targets: class of 'class_0009': '0009' is unknown. Did you mean '000\d'\?"):
        cam(lab.run(finished_copy, "cam.targets=['class_0009']"))


def test_match_without_another_view_is_refused(lab, tmp_path):
    run = lab.run(tmp_path / "run", "dataset.views=['drone']", checkpoints=ONE)
    index(run)
    extract(run)
    with pytest.raises(
        ValueError, match=r"target 'match' needs images of the same place in another view, and there are none\. Use target 'predicted'"
    ):
        cam(lab.run(tmp_path / "run", "cam.targets=['match']", checkpoints=ONE))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("render.methods=['max']", r"render\.methods \(of those in cam\.methods\): 'max' is unknown"),
        ("render.targets=['predicted']", r"render\.targets \(of those in cam\.targets\): 'predicted' is unknown"),
        ("render.places=['0009']", r"render\.places: '0009' is unknown. Did you mean '000\d'"),
        ("render.checkpoints=['net_009']", r"render\.checkpoints: 'net_009' is unknown\. Did you mean 'net_00\d'\? Known: net_000, net_001, net_002"),
        ("render.scope=fixed", r"render\.scope = 'fixed' needs render\.fixed = \[minimum, maximum\]"),
        ("render.colour_map=infurno", "infurno"),
    ],
)
def test_pictures_that_cannot_be_drawn_are_refused(lab, finished_copy, change, said):
    with pytest.raises(ValueError, match=said) as caught:
        STAGES[4].bring_up_to_date(lab.run(finished_copy, change))
    assert "\n" not in str(caught.value)


def test_photos_that_are_gone_are_drawn_from_the_store(lab, finished_copy, tmp_path):
    """On the laptop without the dataset."""
    table = read_manifest(finished_copy / "manifest.parquet")
    table.attrs["root"] = str(tmp_path / "gone")
    write_manifest(finished_copy / "manifest.parquet", table)
    shutil.rmtree(finished_copy / "mosaics")
    assert STAGES[4].bring_up_to_date(lab.run(finished_copy, "render.mosaics=['paper']")).computed == 2


# ---- activations


def test_activations_that_overflow_are_counted_and_told_with_their_place(lab, fresh, make_network, tmp_path):
    """Finite in float32, infinite in the float16 of the stored maps."""
    model = make_network(0)
    with torch.no_grad():
        model.transformer.norm.weight[3] = 1e6
    save_checkpoint(tmp_path / "net_000.pth", model, class_names=("0000", "0001", "0002"))
    wide = f"extract.checkpoints=['{tmp_path}/net_000.pth']"
    outcome = str(extract(lab.run(fresh, wide)))
    where = r"patch_map of [a-z]+/\d+/\S+, cell \(\d, \d\)"
    with pytest.raises(ValueError, match=rf"net_000: [\d,]+ values in \d+ images are not finite, first in {where}; set extract.map_dtype"):
        raise ValueError(outcome)
    run = lab.run(fresh, wide)
    stored = run.features("net_000").read(["patch_map"])["patch_map"].values
    assert run.features("net_000").ledger.whole()["non_finite"]["count"] >= np.count_nonzero(~np.isfinite(stored)) > 0
    (row,) = run_status(run)
    assert row["not finite"] != "0"
    assert "not finite" not in str(extract(lab.run(fresh, wide, "extract.map_dtype=float32"), replace=True))
