"""Faults that were found once and mended: kills at awkward moments, deleted files, renumbered samples, odd settings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from disk_content import content

import pipeline
from pipeline.cam.stage import CamStage, cam
from pipeline.checkpoints.files import find_checkpoint_files
from pipeline.demo import demo_settings
from pipeline.extract.stage import extract
from pipeline.features.bad_images import bad_images
from pipeline.index.stage import index
from pipeline.look.status import run_status
from pipeline.look.verify import verify
from pipeline.render import stage as render_stage
from pipeline.render import views as picture_views
from pipeline.render.opened_run import OpenedRun
from pipeline.render.stage import render
from pipeline.run.directory import MissingProductError, StaleStoreError
from pipeline.stages import STAGES
from pipeline.stats.stage import stats
from pipeline.stats.staleness import open_stats
from pipeline.store import group_store, seals, zarr_files
from pipeline.store.groups import DamagedStoreError
from pipeline.store.seals import Seal
from pipeline.work.stops import EXIT_STOPPED

ONE = "net_000.pth"


@pytest.mark.parametrize(
    ("owner", "step", "after"),
    [(zarr_files, "array_metadata", 3), (zarr_files, "write_atomically", 9), (group_store, "consolidated", 0), (Seal, "close", 0)],
)
def test_a_kill_while_the_store_is_laid_out_starts_it_again(lab, fresh, extracted, monkeypatch, owner, step, after):
    calls = [0]
    original = getattr(owner, step)

    def killed(*arguments, **options):
        calls[0] += 1
        if calls[0] > after:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, killed)
        with pytest.raises(KeyboardInterrupt):
            extract(lab.run(fresh, checkpoints=ONE))
    extract(lab.run(fresh, checkpoints=ONE))
    assert content(fresh) == content(extracted)


def test_a_deleted_store_of_heat_maps_is_made_again(lab, finished, finished_copy):
    shutil.rmtree(finished_copy / "cams.zarr")
    assert cam(lab.run(finished_copy)).computed == 27
    assert content(finished_copy / "cams.zarr") == content(finished.cams_path)


def test_a_deleted_heat_map_is_made_again(lab, finished, finished_copy):
    shutil.rmtree(finished_copy / "cams.zarr" / "net_001" / "patch" / "none" / "l2_norm")
    assert cam(lab.run(finished_copy)).computed == 1
    assert content(finished_copy / "cams.zarr") == content(finished.cams_path)


def test_a_deleted_chunk_is_an_error_and_never_zeros(lab, extracted_copy):
    (extracted_copy / "features.zarr" / "net_000" / "patch_map" / "c.1.0.0.0").unlink()
    with pytest.raises((DamagedStoreError, MissingProductError)):
        cam(lab.run(extracted_copy, checkpoints=ONE))


def test_heat_maps_follow_features_through_other_blocks_and_back(lab, indexed, tmp_path):
    """4 samples a block, then 8, then 4 again: a record of the first round must not vouch for the third."""
    directory = Path(shutil.copytree(indexed, tmp_path / "run"))
    for block_samples in (4, 8, 4):
        shutil.rmtree(directory / "features.zarr", ignore_errors=True)
        run = lab.run(directory, f"extract.block_samples={block_samples}", "extract.batch_size=1", "cam.targets=['predicted']", checkpoints=ONE)
        extract(run)
        cam(run)
    maps = run.cams("net_000").read(["patch/none/l2_norm"])["patch/none/l2_norm"].values
    assert (maps > 0).all()


def test_figures_killed_midway_are_made_again(lab, finished, finished_copy, monkeypatch):
    shutil.rmtree(finished_copy / "stats.zarr")
    calls = [0]
    original = zarr_files.write_atomically

    def killed(*arguments, **options):
        calls[0] += 1
        if calls[0] > 10:
            raise KeyboardInterrupt
        original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(zarr_files, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            stats(lab.run(finished_copy))
    run = lab.run(finished_copy)
    stats(run)
    assert open_stats(run).drop_attrs().identical(open_stats(finished).drop_attrs())


def test_pictures_of_another_dataset_than_the_maps_are_refused(lab, finished_copy, tmp_path):
    """Indexing again after extraction renumbers the samples: a photo must never be drawn with another photo's map."""
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    (photos / "train" / "drone" / "0000" / "image-01.jpeg").unlink()
    index(lab.run(finished_copy, photos=photos), forget=True)
    with pytest.raises((StaleStoreError, MissingProductError)):
        render(lab.run(finished_copy, "render.drone_views=3", photos=photos))


