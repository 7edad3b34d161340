"""What the stores promise: nothing is computed twice, nothing stale or half-done is used, nothing damaged is believed."""

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from disk_content import TIME_SAVERS, content

from pipeline.cam import spans as cam_spans
from pipeline.cam.stage import cam
from pipeline.extract import extractor as feature_spans
from pipeline.extract.stage import extract
from pipeline.features.finished import finished_checkpoints, missing_blocks
from pipeline.index.stage import index
from pipeline.look.status import run_status
from pipeline.render import stage as render_stage
from pipeline.render.png_files import png_settings
from pipeline.render.stage import render
from pipeline.report.stage import report
from pipeline.run.directory import MissingProductError, StaleStoreError
from pipeline.stages import STAGES
from pipeline.stats import figures
from pipeline.stats.stage import stats
from pipeline.stats.staleness import open_stats
from pipeline.store.blocks import Ledger
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import DamagedStoreError
from safenet.checkpoint import save_checkpoint
from safenet.model import SafeNet
from safenet.timm_parts import VisionTransformer
from stages.cam.methods import METHODS

ONE = "net_000.pth"


def must_not_run(*arguments, **options):
    raise AssertionError("this was to be skipped")


def moments(folder: Path) -> dict[str, int]:
    """When each file was written; locks are taken, index is timed, and what is read of checkpoint files is noted, by every call."""
    found = {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    return {name: moment for name, moment in found.items() if not name.startswith("locks/") and Path(name).name not in TIME_SAVERS}


# ---- nothing twice


def test_a_second_extraction_computes_nothing_and_says_so(lab, finished_copy, monkeypatch):
    before = moments(finished_copy)
    monkeypatch.setattr(SafeNet, "forward", must_not_run)
    monkeypatch.setattr(feature_spans, "PhotoReader", must_not_run)
    outcome = extract(lab.run(finished_copy))
    assert str(outcome).startswith("extract: nothing to compute, 12 up to date\n")
    assert moments(finished_copy) == before


def test_the_proof_would_notice(lab, extracted_copy, monkeypatch):
    """The same trap shuts where there is something to compute."""
    monkeypatch.setattr(SafeNet, "forward", must_not_run)
    with pytest.raises(AssertionError, match="was to be skipped"):
        extract(lab.run(extracted_copy, checkpoints="net_001.pth"))


@pytest.mark.parametrize(
    ("stage", "module", "name", "said"),
    [
        (cam, cam_spans, "cams_of_block", "cam: nothing to compute, 27 up to date"),
        (stats, figures, "figures_of_block", "stats: nothing to compute, 3 up to date"),
        (render, render_stage, "write_png", "render: nothing to compute, 6 up to date"),
    ],
    ids=["cam", "stats", "render"],
)
def test_a_second_call_computes_nothing_and_says_so(lab, finished_copy, monkeypatch, stage, module, name, said):
    before = moments(finished_copy)
    monkeypatch.setattr(module, name, must_not_run)
    assert str(stage(lab.run(finished_copy))).startswith(said)
    after = moments(finished_copy)
    assert {path for path in after if after[path] != before.get(path)} <= {"mosaics/index.json"}


def test_a_second_index_writes_nothing(lab, finished_copy):
    before = moments(finished_copy)
    assert str(index(lab.run(finished_copy))).startswith("index: nothing to compute, 15 up to date")
    assert moments(finished_copy) == before


def test_resources_never_make_features_stale(lab, extracted_copy, monkeypatch):
    monkeypatch.setattr(SafeNet, "forward", must_not_run)
    more = ("extract.batch_size=1", "extract.block_samples=5", "extract.chunk_samples=1", "extract.workers=1", "extract.max_bad_share=0.5")
    assert extract(lab.run(extracted_copy, *more, checkpoints=ONE)).computed == 0


def test_one_more_method_computes_just_that_method(lab, finished_copy):
    before, ledger = moments(finished_copy / "cams.zarr"), finished_copy / "ledger" / "cams"
    records, of_groups = content(ledger), {f"net_00{number}/zarr.json" for number in range(3)}  # these list the arrays
    outcome = cam(lab.run(finished_copy, "cam.methods=['l2_norm','grad_cam','mean']"))
    assert (outcome.computed, outcome.fresh) == (9, 27)
    after = moments(finished_copy / "cams.zarr")
    assert of_groups <= before.keys()
    made = {part for path in after.keys() - before.keys() for part in Path(path).parts}
    assert {part for part in made if part in METHODS} == {"mean"}
    assert {path: after[path] for path in before.keys() - of_groups} == {path: before[path] for path in before.keys() - of_groups}
    now = content(ledger)
    assert all(old["arrays"].items() <= now[path]["arrays"].items() for path, old in records.items() if "arrays" in old)


def test_one_more_method_passes_one_product_to_the_formulas(lab, finished_copy, monkeypatch):
    asked = []
    original = cam_spans.cams_of_block
    monkeypatch.setattr(
        cam_spans, "cams_of_block", lambda features, map_keys, context: asked.extend(map_keys) or original(features, map_keys, context)
    )
    cam(lab.run(finished_copy, "cam.methods=['l2_norm','grad_cam','hires_cam']", "cam.positions=['aligned']", "cam.targets=['match']"))
    assert {map_key.key for map_key in asked} == {"aligned/match/hires_cam"}
    assert len(asked) == 3 * 4  # checkpoints x blocks


def test_a_new_checkpoint_computes_only_itself(lab, extracted_copy, monkeypatch):
    before = moments(extracted_copy / "features.zarr")
    outcome = extract(lab.run(extracted_copy, checkpoints="net_00[01].pth"))
    assert (outcome.computed, outcome.fresh) == (4, 4)
    after = moments(extracted_copy / "features.zarr")
    assert {path: after[path] for path in before} == before
    assert {path.split("/")[0] for path in after.keys() - before.keys()} == {"net_001"}


def test_a_new_checkpoint_downstream_computes_only_itself(lab, finished_copy, make_network, monkeypatch, tmp_path):
    """A fourth epoch: one checkpoint's maps, one checkpoint's figures, and the old maps stay untouched."""
    folder = Path(shutil.copytree(lab.checkpoints, tmp_path / "checkpoints"))
    save_checkpoint(folder / "net_003.pth", make_network(3), epoch=3, class_names=("0000", "0001", "0002"))
    run = lab.run(finished_copy, f"extract.checkpoints=['{folder}/net_*.pth']")
    before = moments(finished_copy / "cams.zarr")
    assert extract(run).computed == 4
    assert cam(run).computed == 9
    assert stats(run).computed == 1
    after = moments(finished_copy / "cams.zarr")
    assert {path: after[path] for path in before} == before
    assert open_stats(run)["checkpoint"].values.tolist() == ["net_000", "net_001", "net_002", "net_003"]


def test_another_colour_map_redraws_pictures_and_nothing_else(lab, finished_copy, monkeypatch):
    before = {name: moments(finished_copy / name) for name in ("features.zarr", "cams.zarr", "stats.zarr")}
    pictures = {path: path.read_bytes() for path in (finished_copy / "mosaics").rglob("*.png")}
    monkeypatch.setattr(cam_spans, "cams_of_block", must_not_run)
    monkeypatch.setattr(figures, "figures_of_block", must_not_run)
    changed = "render.colour_map=viridis"
    computed = [STAGES[number].bring_up_to_date(lab.run(finished_copy, changed)).computed for number in range(1, 5)]
    assert computed == [0, 0, 0, 6]
    assert {name: moments(finished_copy / name) for name in before} == before
    assert all(path.read_bytes() != old for path, old in pictures.items())
    assert {png_settings(path)["colour_map"] for path in pictures} == {"viridis"}


def test_another_threshold_of_contrast_computes_figures_and_pictures_but_no_maps(lab, finished_copy, monkeypatch):
    monkeypatch.setattr(cam_spans, "cams_of_block", must_not_run)
    run = lab.run(finished_copy, "stats.low_contrast_below=0.5")
    assert [stage(run).computed for stage in (cam, stats, render)] == [0, 3, 6]


def test_a_damaged_picture_is_drawn_again(lab, finished_copy):
    path = sorted((finished_copy / "mosaics").rglob("*.png"))[0]
    good = path.read_bytes()
    path.write_bytes(b"")
    assert render(lab.run(finished_copy)).computed == 1
    assert path.read_bytes() == good


# ---- stale features


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("extract.map_dtype=float32", r"made with map_dtype = 'float16', but 'float32' is asked for"),
        (
            "extract.store=[]",
            r"made with store = \['aligned_map', 'image', 'mask_centre', 'mask_share'\], "
            r"but \['aligned_map', 'mask_centre', 'mask_share'\] is asked for",
        ),
        ("extract.aligned=derived", r"made with aligned = 'stored', but 'derived' is asked for"),
        ("extract.blocks=[1]", r"made with blocks = \[\], but \[1\] is asked for"),
        ("extract.sampling=bilinear", r"made with sampling = None, but 'bilinear' is asked for"),
        ("extract.precision=bfloat16", r"made with precision = 'float32', but 'bfloat16' is asked for"),
    ],
)
def test_changed_settings_are_refused_with_the_setting_and_the_remedy(lab, extracted_copy, monkeypatch, change, said):
    before = content(extracted_copy)
    monkeypatch.setattr(SafeNet, "forward", must_not_run)
    with pytest.raises(StaleStoreError, match=rf"features\.zarr/net_000: {said}\. Name another --run directory to keep both, or pass --replace"):
        extract(lab.run(extracted_copy, change, checkpoints=ONE))
    assert content(extracted_copy) == before


