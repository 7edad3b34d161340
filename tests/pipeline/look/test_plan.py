"""`atlas plan`: what is fresh, stale and why, partial or missing, and how much work that is; and that the stages then do just that."""

import builtins
import io
import json
import os
import re
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.cam import spans as cam_spans
from pipeline.disk.records import write_record
from pipeline.extract.layout import image_bytes
from pipeline.extract.stage import extract
from pipeline.features.bad_images import bad_images
from pipeline.index.stage import index
from pipeline.look import plan as plan_module
from pipeline.look.plan import Row, human_seconds, plan, plan_json, plan_table, predicted_bytes
from pipeline.render.listing import LISTING
from pipeline.run.directory import Run
from pipeline.run.rates import rates
from pipeline.stages import STAGES
from pipeline.stats.stage import stats
from safenet.checkpoint import read_checkpoint, save_checkpoint
from stages.extract.batch import FeatureExtractor

ONE = "net_000.pth"
NAMES = ["net_000", "net_001", "net_002"]
BELOW = ("stats", "render", "report")
FEW = ("cam.positions=['aligned']", "cam.targets=['match']", "render.mosaics=['paper']", "extract.max_bad_share=0.2")
DATASET_CHANGED = "files were added, removed, renamed or changed in size since, or [dataset] asks for others"
CELLS = 8 * 8  # of a map of configs/tiny.toml


@pytest.fixture
def photos(lab, tmp_path):
    """A copy of the lab's photos, to change."""
    return Path(shutil.copytree(lab.photos, tmp_path / "photos"))


@dataclass(frozen=True)
class Small:
    """A run with every stage done, for one checkpoint and few maps, and its own photos; `lab` is the one of conftest.py."""

    lab: Any
    folder: Path

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    def restore_photos(self) -> None:
        shutil.rmtree(self.photos, ignore_errors=True)
        shutil.copytree(self.lab.photos, self.photos)

    def run(self, directory: Path, *more: str) -> Run:
        return self.lab.run(directory, *FEW, *more, photos=self.photos, checkpoints=ONE)


@pytest.fixture(scope="module")
def made(lab, tmp_path_factory):
    found = Small(lab, tmp_path_factory.mktemp("small"))
    found.restore_photos()
    for stage in STAGES:
        stage.bring_up_to_date(found.run(found.folder / "run"))
    return found


@pytest.fixture
def small(made):
    made.restore_photos()
    return made


def rows_of(found: Run | list[Row], stage: str) -> dict[str, Row]:
    return {row.what: row for row in (plan(found) if isinstance(found, Run) else found) if row.stage == stage}


def only(found: Run | list[Row], stage: str) -> Row:
    (row,) = rows_of(found, stage).values()
    return row


def states(found: Run | list[Row]) -> dict[str, set[str]]:
    """Stage -> the states of its rows."""
    rows = plan(found) if isinstance(found, Run) else found
    return {stage.name: {row.state for row in rows if row.stage == stage.name} for stage in STAGES}


def one_image_bytes(lab, run) -> int:
    return image_bytes(run, read_checkpoint(lab.checkpoints / ONE).info)


def add_place(photos: Path) -> None:
    """Two more images."""
    for view, file in (("drone", "image-01.jpeg"), ("satellite", "0000a.jpg")):
        (photos / "train" / view / "0000a").mkdir()
        pixels = np.random.default_rng(len(file)).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / "train" / view / "0000a" / file, format="JPEG")


def change(photos: Path, name: str = "image-01.jpeg") -> None:
    Image.new("RGB", (48, 48), "red").save(photos / "train" / "drone" / "0000" / name)


# ---- from nothing to everything


def test_of_an_empty_run_everything_waits_for_the_index(lab, tmp_path):
    run = lab.run(tmp_path / "run")
    rows = plan(run)
    assert only(rows, "index").state == "missing"
    assert {stage: states(rows)[stage] for stage in ("extract", "cam", *BELOW)} == {key: {"waits"} for key in ("extract", "cam", *BELOW)}
    assert only(rows, "extract").reason.endswith("manifest.parquet: no manifest; run `atlas index` first")
    assert only(rows, "cam").reason.endswith("features.zarr: no features; run `atlas extract` first")
    assert not run.directory.exists(), "a plan makes no folder"