def test_a_bad_mask_does_not_stop_a_run(lab, tmp_path):
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    run = lab.run(tmp_path / "run", "extract.max_bad_share=0.1", photos=photos, checkpoints=ONE)
    index(run)
    (photos / "masks" / "train" / "satellite" / "0001" / "0001.png").write_bytes(b"not a picture")
    outcome = extract(run)
    assert outcome.computed == 4
    assert "1 bad images are void" in str(outcome)
    assert "its mask cannot be decoded" in bad_images(run)["satellite/0001/0001"].reason


def test_a_block_without_any_stored_is_refused(lab, finished_copy):
    with pytest.raises(ValueError, match=r"block_map|extract\.blocks"):
        cam(lab.run(finished_copy, "cam.positions=['block_1']", "cam.methods=['l2_norm']"))


def test_a_block_that_the_network_does_not_have_is_refused_before_the_store_is_made(lab, fresh):
    run = lab.run(fresh, "extract.blocks=[5]", checkpoints=ONE)
    with pytest.raises(ValueError, match=r"block 5 does not exist: the network has blocks 0 to 1"):
        extract(run)
    assert not run.features_path.exists()


def test_only_gradients_at_blocks_leave_nothing_to_compute_and_nothing_breaks(lab, finished_copy):
    run = lab.run(finished_copy, "cam.positions=['block_1']", "cam.methods=['grad_cam']", "render.methods=[]", "render.targets=[]")
    assert "left out" in str(cam(run))
    for stage in STAGES[3:]:
        stage.bring_up_to_date(run)


def test_a_photo_that_cannot_be_decoded_is_left_out_of_the_pictures(lab, tmp_path):
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    for role in ("query_drone", "gallery_drone"):
        path = photos / "test" / role / "0003" / "image-01.jpeg"
        path.write_bytes(path.read_bytes()[:-200])
    run = lab.run(tmp_path / "run", "extract.max_bad_share=0.1", "cam.targets=['match']", photos=photos, checkpoints=ONE)
    for stage in STAGES:
        stage.bring_up_to_date(run)
    assert list(bad_images(run)) == ["drone/0003/image-01"]
    assert run.report_path.is_file()


@pytest.mark.parametrize(("store", "path"), [("features", "patch_map/c.1.0.0.0"), ("cams", "aligned/match/grad_cam/c.1.0.0")])
def test_a_deleted_file_is_written_again_by_its_stage(lab, finished, finished_copy, store, path):
    (finished_copy / f"{store}.zarr" / "net_000" / path).unlink()
    stage = next(stage for stage in STAGES if stage.writes == store)
    assert stage.bring_up_to_date(lab.run(finished_copy)).computed == 1
    assert content(finished_copy / f"{store}.zarr") == content(finished.directory / f"{store}.zarr")


def test_labels_that_no_image_has_are_refused(lab, indexed, tmp_path):
    run = lab.run(tmp_path / "run", "dataset.splits=['test']", "cam.targets=['label']", checkpoints=ONE)
    index(run)
    extract(run)
    with pytest.raises(ValueError, match="target 'label': none of the images shows a trained place"):
        cam(run)


def test_another_photo_at_the_same_path_is_not_drawn(lab, finished_copy, tmp_path):
    """The stored copy is drawn instead."""
    from PIL import Image

    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    run, later = (OpenedRun.of(lab.run(finished_copy, photos=photos)) for _ in range(2))
    row = run.manifest.iloc[0]
    expected = picture_views.read_photo(run, row, "net_000")
    later.manifest.attrs["root"] = str(photos)
    Image.new("RGB", (48, 48), "red").save(photos / row["path"])
    drawn = picture_views.read_photo(later, row, "net_000")
    assert drawn.shape == (32, 32, 3)
    assert np.abs(drawn.mean(axis=(0, 1)) - expected.mean(axis=(0, 1))).max() < 3


# ---- found by trying to break it