def test_replace_computes_anew(lab, extracted_copy):
    run = lab.run(extracted_copy, "extract.map_dtype=float32", checkpoints=ONE)
    assert extract(run, replace=True).computed == 4
    assert run.features("net_000").read(["patch_map"])["patch_map"].dtype == np.float32
    assert extract(run).computed == 0


def test_replace_leaves_fresh_features_alone(lab, extracted_copy, monkeypatch):
    monkeypatch.setattr(SafeNet, "forward", must_not_run)
    assert extract(lab.run(extracted_copy, checkpoints=ONE), replace=True).computed == 0


def test_what_was_made_of_replaced_features_refreshes_itself(lab, extracted_copy):
    one = lab.run(extracted_copy, "cam.targets=['match']", checkpoints=ONE)
    cam(one)
    stats(one)
    other = lab.run(extracted_copy, "extract.map_dtype=float32", "cam.targets=['match']", checkpoints=ONE)
    extract(other, replace=True)
    with pytest.raises(MissingProductError, match=r"cams\.zarr/net_000: 4 of 4 blocks lack heat maps .* run `atlas cam` first"):
        stats(other)
    assert cam(other).computed == 6
    with pytest.raises(MissingProductError, match=r"stats\.zarr: older than the heat maps or the settings; run `atlas stats` again"):
        open_stats(other)
    assert stats(other).computed == 1


