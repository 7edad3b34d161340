"""Faults that were found once and mended: kills at awkward moments, deleted files, renumbered samples, odd settings."""

import shutil
from pathlib import Path

import pytest
import zarr
from disk_content import content

from pipeline import extract_run
from pipeline.cam_run import cam
from pipeline.extract_run import extract
from pipeline.graph import STAGES
from pipeline.index_run import index
from pipeline.render_run import render
from pipeline.run import MissingProductError, StaleStoreError
from pipeline.stats_run import open_stats, stats
from pipeline.status import bad_images
from pipeline.stores import DamagedStoreError, GroupStore

ONE = "net_000.pth"


@pytest.fixture(scope="module")
def extracted(lab, indexed, tmp_path_factory):
    directory = Path(shutil.copytree(indexed, tmp_path_factory.mktemp("extracted") / "run"))
    extract(lab.run(directory, checkpoints=ONE))
    return directory


@pytest.fixture
def extracted_copy(extracted, tmp_path):
    return Path(shutil.copytree(extracted, tmp_path / "extracted"))


@pytest.mark.parametrize("step", ["add_array", "write", "_write_heads"])
def test_a_kill_while_the_store_is_laid_out_starts_it_again(lab, fresh, extracted, monkeypatch, step):
    calls = [0]
    owner = extract_run if step == "_write_heads" else GroupStore
    original = getattr(owner, step)

    def killed(*arguments, **options):
        calls[0] += 1
        if calls[0] > (0 if step == "_write_heads" else 3):
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
    original = zarr.Array.__setitem__

    def killed(self, selection, value):
        calls[0] += 1
        if calls[0] > 10:
            raise KeyboardInterrupt
        original(self, selection, value)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", killed)
        with pytest.raises(KeyboardInterrupt):
            stats(lab.run(finished_copy))
    run = lab.run(finished_copy)
    stats(run)
    assert open_stats(run).drop_attrs().identical(open_stats(finished).drop_attrs())


def test_pictures_of_another_dataset_than_the_maps_are_refused(lab, finished_copy, tmp_path):
    """Indexing again after extraction renumbers the samples: a photo must never be drawn with another photo's map."""
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    (photos / "train" / "drone" / "0000" / "image-01.jpeg").unlink()
    index(lab.run(finished_copy, photos=photos))
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
    assert "its mask cannot be decoded" in bad_images(run)["satellite/0001/0001"]


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