@pytest.mark.parametrize("gone", ["features.zarr/net_000", "features.zarr/net_000/zarr.json", "features.zarr"])
def test_a_checkpoint_whose_store_is_gone_is_missing_and_not_unknown(lab, finished, finished_copy, gone):
    path = finished_copy / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    run = lab.run(finished_copy)
    with pytest.raises(MissingProductError, match=r"net_000: unfinished, \d of \d blocks missing.*: `atlas forget-checkpoint net_000`$"):
        stats(run)
    assert any(fault.kind == "missing" and fault.where.endswith("features.zarr/net_000") for fault in verify(run).faults)
    assert [row["features"].split("/")[0] for row in run_status(run) if row["checkpoint"] == "net_000"] == ["0"]
    extract(run)
    assert verify(run).faults == []
    assert content(finished_copy / "features.zarr") == content(finished.features_path)


def test_maps_of_other_texts_are_not_opened(lab, finished_copy, tmp_path):
    """A photo that moves to another split changes what `match` compares with, though no feature changes."""
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    for view in ("drone", "satellite"):
        (photos / "train" / view / "0000").rename(photos / "test" / f"gallery_{view}" / "0000")
    run = lab.run(finished_copy, photos=photos)
    index(run)
    assert extract(lab.run(finished_copy, photos=photos)).computed == 0
    with pytest.raises(MissingProductError, match=r"cams\.zarr/net_000: unfinished, or older than the features; run `atlas cam`"):
        pipeline.open_run(finished_copy)
    assert "aligned/match/grad_cam" not in pipeline.open_run(finished_copy, partial=True).cams
    assert {row["heat maps"] for row in run_status(run)} == {"9 kinds (stale)"}
    cam(lab.run(finished_copy, "cam.methods=['l2_norm']", photos=photos))  # does not vouch for the maps that it did not make
    with pytest.raises(MissingProductError):
        stats(lab.run(finished_copy, photos=photos))


def test_maps_are_not_noted_of_features_that_changed_meanwhile(lab, extracted_copy, monkeypatch):
    original = CamStage.finish

    def replaced_meanwhile(stage, checkpoint):
        extract(lab.run(extracted_copy, "extract.map_dtype=float32", checkpoints=ONE), replace=True)
        original(stage, checkpoint)

    monkeypatch.setattr(CamStage, "finish", replaced_meanwhile)
    with pytest.raises(MissingProductError, match="net_000: was written again while its heat maps were computed; run `atlas cam` again"):
        cam(lab.run(extracted_copy, "cam.targets=['match']", checkpoints=ONE))


def test_checkpoints_of_other_block_lengths_lie_side_by_side(lab, extracted_copy):
    """The length of a block is a resource: it decides nothing."""
    extract(lab.run(extracted_copy, "extract.block_samples=6", checkpoints="net_001.pth"))
    run = lab.run(extracted_copy, "cam.methods=['l2_norm','max']")
    cam(run)
    stats(run)
    assert np.isfinite(open_stats(run)["cosine_to_previous"].sel(checkpoint="net_001")).any()
    opened = pipeline.open_run(extracted_copy)
    for name in ("net_000", "net_001"):
        expected = run.features(name).read(["patch_map"])["patch_map"].values
        np.testing.assert_array_equal(opened.features["patch_map"].sel(checkpoint=name), expected)
        np.testing.assert_array_equal(opened.features["patch_map"].sel(checkpoint=name)[5, 1, ::2], expected[5, 1, ::2])


def test_damage_in_a_block_that_is_about_to_grow_has_a_way_out(lab, extracted_copy, tmp_path):
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    shutil.copytree(photos / "train" / "satellite" / "0000", photos / "train" / "satellite" / "0009")
    index(lab.run(extracted_copy, photos=photos))
    path = extracted_copy / "features.zarr" / "net_000" / "patch_map" / "c.3.0.0.0"
    found = bytearray(path.read_bytes())
    found[5] ^= 1
    path.write_bytes(bytes(found))
    run = lab.run(extracted_copy, photos=photos, checkpoints=ONE)
    with pytest.raises(DamagedStoreError, match="Run `atlas verify --repair`"):
        extract(run)
    assert len(verify(lab.run(extracted_copy, photos=photos, checkpoints=ONE), repair=True).faults) == 1
    assert extract(lab.run(extracted_copy, photos=photos, checkpoints=ONE)).computed == 1
    assert verify(run).faults == []