def test_after_index_every_checkpoint_is_missing_with_all_its_work(lab, indexed):
    run = lab.run(indexed)
    rows = plan(run)
    assert list(rows_of(rows, "extract")) == NAMES
    size = 15 * one_image_bytes(lab, run)
    assert {(row.state, row.reason, row.images, row.bytes) for row in rows_of(rows, "extract").values()} == {
        ("missing", "not extracted yet", 15, size)
    }
    assert {name: (row.state, row.reason, row.images) for name, row in rows_of(rows, "cam").items()} == dict.fromkeys(
        NAMES, ("waits", "for extract", 15 * 9)
    )
    assert {stage: only(rows, stage).reason for stage in BELOW} == {"stats": "for cam", "render": "for cam", "report": "for stats"}


def test_the_bytes_of_an_image_are_those_that_extract_then_writes(lab, extracted):
    run = lab.run(extracted, checkpoints=ONE)
    store = run.features("net_000")
    stored = store.read(store.attributes["block_arrays"])
    assert 15 * one_image_bytes(lab, run) == sum(values.nbytes for values in stored.values())


def test_after_extract_the_maps_are_missing_with_their_bytes(lab, extracted):
    run = lab.run(extracted, checkpoints=ONE)
    row = only(run, "cam")
    assert (row.state, row.reason, row.images, row.bytes) == ("missing", "not computed yet", 15 * 9, 15 * 9 * CELLS * 4)
    assert only(run, "extract").state == "fresh"


def test_of_a_finished_run_everything_is_fresh_and_no_work(finished):
    rows = plan(finished)
    assert [(row.stage, row.what) for row in rows] == [
        ("index", ""),
        *((stage, name) for stage in ("extract", "cam", "stats") for name in NAMES),
        ("render", "6 pictures"),
        ("report", ""),
    ]
    assert {(row.state, row.images, row.bytes, row.seconds) for row in rows} == {("fresh", 0, 0, None)}


def test_photos_that_are_not_at_hand_are_no_fault(lab, finished, tmp_path):
    row = only(lab.run(finished.directory, photos=tmp_path / "gone"), "index")
    assert (row.state, row.reason) == ("fresh", "the photos are not here, so they cannot be compared")


def test_without_checkpoint_files_what_is_extracted_is_still_judged(lab, finished, tmp_path):
    """A laptop months later: later stages need no checkpoint file, and do not wait for one."""
    rows = plan(lab.run(finished.directory, f"extract.checkpoints=['{tmp_path}/gone.pth']"))
    row = only(rows, "extract")
    assert row.state == "waits"
    assert re.search(r"extract\.checkpoints: no file matches '.*gone\.pth'", row.reason)
    assert list(rows_of(rows, "cam")) == NAMES
    assert {stage: states(rows)[stage] for stage in ("cam", *BELOW)} == {key: {"fresh"} for key in ("cam", *BELOW)}


# ---- settings


def test_another_colour_map_redraws_and_nothing_else(lab, finished):
    rows = plan(lab.run(finished.directory, "render.colour_map=viridis"))
    assert states(rows) == {**{key: {"fresh"} for key in ("index", "extract", "cam", "stats")}, "render": {"stale"}, "report": {"waits"}}
    row = only(rows, "render")
    assert (row.reason, row.images) == ("6 pictures: render.colour_map was 'inferno', is 'viridis'", 6)
    assert only(rows, "report").reason == "for render"


def test_more_places_are_pictures_to_draw(lab, finished):
    row = rows_of(lab.run(finished.directory, "render.place_count=2"), "render")["12 pictures"]
    assert (row.state, row.reason, row.images) == ("partial", "6 not drawn yet", 6)


def test_another_threshold_names_itself_and_makes_pictures_stale(lab, finished):
    rows = plan(lab.run(finished.directory, "stats.low_contrast_below=0.5"))
    assert states(rows)["cam"] == {"fresh"}
    assert {name: (row.state, row.reason, row.images) for name, row in rows_of(rows, "stats").items()} == {
        **dict.fromkeys(NAMES, ("stale", "settings.low_contrast_below was 0.01, is 0.5", 15)),
        "all_checkpoints": ("stale", "a checkpoint's figures change", 0),
    }
    row = only(rows, "render")
    assert (row.state, row.images) == ("stale", 6)
    assert "stats.low_contrast_below" in row.reason
    assert only(rows, "report").reason == "for stats"