def test_another_file_in_the_place_of_the_first_is_refused(lab, extracted_copy, make_network, tmp_path):
    file = shutil.copy(lab.checkpoints / ONE, tmp_path)
    run = lab.run(extracted_copy, f"extract.checkpoints=['{file}']")
    assert extract(run).computed == 0
    save_checkpoint(Path(file), make_network(7))
    with pytest.raises(StaleStoreError, match="made of a checkpoint file of this name with other content"):
        extract(run)


def test_another_dataset_is_refused(lab, extracted_copy, tmp_path):
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    (photos / "train" / "drone" / "0000" / "image-01.jpeg").unlink()
    run = lab.run(extracted_copy, photos=photos, checkpoints=ONE)
    with pytest.raises(ValueError, match=r"1 images that it lists are no longer in the dataset \(drone/0000/image-01\)\. .* or pass --forget"):
        index(run)
    index(run, forget=True)
    with pytest.raises(StaleStoreError, match=r"made of 15 images, but .* lists 14"):
        extract(lab.run(extracted_copy, photos=photos, checkpoints=ONE))


# ---- half-done blocks


def remove_block(directory: Path, number: int) -> None:
    (directory / "ledger" / "features" / "net_000" / f"{number:06d}.json").unlink()


def test_a_block_without_its_record_is_done_again(lab, extracted, extracted_copy):
    remove_block(extracted_copy, 2)
    assert extract(lab.run(extracted_copy, checkpoints=ONE)).computed == 1
    assert content(extracted_copy) == content(extracted)


