"""Figures of images are a product: each array of each block is made once, and made again when what it is made of changes."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from disk_content import content

from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.look.image_table import write_image_table
from pipeline.look.plan import plan
from pipeline.look.verify import verify
from pipeline.stats import figures as figures_module
from pipeline.stats import join
from pipeline.stats.stage import stats
from pipeline.stats.staleness import open_stats
from pipeline.work.share import Share
from safenet.checkpoint import save_checkpoint
from stages.stats.compared import LAST
from stages.stats.figures import FIGURE_NAMES, IMAGE_FIGURES
from stages.stats.images import AGREEMENT, IMAGES, MAPS
from stages.stats.modules import fam_change
from stages.stats.settings import StatsSettings


@pytest.fixture
def made(monkeypatch):
    """(checkpoint, block, keys) of what is computed."""
    found, original = [], figures_module.figures_of_block

    def noted(sources, block, wanted, settings):
        found.append((sources.features.name, block.index, set(wanted)))
        return original(sources, block, wanted, settings)

    monkeypatch.setattr(figures_module, "figures_of_block", noted)
    return found


def test_a_new_method_computes_its_own_alone(lab, finished_copy, made):
    run = lab.run(finished_copy, "cam.methods=['l2_norm','max','grad_cam']")
    cam(run)
    stats(run)
    keys = set.union(*(keys for _, _, keys in made))
    assert {key for key in keys if key.startswith(f"{MAPS}/")} == {f"{MAPS}/{p}/none/max" for p in ("patch", "aligned", "part")}
    assert {key.split("/")[0] for key in keys} == {MAPS, AGREEMENT, "previous", LAST} and IMAGES not in keys


def test_a_new_checkpoint_costs_the_others_the_drift_to_the_last_alone(lab, finished_copy, make_network, made, tmp_path):
    folder = Path(shutil.copytree(lab.checkpoints, tmp_path / "checkpoints"))
    save_checkpoint(folder / "net_003.pth", make_network(3), epoch=3, class_names=("0000", "0001", "0002"))
    run = lab.run(finished_copy, f"extract.checkpoints=['{folder}/net_*.pth']")
    extract(run)
    cam(run)
    assert stats(run).computed == 1
    assert {key.split("/")[0] for name, _, keys in made if name != "net_003" for key in keys} == {LAST}
    assert all(IMAGES in keys for name, _, keys in made if name == "net_003")


def test_drift_from_the_first_checkpoint_costs_the_others_nothing(lab, finished_copy, make_network, made, tmp_path):
    """With `previous` and `first`, one more checkpoint costs its own share alone; asking for other drift computes that drift alone."""
    folder, first = Path(shutil.copytree(lab.checkpoints, tmp_path / "checkpoints")), "stats.drift=['first','previous']"
    before = xr.open_zarr(finished_copy / "stats.zarr" / "all_checkpoints").load()
    run = lab.run(finished_copy, first)
    assert stats(run).computed == 0, "a checkpoint's own figures are the same"
    assert {key.split("/")[0] for _, _, keys in made for key in keys} == {"first"}
    found = open_stats(run)
    assert "spearman_to_last" not in found and "boundary_changed_to_last" not in found
    xr.testing.assert_identical(found["cosine_to_previous"].drop_attrs(), before["cosine_to_previous"].drop_attrs())
    np.testing.assert_allclose(found["cosine_to_first"].sel(checkpoint="net_000", product="aligned/none/l2_norm").values, 1, rtol=1e-6)
    np.testing.assert_array_equal(
        found["spearman_to_first"].sel(checkpoint="net_001"), found["spearman_to_previous"].sel(checkpoint="net_001"), "the same pair"
    )
    made.clear()
    save_checkpoint(folder / "net_003.pth", make_network(3), epoch=3, class_names=("0000", "0001", "0002"))
    run = lab.run(finished_copy, first, f"extract.checkpoints=['{folder}/net_*.pth']")
    extract(run)
    cam(run)
    assert stats(run).computed == 1
    assert {name for name, _, _ in made} == {"net_003"}
    assert verify(run).faults == []
    write_image_table(run, tmp_path / "figures.csv")
    columns = (tmp_path / "figures.csv").read_text().splitlines()[0].split(",")
    assert {"cosine_to_first", "cosine_to_previous"} <= set(columns) and "cosine_to_last" not in columns


@pytest.mark.parametrize("kinds", ["['previous','last']", "['first','previous']", "['previous']", "[]"])
def test_drift_that_was_joined_before_is_joined_again_without_its_images(lab, finished_copy, make_network, monkeypatch, tmp_path, kinds):
    """Of the checkpoints before a new one: unless it is the drift to the last. The joined group is the one that all figures give."""
    folder, joined = Path(shutil.copytree(lab.checkpoints, tmp_path / "checkpoints")), finished_copy / "stats.zarr" / "all_checkpoints"
    stats(lab.run(finished_copy, f"stats.drift={kinds}"))
    save_checkpoint(folder / "net_003.pth", make_network(3), epoch=3, class_names=("0000", "0001", "0002"))
    run = lab.run(finished_copy, f"stats.drift={kinds}", f"extract.checkpoints=['{folder}/net_*.pth']")
    extract(run)
    cam(run)
    reduced, original = set(), join.drift_to
    monkeypatch.setattr(join, "drift_to", lambda run, one, kind: reduced.add(one.name) or original(run, one, kind))
    stats(run)
    everything = {"net_000", "net_001", "net_002", "net_003"}
    assert reduced == (everything if "last" in kinds else {"net_003"} if kinds != "[]" else set())
    found = content(joined)
    shutil.rmtree(joined)
    (finished_copy / "ledger" / "stats" / "all_checkpoints" / "layout.json").unlink()
    stats(run)
    assert reduced == (everything - {"net_000"} if kinds == "['previous']" else everything if kinds != "[]" else set()) and content(joined) == found


def test_drift_that_a_setting_changes_is_not_taken_from_before(lab, finished_copy):
    run, joined = lab.run(finished_copy, "stats.overlap_share=0.5"), finished_copy / "stats.zarr" / "all_checkpoints"
    before = open_stats(lab.run(finished_copy))["overlap_to_last"]
    stats(run)
    found = content(joined)
    assert not np.allclose(open_stats(run)["overlap_to_last"], before, equal_nan=True)
    shutil.rmtree(joined)
    (finished_copy / "ledger" / "stats" / "all_checkpoints" / "layout.json").unlink()
    stats(run)
    assert content(joined) == found


def test_plan_says_that_other_drift_is_asked_for(lab, finished_copy):
    (row,) = [row for row in plan(lab.run(finished_copy, "stats.drift=['first']")) if (row.stage, row.what) == ("stats", "all_checkpoints")]
    assert row.reason == "made with stats.drift = ['previous', 'last']"


def test_a_damaged_joined_group_is_made_again_from_the_images(lab, finished_copy):
    run, joined = lab.run(finished_copy), finished_copy / "stats.zarr" / "all_checkpoints"
    before = content(joined)
    (file,) = joined.joinpath("cosine_to_last").glob("c*")
    file.write_bytes(b"damaged")
    stats(run)
    assert content(joined) == before


def test_what_there_is_to_compare_with_is_named():
    with pytest.raises(ValueError, match=r"stats.drift: 'lst' is unknown. Did you mean 'last'\? Known: first, last, previous"):
        StatsSettings(drift=("lst",))
    assert StatsSettings(drift=("last", "previous", "last")) == StatsSettings(), "their order says nothing"


def test_without_drift_the_checkpoints_stand_side_by_side_alone(lab, finished_copy, made):
    run = lab.run(finished_copy, "stats.drift=[]")
    stats(run)
    assert not made and not [name for name in open_stats(run) if "_to_" in str(name)]


def test_a_new_row_of_the_table_makes_the_figures_of_its_kind_again(lab, finished_copy, made, monkeypatch):
    """In a run that is whole: no version need be raised for a figure that was not there."""
    run = lab.run(finished_copy)
    assert stats(run).computed == 0
    table = {**IMAGE_FIGURES, "halved": replace(IMAGE_FIGURES["fam_change"], function=lambda images: fam_change(images) / 2)}
    for module in ("pipeline.stats.state", "stages.stats.images"):
        monkeypatch.setattr(f"{module}.IMAGE_FIGURES", table)
    monkeypatch.setattr("pipeline.stats.staleness.FIGURE_NAMES", [*FIGURE_NAMES, ["halved", ""]])
    (row,) = {row.reason for row in plan(run) if row.stage == "stats" and row.what == "net_001"}
    assert row == "figures changed"
    assert stats(run).computed == 3
    assert {key for _, _, keys in made for key in keys} == {IMAGES}
    np.testing.assert_allclose(open_stats(run)["halved"], open_stats(run)["fam_change"] / 2, rtol=1e-6)


def test_a_setting_makes_what_depends_on_it_again(lab, finished_copy, made):
    run = lab.run(finished_copy, "stats.overlap_share=0.4")
    assert stats(run).computed == 3, "the settings are part of their groups"
    assert {key.split("/")[0] for _, _, keys in made for key in keys} == {"previous", LAST}


@pytest.mark.parametrize("key", ["maps/aligned/match/grad_cam", "agreement/patch", "last/patch/none/l2_norm", "retrieval"])
def test_what_is_damaged_is_found_and_made_again_to_the_same_bits(lab, finished_copy, key):
    run, before = lab.run(finished_copy), content(finished_copy / "figures.zarr")
    (file,) = (finished_copy / "figures.zarr" / "net_001" / key).glob("c.0.0")
    changed = bytearray(file.read_bytes())
    changed[5] ^= 1
    file.write_bytes(changed)
    assert [fault.where.endswith(f"net_001/{key}, block 0") for fault in verify(run, repair=True).faults] == [True]
    what = "all_checkpoints" if key.startswith(LAST) else "net_001"
    assert "of images" in next(row.reason for row in plan(run) if (row.stage, row.what) == ("stats", what)).replace("queries", "images")
    stats(run)
    assert content(finished_copy / "figures.zarr") == before
    assert verify(run).faults == []


def test_parts_share_the_blocks_of_one_checkpoint(lab, finished_copy, made):
    """The last part reduces; the figures are those of a run in one piece."""
    whole = lab.run(finished_copy)
    before = content(finished_copy / "figures.zarr")
    for folder in ("figures.zarr", "stats.zarr", "ledger/figures", "ledger/stats"):
        shutil.rmtree(finished_copy / folder)
    blocks = sum(len(whole.cams(name).blocks) for name in ("net_000", "net_001", "net_002"))
    count = 2 * blocks // 3  # a part's share ends within a checkpoint
    for number in range(1, count + 1):
        run = lab.run(finished_copy)
        stats(type(run)(run.directory, run.settings, progress=False, share=Share(number, count)))
    assert len(made) == blocks and len({(name, index) for name, index, _ in made}) == blocks
    assert content(finished_copy / "figures.zarr") == before
    assert stats(whole).computed == 0


def test_stored_figures_are_finite_or_blank(finished):
    figures = finished.figures("net_002")
    for key in figures.all_keys():
        assert figures.values(key).dtype == np.float32
        assert not np.isinf(figures.values(key)).any(), key