def test_pictures_on_a_wider_scale_wait_for_the_figures(lab, finished):
    rows = plan(lab.run(finished.directory, "stats.low_contrast_below=0.5", "render.scope=dataset"))
    assert (only(rows, "render").state, only(rows, "render").reason) == ("waits", "for stats")


def test_a_new_method_is_partial_and_counts_its_maps_alone(lab, finished):
    rows = plan(lab.run(finished.directory, "cam.methods=['l2_norm','grad_cam','mean']"))
    assert states(rows)["extract"] == {"fresh"}
    for row in rows_of(rows, "cam").values():
        assert row.state == "partial"
        assert row.reason.startswith("3 of 12 maps (aligned/none/mean, part/none/mean, ...) are new")
        assert (row.images, row.bytes) == (3 * 15, 3 * 15 * CELLS * 4)
    assert {stage: only(rows, stage).state for stage in BELOW} == dict.fromkeys(BELOW, "waits")


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("extract.map_dtype=float32", "made with map_dtype = 'float16', but 'float32' is asked for; needs --replace"),
        ("extract.blocks=[1]", "made with blocks = [], but [1] is asked for; needs --replace"),
        ("extract.sampling=bilinear", "made with sampling = None, but 'bilinear' is asked for; needs --replace"),
    ],
)
def test_a_changed_extract_setting_names_itself_and_the_remedy(lab, finished, setting, reason):
    run = lab.run(finished.directory, setting)
    rows = plan(run)
    size = 15 * one_image_bytes(lab, run)
    assert {(row.state, row.reason, row.images, row.bytes) for row in rows_of(rows, "extract").values()} == {("stale", reason, 15, size)}
    assert {stage: states(rows)[stage] for stage in ("cam", *BELOW)} == {key: {"waits"} for key in ("cam", *BELOW)}


def test_resources_change_nothing(lab, finished):
    more = ("extract.batch_size=1", "extract.block_samples=5", "extract.workers=1", "compute.workers=1", "compute.executor=serial")
    assert set().union(*states(lab.run(finished.directory, *more)).values()) == {"fresh"}


# ---- checkpoints


def test_of_a_new_checkpoint_only_itself_is_missing(lab, finished, make_network, tmp_path):
    folder = Path(shutil.copytree(lab.checkpoints, tmp_path / "checkpoints"))
    save_checkpoint(folder / "net_003.pth", make_network(3), epoch=3)
    run = lab.run(finished.directory, f"extract.checkpoints=['{folder}/net_*.pth']")
    for stage, state in (("extract", "missing"), ("cam", "waits")):
        assert {name: row.state for name, row in rows_of(run, stage).items()} == {**dict.fromkeys(NAMES, "fresh"), "net_003": state}


def test_work_on_a_finished_checkpoint_is_told_while_another_is_missing(lab, extracted):
    rows = rows_of(lab.run(extracted, checkpoints="net_00[01].pth"), "cam")
    assert {name: (row.state, row.images) for name, row in rows.items()} == {"net_000": ("missing", 135), "net_001": ("waits", 135)}


def test_a_changed_checkpoint_file_is_the_reason(lab, extracted, make_network, tmp_path):
    directory, file = shutil.copytree(extracted, tmp_path / "run"), Path(shutil.copy(lab.checkpoints / ONE, tmp_path))
    run = lab.run(directory, f"extract.checkpoints=['{file}']")
    extract(run)  # notes where the file lies
    save_checkpoint(file, make_network(7))
    row = only(run, "extract")
    said = "made of a checkpoint file of this name with other content; needs --replace"
    assert (row.state, row.reason, row.images) == ("stale", said, 15)


# ---- images