def test_a_block_without_its_data_is_done_again(lab, extracted, extracted_copy):
    remove_block(extracted_copy, 1)
    (extracted_copy / "features.zarr" / "net_000" / "patch_map" / "c.1.0.0.0").unlink()
    assert extract(lab.run(extracted_copy, checkpoints=ONE)).computed == 1
    assert content(extracted_copy) == content(extracted)


def test_an_unmarked_block_is_never_trusted(lab, extracted, extracted_copy):
    """Its files are there and have good checksums, and yet nothing says that they are whole or of this network."""
    remove_block(extracted_copy, 3)
    for wrong in (extracted_copy / "features.zarr" / "net_000").glob("*/c/3"):
        other = wrong.parent / "0"
        shutil.rmtree(wrong) if wrong.is_dir() else wrong.unlink()
        shutil.copytree(other, wrong) if other.is_dir() else shutil.copy(other, wrong)
    assert content(extracted_copy) != content(extracted)
    assert extract(lab.run(extracted_copy, checkpoints=ONE)).computed == 1
    assert content(extracted_copy) == content(extracted)


def test_a_record_under_another_stamp_is_not_trusted(lab, extracted, extracted_copy):
    path = extracted_copy / "ledger" / "features" / "net_000" / "000001.json"
    path.write_text(re.sub(r'"stamp": "[0-9a-f]{4}', '"stamp": "0000', path.read_text()))
    assert extract(lab.run(extracted_copy, checkpoints=ONE)).computed == 1
    assert content(extracted_copy) == content(extracted)


@pytest.mark.parametrize("writes", [0, 1, 5, 20, 45])
def test_a_writer_killed_at_any_array_loses_only_open_blocks(lab, fresh, extracted, monkeypatch, writes):
    calls = [0]
    original = GroupStore.write_chunk

    def killed(self, *arguments):
        calls[0] += 1
        if calls[0] > writes:
            raise KeyboardInterrupt
        return original(self, *arguments)

    run = lab.run(fresh, checkpoints=ONE)
    with monkeypatch.context() as patch:
        patch.setattr(GroupStore, "write_chunk", killed)
        with pytest.raises(KeyboardInterrupt):
            extract(run)
    missing, _ = missing_blocks(run.features("net_000"))
    assert missing >= 4 - writes // len(run.features("net_000").attributes["block_arrays"])  # several blocks are written at the same time
    with pytest.raises(MissingProductError, match=rf"unfinished, {missing} of 4 blocks missing; run `atlas extract` again, or pass --partial"):
        finished_checkpoints(run)
    assert extract(lab.run(fresh, checkpoints=ONE)).computed == missing
    assert content(fresh) == content(extracted)


@pytest.mark.parametrize(("owner", "step"), [(GroupStore, "write_block"), (Ledger, "mark")])
def test_a_kill_between_data_and_record_does_the_block_again(lab, fresh, extracted, monkeypatch, owner, step):
    original = getattr(owner, step)

    def killed(self, *arguments, **notes):
        if any(getattr(argument, "index", None) == 2 for argument in arguments):  # the block
            raise KeyboardInterrupt
        original(self, *arguments, **notes)

    run = lab.run(fresh, checkpoints=ONE)
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, killed)
        with pytest.raises(KeyboardInterrupt):
            extract(run)
    assert not run.features("net_000").ledger.record(run.features("net_000").blocks[2])
    assert extract(lab.run(fresh, checkpoints=ONE)).computed >= 1  # the block after it may or may not have been written
    assert content(fresh) == content(extracted)