@pytest.mark.parametrize("name", ["features.zarr/net_000/patch_map/c.old", "ledger/features/net_000/000001 (copy).json"])
def test_a_stray_file_stops_nothing(lab, finished_copy, name):
    (finished_copy / name).write_text("stray")
    run = lab.run(finished_copy)
    verify(run)
    assert [stage.bring_up_to_date(run).computed for stage in STAGES[:5]] == [0] * 5


def test_what_cannot_be_repaired_is_told_and_fails(lab, finished_copy):
    (finished_copy / "features.zarr" / "net_000" / "notes.txt").write_text("mine")
    result = lab.atlas("verify", finished_copy, "--repair")
    assert result.exit_code == 1
    assert "left as it is: " in result.stdout
    assert (finished_copy / "features.zarr" / "net_000" / "notes.txt").is_file()


def test_verifying_what_is_no_run_is_an_error(lab, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nope: there is no run here: no manifest and no store. Check --run"):
        verify(lab.run(tmp_path / "nope"))


def test_a_checkpoint_may_not_have_the_name_of_the_joined_figures(lab, fresh, tmp_path):
    shutil.copy(lab.checkpoints / ONE, tmp_path / "all_checkpoints.pth")
    with pytest.raises(ValueError, match=r"all_checkpoints\.pth would be called 'all_checkpoints', which the stores use themselves; rename the file"):
        extract(lab.run(fresh, f"extract.checkpoints=['{tmp_path}/all_checkpoints.pth']"))


def test_a_demo_runs_in_a_folder_of_any_name(tmp_path):
    folder = tmp_path / "it's [1] ünï"
    settings = demo_settings(lab_config(), folder, ())
    assert settings.dataset.root == folder / "scenes"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "net_000.pth").write_bytes(b"")
    assert [file.stem for file in find_checkpoint_files(settings.extract.checkpoints)] == ["net_000"]


def lab_config() -> Path:
    return Path(__file__).parents[2] / "configs" / "tiny.toml"


def test_a_signal_while_a_command_is_starting_has_the_code_of_a_stop(tmp_path):
    """Importing takes a second or more: here a package in the place of pandas says that it is imported, and never ends."""
    (tmp_path / "pandas.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "pipeline", "status", "--run", "nowhere"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{lab_config().parent.parent}"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "importing\n"
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == EXIT_STOPPED
    assert said == "atlas: stopped by SIGTERM before anything began. Call the same command again\n"


@pytest.mark.parametrize("stage", [0, 4, 5], ids=["index", "render", "report"])
def test_a_kill_between_a_new_file_and_its_seal_is_unfinished_work(lab, finished, finished_copy, monkeypatch, stage):
    map_keys = {0: ("manifest.parquet", "manifest.json"), 4: ("mosaics/index.json", "mosaics.json"), 5: ("report/index.html", "report.json")}
    for path in (finished_copy / map_keys[stage][0], finished_copy / "ledger" / map_keys[stage][1]):
        path.unlink()
    written, original = [], seals.write_record

    def killed(path, content, **options):
        written.append(path)
        if len(written) > 1:
            raise KeyboardInterrupt
        original(path, content, **options)

    with monkeypatch.context() as patch:
        patch.setattr(seals, "write_record", killed)
        with pytest.raises(KeyboardInterrupt):
            STAGES[stage].bring_up_to_date(lab.run(finished_copy))
    assert (finished_copy / map_keys[stage][0]).is_file()
    assert verify(lab.run(finished_copy)).faults == []
    STAGES[stage].bring_up_to_date(lab.run(finished_copy))
    assert content(finished_copy / "ledger") == content(finished.directory / "ledger")


def test_a_kill_while_the_first_pictures_are_drawn_is_unfinished_work(lab, finished_copy, monkeypatch):
    shutil.rmtree(finished_copy / "mosaics")
    (finished_copy / "ledger" / "mosaics.json").unlink()
    drawn, original = [], render_stage.write_png

    def killed(path, picture, settings):
        drawn.append(path)
        if len(drawn) > 2:
            raise KeyboardInterrupt
        original(path, picture, settings)

    with monkeypatch.context() as patch:
        patch.setattr(render_stage, "write_png", killed)
        with pytest.raises(KeyboardInterrupt):
            render(lab.run(finished_copy, "compute.executor=serial"))  # another thread might draw on when the patch is gone
    assert verify(lab.run(finished_copy)).faults == []
    outcome = render(lab.run(finished_copy))
    assert (outcome.computed, outcome.fresh) == (4, 2)