def test_new_photos_make_the_index_stale_and_then_count_as_themselves(lab, extracted_copy, photos):
    index(lab.run(extracted_copy, photos=photos))
    add_place(photos)
    row = only(lab.run(extracted_copy, photos=photos, checkpoints=ONE), "index")
    assert (row.state, row.reason, row.images) == ("stale", DATASET_CHANGED, 15)
    index(lab.run(extracted_copy, photos=photos))
    run = lab.run(extracted_copy, photos=photos, checkpoints=ONE)
    assert only(run, "index").state == "fresh"
    row = only(run, "extract")
    assert (row.state, row.reason, row.images, row.bytes) == ("partial", "2 new images", 2, 2 * one_image_bytes(lab, run))
    extract(run)
    assert only(lab.run(extracted_copy, photos=photos, checkpoints=ONE), "extract").state == "fresh"


def test_photos_in_another_folder_are_listed_again(lab, finished, photos):
    row = only(lab.run(finished.directory, photos=photos), "index")
    assert (row.state, row.reason) == ("stale", f"the photos were in {lab.photos} when they were listed")
    assert only(lab.run(finished.directory, "dataset.limit_places=1"), "index").reason == DATASET_CHANGED


def test_a_changed_photo_is_named_and_is_one_image_of_work(lab, extracted_copy, photos, monkeypatch):
    """`--replace` writes the store anew, and carries over what is proven."""
    change(photos)
    index(lab.run(extracted_copy, photos=photos))
    run = lab.run(extracted_copy, photos=photos, checkpoints=ONE)
    row = only(run, "extract")
    assert row.state == "stale"
    assert re.search(r"made of another list of images than .* \(1 changed, for instance drone/0000/image-01\); needs --replace", row.reason)
    assert (row.images, row.bytes) == (1, 15 * one_image_bytes(lab, run))
    batches = count_batches(monkeypatch)
    extract(run, replace=True)
    assert sum(batches) == 1


def test_a_forgotten_photo_is_no_image_of_work(lab, extracted_copy, photos, monkeypatch):
    (photos / "train" / "drone" / "0000" / "image-01.jpeg").unlink()
    index(lab.run(extracted_copy, photos=photos), forget=True)
    run = lab.run(extracted_copy, photos=photos, checkpoints=ONE)
    row = only(run, "extract")
    assert (row.state, row.images) == ("stale", 0)
    assert re.search(r"^made of 15 images, but .*manifest\.parquet lists 14; needs --replace$", row.reason)
    batches = count_batches(monkeypatch)
    extract(run, replace=True)
    assert batches == []


def test_a_quarantined_image_is_done_and_a_mended_one_is_work(lab, photos, tmp_path):
    path = photos / "train" / "drone" / "0000" / "image-01.jpeg"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])

    def run():
        return lab.run(tmp_path / "run", "extract.max_bad_share=0.2", photos=photos, checkpoints=ONE)

    index(run())
    extract(run())
    assert list(bad_images(run())) == ["drone/0000/image-01"]
    assert only(run(), "extract").state == "fresh"
    assert only(run(), "cam").state == "missing"
    path.write_bytes(good)
    assert only(run(), "index").state == "stale"
    index(run())
    row = only(run(), "extract")
    assert (row.state, row.reason, row.images) == ("partial", "1 of 4 blocks missing", 4)


# ---- what is damaged or gone


def test_a_missing_block_is_counted(lab, finished_copy):
    (finished_copy / "ledger" / "features" / "net_001" / "000002.json").unlink()
    run = lab.run(finished_copy)
    rows = rows_of(run, "extract")
    assert {name: row.state for name, row in rows.items()} == {"net_000": "fresh", "net_001": "partial", "net_002": "fresh"}
    row = rows["net_001"]
    assert (row.reason, row.images, row.bytes) == ("1 of 4 blocks missing", 4, 4 * one_image_bytes(lab, run))
    assert {name: row.state for name, row in rows_of(run, "cam").items()} == {"net_000": "fresh", "net_001": "waits", "net_002": "fresh"}


def test_a_missing_block_of_maps_is_counted(lab, finished_copy):
    (finished_copy / "cams.zarr" / "net_001" / "aligned" / "match" / "grad_cam" / "c.3.0.0").unlink()
    (finished_copy / "ledger" / "cams" / "net_001" / "whole.json").unlink()
    rows = rows_of(lab.run(finished_copy), "cam")
    assert {name: row.state for name, row in rows.items()} == {"net_000": "fresh", "net_001": "partial", "net_002": "fresh"}
    said = "1 of 9 maps (aligned/match/grad_cam) missing or of changed features in 1 of 4 blocks"
    assert (rows["net_001"].reason, rows["net_001"].images) == (said, 3)  # the last block has 3 samples