def test_a_full_disk_is_an_error_and_not_a_hang(lab, fresh, extracted, monkeypatch):

    def full(self, *arguments):
        raise OSError(28, "No space left on device")

    started = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(GroupStore, "write_chunk", full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            extract(lab.run(fresh, checkpoints=ONE))
    (note,) = caught.value.__notes__
    assert note.endswith(f" are free at {fresh}, left to extract: net_000: 4 of 4 blocks, about 127.8 kB")
    assert time.monotonic() - started < 20
    extract(lab.run(fresh, checkpoints=ONE))
    assert content(fresh) == content(extracted)


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_heat_maps_killed_midway_end_up_the_same(lab, extracted, tmp_path, monkeypatch, executor):
    directories = [Path(shutil.copytree(extracted, tmp_path / name)) for name in ("killed", "undisturbed")]
    runs = [lab.run(directory, f"compute.executor={executor}", checkpoints=ONE) for directory in directories]
    cam(runs[1])
    calls = [0]
    original = GroupStore.write_chunk

    def killed(self, *arguments):
        calls[0] += 1
        if calls[0] > 13:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(GroupStore, "write_chunk", killed)
        with pytest.raises(KeyboardInterrupt):
            cam(runs[0])
    with pytest.raises(MissingProductError, match=r"blocks lack heat maps that the settings ask for; run `atlas cam` first"):
        stats(runs[0])
    cam(runs[0])
    assert content(directories[0] / "cams.zarr") == content(directories[1] / "cams.zarr")


# ---- unfinished features


@pytest.fixture
def unfinished(finished_copy):
    """net_001 lacks two blocks of its features."""
    for number in (0, 3):
        (finished_copy / "ledger" / "features" / "net_001" / f"{number:06d}.json").unlink()
    return finished_copy


@pytest.mark.parametrize("stage", [cam, stats, render])
def test_unfinished_features_are_refused_with_what_is_missing(lab, unfinished, stage):
    said = r"features\.zarr/net_001: unfinished, 2 of 4 blocks missing; run `atlas extract` again, or pass --partial"
    with pytest.raises(MissingProductError, match=said):
        stage(lab.run(unfinished))


def test_partial_goes_on_without_the_unfinished(lab, unfinished):
    run = lab.run(unfinished)
    assert cam(run, partial=True).fresh == 18
    stats(run, partial=True)
    assert open_stats(run)["checkpoint"].values.tolist() == ["net_000", "net_002"]
    render(run, partial=True)
    entries = json.loads((unfinished / "mosaics" / "index.json").read_text())
    assert all("net_001" not in entry["checkpoints"] for entry in entries)
    report(run)


def test_partial_with_nothing_finished_is_refused(lab, extracted_copy):
    remove_block(extracted_copy, 0)
    with pytest.raises(MissingProductError, match=r"features\.zarr: no features; run `atlas extract` first"):
        cam(lab.run(extracted_copy, checkpoints=ONE), partial=True)


def test_status_counts_the_done_blocks(lab, unfinished):
    rows = {row["checkpoint"]: row for row in run_status(lab.run(unfinished))}
    assert [rows[name]["features"] for name in rows] == ["4/4 blocks", "2/4 blocks", "4/4 blocks"]
    assert [row["epoch"] for row in rows.values()] == ["0", "1", "2"]
    assert {row["heat maps"] for row in rows.values()} == {"9 kinds"}
    assert {row["figures"] for row in rows.values()} == {"yes"}


# ---- damage


def flip_a_bit(path: Path, place: int = 40) -> None:
    found = bytearray(path.read_bytes())
    found[place] ^= 4
    path.write_bytes(bytes(found))


@pytest.mark.parametrize("variable", ["patch_map", "part_feature", "boundary", "logit"])
def test_damaged_features_are_an_error_with_the_path(lab, extracted_copy, variable):
    path = next((extracted_copy / "features.zarr" / "net_000" / variable).glob("c.2.*"))
    flip_a_bit(path, 5)
    with pytest.raises(
        DamagedStoreError, match=rf"features\.zarr/net_000/{variable}, samples 8 to 11: damaged or missing: .*Run `atlas verify --repair`"
    ):
        cam(lab.run(extracted_copy, checkpoints=ONE))


def test_a_damaged_head_is_an_error(lab, extracted_copy):
    flip_a_bit(next((extracted_copy / "features.zarr" / "net_000" / "head_w1").glob("c.*")))
    with pytest.raises(DamagedStoreError, match=r"features\.zarr/net_000/head_w1"):
        cam(lab.run(extracted_copy, checkpoints=ONE))


def test_damaged_heat_maps_are_an_error_and_never_a_picture(lab, finished_copy):
    run = lab.run(finished_copy, "stats.top_share=0.2", "render.panel_px=65")
    block = int(run.manifest.index[run.manifest["split"] == "test"][0]) // 4  # of the first place that is drawn
    flip_a_bit(finished_copy / "cams.zarr" / "net_002" / "aligned" / "match" / "grad_cam" / f"c.{block}.0.0")
    with pytest.raises(DamagedStoreError, match=rf"cams\.zarr/net_002/aligned/match/grad_cam, samples {4 * block} to \d+: damaged"):
        stats(run)
    with pytest.raises(DamagedStoreError, match=r"cams\.zarr/net_002/aligned/match/grad_cam, samples .*: damaged"):
        render(run)


# ---- what is missing is named


def test_each_stage_names_the_command_that_is_missing(lab, finished_copy, tmp_path):
    empty = lab.run(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"manifest\.parquet: no manifest; run `atlas index` first"):
        extract(empty)
    for stage in (cam, stats, render):
        with pytest.raises(MissingProductError, match=r"features\.zarr: no features; run `atlas extract` first"):
            stage(empty)
    with pytest.raises(MissingProductError, match=r"stats\.zarr: no figures; run `atlas stats` first"):
        report(empty)
    shutil.rmtree(finished_copy / "mosaics")
    with pytest.raises(MissingProductError, match=r"mosaics/index\.json: no mosaics; run `atlas render` first"):
        report(lab.run(finished_copy))


def test_stages_after_extraction_name_the_cam_command(lab, extracted_copy):
    run = lab.run(extracted_copy, checkpoints=ONE)
    for stage in (stats, render):
        with pytest.raises(
            MissingProductError, match=r"cams\.zarr/net_000: 4 of 4 blocks lack heat maps that the settings ask for; run `atlas cam` first"
        ):
            stage(run)
    cam(run)
    with pytest.raises(MissingProductError, match=r"stats\.zarr: no figures; run `atlas stats` first"):
        render(lab.run(extracted_copy, "render.scope=dataset", checkpoints=ONE))


def test_later_stages_need_neither_checkpoints_nor_the_model(lab, extracted_copy, monkeypatch, tmp_path):
    """A laptop months later: no checkpoint file, no network; the gate runs the stored heads alone."""
    monkeypatch.setattr(SafeNet, "__init__", must_not_run)
    monkeypatch.setattr(VisionTransformer, "__init__", must_not_run)
    monkeypatch.setattr(torch, "load", must_not_run)
    run = lab.run(extracted_copy, f"extract.checkpoints=['{tmp_path}/gone.pth']", "cam.methods=['hires_cam']", "render.methods=['hires_cam']")
    assert cam(run).computed == 6
    assert stats(run).computed == 1
    assert render(run).computed == 3
    report(run)


def test_deleted_features_are_made_again(lab, extracted, extracted_copy):
    shutil.rmtree(extracted_copy / "features.zarr")
    assert extract(lab.run(extracted_copy, checkpoints=ONE)).computed == 4
    assert content(extracted_copy) == content(extracted)