def test_missing_facts_make_their_map_missing(lab, finished_copy):
    (finished_copy / "cams.zarr" / "net_001" / "facts" / "aligned" / "match" / "grad_cam" / "c.3.0").unlink()
    rows = rows_of(lab.run(finished_copy), "cam")
    assert (rows["net_001"].state, rows["net_001"].images) == ("partial", 3)


@pytest.mark.parametrize("damage", [b"", b"cut"])
def test_a_damaged_picture_is_drawn_again(lab, finished_copy, damage):
    sorted((finished_copy / "mosaics").rglob("*.png"))[0].write_bytes(damage)
    row = only(lab.run(finished_copy), "render")
    assert (row.state, row.reason, row.images) == ("stale", "1 damaged", 1)


def test_a_deleted_picture_is_drawn_again(lab, finished_copy):
    sorted((finished_copy / "mosaics").rglob("*.png"))[0].unlink()
    row = only(lab.run(finished_copy), "render")
    assert (row.state, row.reason, row.images) == ("partial", "1 not drawn yet", 1)


def test_without_pictures_they_are_missing(lab, finished_copy):
    shutil.rmtree(finished_copy / "mosaics")
    assert only(lab.run(finished_copy), "render").state == "missing"
    shutil.rmtree(finished_copy / "stats.zarr")
    assert {row.reason for name, row in rows_of(lab.run(finished_copy), "stats").items() if name in NAMES} == {"not computed yet"}


def test_damaged_figures_are_stale(lab, finished_copy):
    (finished_copy / "stats.zarr" / "net_001" / "energy" / "zarr.json").write_bytes(b"{}")
    rows = rows_of(lab.run(finished_copy), "stats")
    assert {name: row.state for name, row in rows.items()} == {"net_000": "fresh", "net_001": "stale", "net_002": "fresh"}
    assert rows["net_001"].reason == "its files are damaged"


def test_damaged_joined_figures_are_stale(small, tmp_path):
    directory = Path(shutil.copytree(small.folder / "run", tmp_path / "run"))
    (directory / "stats.zarr" / "all_checkpoints" / "energy" / "zarr.json").write_bytes(b"{}")
    rows = rows_of(small.run(directory), "stats")
    assert {name: row.state for name, row in rows.items()} == {"net_000": "fresh", "all_checkpoints": "stale"}
    assert rows["all_checkpoints"].reason == "the checkpoints changed, or its files are damaged"
    stats(small.run(directory))
    assert states(small.run(directory))["stats"] == {"fresh"}


@pytest.mark.parametrize(("gone", "state"), [("report/index.html", "missing"), ("ledger/report.json", "stale")])
def test_a_page_that_is_gone_or_not_sealed_is_written_again(lab, finished_copy, gone, state):
    (finished_copy / gone).unlink()
    assert only(lab.run(finished_copy), "report").state == state


def test_a_page_without_its_list_of_pictures_waits(lab, finished_copy):
    (finished_copy / "mosaics" / LISTING).unlink()
    row = only(lab.run(finished_copy), "report")
    assert row.state == "waits"
    assert row.reason.endswith("no mosaics; run `atlas render` first")


# ---- how long


def test_seconds_are_images_by_the_measured_rate(lab, extracted_copy):
    (extracted_copy / "ledger" / "rates.json").unlink(missing_ok=True)
    run = lab.run(extracted_copy, "extract.map_dtype=float32", checkpoints=ONE)
    assert [row.seconds for row in plan(run)] == [None] * 6
    assert table_cells(run, "extract")["time"] == "?"
    write_record(extracted_copy / "ledger" / "rates.json", {"extract": 0.5, "cam": 3.0})
    assert only(run, "extract").seconds == 15 / 0.5
    assert only(run, "cam").seconds == 135 / 3.0
    assert only(run, "stats").seconds is None
    assert [table_cells(run, stage)["time"] for stage in ("index", "extract", "cam", "stats", "render")] == ["-", "30 s", "45 s", "?", "-"]


def test_damaged_rates_are_no_rates(lab, extracted_copy):
    (extracted_copy / "ledger" / "rates.json").write_bytes(b'{"extract": 2.0}\n00000000\n')
    assert only(lab.run(extracted_copy), "stats").seconds is None


def test_a_finished_run_has_measured_its_slow_stages(finished):
    """Those that took longer than a moment; what is quicker cannot be told from nothing."""
    assert {"extract", "cam", "stats", "render"} <= rates(finished.directory).keys()


def table_cells(run, stage: str) -> dict[str, str]:
    (cells,) = [cells for cells in plan_table(plan(run)) if cells["stage"] == stage]
    return cells


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "1 s"),
        (0.4, "1 s"),
        (1.0, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (100, "2 min"),
        (3569, "59 min"),
        (3599, "1 h 00 min"),
        (3725, "1 h 02 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_seconds_in_words(seconds, said):
    assert human_seconds(seconds) == said


# ---- it looks and does not touch


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Moment and size of everything, folders included."""
    paths = [folder, *folder.rglob("*")]
    return {path.as_posix(): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def test_a_plan_writes_nothing(lab, finished_copy):
    before = snapshot(finished_copy)
    for setting in ("render.alpha=0.5", "stats.top_share=0.3", "cam.methods=['mean']", "extract.map_dtype=float32"):
        plan(lab.run(finished_copy, setting))
        assert snapshot(finished_copy) == before, setting
    (finished_copy / "ledger" / "features" / "net_001" / "000002.json").unlink()
    before = snapshot(finished_copy)
    plan(lab.run(finished_copy))
    assert snapshot(finished_copy) == before


def test_a_plan_reads_no_photo(lab, finished, fresh, monkeypatch):
    """Neither to index them nor to draw; that the trap shuts is tried with the index stage."""
    opened = []
    for module, name in ((builtins, "open"), (io, "open"), (os, "open")):
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda path, *more, original=original, **options: opened.append(str(path)) or original(path, *more, **options)
        )
    for directory in (finished.directory, fresh):
        plan(lab.run(directory))
        plan(lab.run(directory, "render.colour_map=viridis"))
    assert opened, "nothing was opened at all: the trap is broken"
    assert [path for path in opened if Path(path).is_relative_to(lab.photos)] == []
    index(lab.run(fresh))
    assert len([path for path in opened if Path(path).is_relative_to(lab.photos)]) >= 15


# ---- the stages do what was planned


def count_batches(monkeypatch) -> list[int]:
    """How many images go through the network, batch by batch."""
    batches: list[int] = []
    original = FeatureExtractor.__call__
    monkeypatch.setattr(FeatureExtractor, "__call__", lambda self, images, *more: batches.append(len(images)) or original(self, images, *more))
    return batches


def count_maps(monkeypatch) -> list[int]:
    """How many maps are computed, block by block."""
    counts: list[int] = []
    original = cam_spans.cams_of_block
    monkeypatch.setattr(
        cam_spans,
        "cams_of_block",
        lambda block, map_keys, context: counts.append(len(block["valid"]) * len(map_keys)) or original(block, map_keys, context),
    )
    return counts


def forget_block(photos: Path, directory: Path) -> None:
    (directory / "ledger" / "features" / "net_000" / "000001.json").unlink()


def damage_picture(photos: Path, directory: Path) -> None:
    sorted((directory / "mosaics").rglob("*.png"))[0].write_bytes(b"")


def rename(photos: Path, directory: Path) -> None:
    folder = photos / "train" / "drone" / "0000"
    (folder / "image-01.jpeg").rename(folder / "image-77.jpeg")


def untouched(photos: Path, directory: Path) -> None:
    pass


CHANGES = {
    "nothing": ((), untouched),
    "colour map": (("render.colour_map=viridis",), untouched),
    "another threshold": (("stats.low_contrast_below=0.5",), untouched),
    "one more method": (("cam.methods=['l2_norm','grad_cam','mean']",), untouched),
    "an extract setting": (("extract.map_dtype=float32",), untouched),
    "new photos": ((), lambda photos, directory: add_place(photos)),
    "a changed photo": ((), lambda photos, directory: change(photos)),
    "a renamed photo": ((), rename),
    "a lost block": ((), forget_block),
    "a damaged picture": ((), damage_picture),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_stages_do_what_the_plan_says(small, tmp_path, monkeypatch, name):
    """Stage by stage: fresh if and only if nothing is computed, as many images as were told, and fresh afterwards."""
    more, touch = CHANGES[name]
    directory = Path(shutil.copytree(small.folder / "run", tmp_path / "run"))
    touch(small.photos, directory)
    monkeypatch.setattr("stages.report.page.draw_plots", lambda stats: [])  # they take longer than all the rest
    counted = {"extract": count_batches(monkeypatch), "cam": count_maps(monkeypatch)}
    for number, stage in enumerate(STAGES):
        rows = plan(small.run(directory, *more))
        assert {row.state for row in rows if row.stage in [before.name for before in STAGES[:number]]} <= {"fresh"}
        planned = [row for row in rows if row.stage == stage.name]
        assert "waits" not in {row.state for row in planned}
        options = {"replace": True} if any("needs --replace" in row.reason for row in planned) else {}
        outcome = stage.bring_up_to_date(small.run(directory, *more), **options)
        assert (outcome.computed == 0) == ({row.state for row in planned} == {"fresh"}), f"{planned}, and yet {outcome}"
        images = sum(row.images for row in planned)
        if stage.name in counted:
            assert images == sum(counted[stage.name])
        if stage.name == "render":
            assert images == outcome.computed
    assert {row.state for row in plan(small.run(directory, *more))} == {"fresh"}


# ---- the command


def test_the_table_on_the_command_line(lab, finished_copy):
    result = lab.atlas("plan", finished_copy, more=("render.colour_map=viridis",))
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["stage", "what", "state", "images", "writes", "time", "why"]
    assert re.search(
        r"^ render +6 pictures +stale +6 +- +\S+.* +6 pictures: render\.colour_map was 'inferno', is 'viridis'$", result.stdout, re.MULTILINE
    )
    assert re.search(r"^ *extract +net_002 +fresh +- +- +- +-$", result.stdout, re.MULTILINE)
    assert len(lines) == 1 + 1 + 3 * 3 + 2


def test_a_plan_for_machines(lab, fresh):
    write_record(fresh / "ledger" / "rates.json", {"extract": 5.0})
    result = lab.atlas("plan", fresh, "--json", checkpoints=ONE)
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert [row["stage"] for row in found] == ["index", "extract", "cam", "stats", "render", "report"]
    assert {tuple(row) for row in found} == {("stage", "what", "state", "reason", "images", "bytes", "seconds")}
    assert tuple(field.name for field in fields(Row)) == tuple(found[0])
    size = 15 * one_image_bytes(lab, lab.run(fresh))
    row = {"stage": "extract", "what": "net_000", "state": "missing", "reason": "not extracted yet", "images": 15, "bytes": size, "seconds": 3.0}
    assert found[1] == row
    assert found == plan_json(plan(lab.run(fresh, checkpoints=ONE)))


def test_a_wrong_setting_is_one_line(lab, finished):
    result = lab.atlas("plan", finished.directory, more=("render.places=['nowhere']",))
    assert result.exit_code == 1
    assert re.fullmatch(r"atlas: .*'nowhere'.*\n", result.stderr)


def test_predicted_bytes_are_those_of_the_plan(lab, fresh, tmp_path):
    chosen = lab.assignments(ONE)
    assert predicted_bytes(fresh, lab.config, chosen) == 15 * one_image_bytes(lab, lab.run(fresh))
    assert predicted_bytes(tmp_path / "none", lab.config, chosen) is None
    assert predicted_bytes(fresh, lab.config, ("extract.batch_sise=3",)) is None


def test_predicting_bytes_looks_at_no_other_stage(lab, finished, monkeypatch):
    """It is asked for by `atlas doctor`: at full size the whole plan takes minutes."""
    for name in ("listing_stamp", "stale_figures", "wanted_pictures", "report_stamp"):
        monkeypatch.setattr(plan_module, name, lambda *asked, name=name: pytest.fail(f"asked for {name}"))
    assert predicted_bytes(finished.directory, lab.config, lab.assignments()) == 0


def test_the_rates_are_read_once(lab, finished, monkeypatch):
    asked, original = [], plan_module.rates
    monkeypatch.setattr(plan_module, "rates", lambda directory: asked.append(directory) or original(directory))
    assert len(plan(finished)) > len(asked) == 1
