"""Stores of earlier versions stay readable and are never computed again; stores of later ones are refused.

tests/stores/run_v1.zip was made by the code of schema version 1, tests/stores/run_v2.zip by that of version 2. Each holds
photos/, checkpoints/net_000.pth and run/, the run as `atlas index`, `extract`, `cam` and `stats` left it, with the settings
below. The second one was made so, in an empty folder, with the photos and the checkpoint of the first:

    monkeypatch.setattr(socket, "gethostname", lambda: "example")
    monkeypatch.setattr(platform, "platform", lambda: "Linux")
    monkeypatch.chdir(folder)
    run = Run(Path("run"), load_settings(CONFIG, SETTINGS), progress=False)
    for stage in STAGES[:4]:
        stage.bring_up_to_date(run)
    table = read_manifest(run.manifest_path)
    table.attrs["root"] = "photos"  # `index` notes an absolute path
    write_manifest(run.manifest_path, table)
    shutil.rmtree(run.directory / "locks")
    shutil.make_archive("run_v2", "zip", folder)

When the schema changes, make run_v3.zip likewise before it does, and add 3 to VERSIONS.
"""

import itertools
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner
from disk_content import TIME_SAVERS
from PIL import Image

import pipeline
from pipeline.cam.stage import cam
from pipeline.commands.group import main
from pipeline.disk.records import read_record
from pipeline.extract import extractor as feature_spans
from pipeline.extract.stage import extract
from pipeline.features import schema_versions
from pipeline.features.bad_images import bad_images
from pipeline.features.finished import finished_checkpoints
from pipeline.index.stage import index
from pipeline.look.plan import plan
from pipeline.look.verify import verify
from pipeline.run.directory import MissingProductError, Run, StaleStoreError
from pipeline.run.manifest import read_manifest
from pipeline.settings.all import load_settings
from pipeline.stages import STAGES
from pipeline.stats.stage import stats
from pipeline.stats.staleness import open_stats
from pipeline.store import blocks, seals
from pipeline.store.groups import DamagedStoreError
from safenet.model import SafeNet
from stages.cam.facts import FACTS
from stages.cam.map_keys import FACTS_PREFIX
from stages.extract.batch import FeatureExtractor
from stages.schema import LATEST_SCHEMA_VERSION, SCHEMA_VERSION

VERSIONS = (1, 2)
STORES = Path(__file__).parents[2] / "stores"
CONFIG = Path(__file__).parents[3] / "configs" / "tiny.toml"
SETTINGS = (
    "dataset.root='photos'",
    "extract.checkpoints=['checkpoints/net_*.pth']",
    "extract.block_samples=8",
    "cam.targets=['match']",
    "cam.positions=['aligned']",
)
MAPS = ["aligned/match/grad_cam", "aligned/none/l2_norm"]
MARKS = Path("run/ledger/features/net_000")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory: the runs name photos and checkpoints by relative paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def unpack(version: int) -> None:
    with zipfile.ZipFile(STORES / f"run_v{version}.zip") as archive:
        archive.extractall()


@pytest.fixture(params=VERSIONS, ids=[f"version {number}" for number in VERSIONS])
def old(request, here):
    """A run of each version; its number."""
    unpack(request.param)
    return request.param


@pytest.fixture
def first(here):
    """A run of version 1."""
    unpack(1)


@pytest.fixture
def no_network(monkeypatch):
    """Neither a photo nor the network may be touched."""

    def must_not_run(*arguments, **options):
        raise AssertionError("this was to be skipped")

    monkeypatch.setattr(SafeNet, "forward", must_not_run)
    monkeypatch.setattr(FeatureExtractor, "__call__", must_not_run)
    monkeypatch.setattr(feature_spans, "PhotoReader", must_not_run)


def run_here(*more: str) -> Run:
    return Run(Path("run"), load_settings(CONFIG, (*SETTINGS, *more)), progress=False)


def atlas(command: str, *options: str):
    sets = [part for assignment in SETTINGS for part in ("--set", assignment)]
    return CliRunner().invoke(main, [command, "--config", str(CONFIG), "--run", "run", *sets, *options])


def block_files() -> dict[str, bytes]:
    """Every file of a block of features."""
    store = run_here().features("net_000")
    return {str(path): path.read_bytes() for key in store.attributes["block_arrays"] for path in sorted((store.root / key).glob("c.*"))}


def whole_run() -> dict[str, bytes]:
    """Every file but the locks, and what is noted to save time: a file that has just changed is not noted."""
    files = (path for path in Path("run").rglob("*") if path.is_file() and "locks" not in path.parts and path.name not in TIME_SAVERS)
    return {str(path): path.read_bytes() for path in files}


def marks() -> list[dict]:
    return [read_record(path) for path in sorted(MARKS.glob("[0-9]*.json"))]


def values_by_id() -> dict[str, dict[str, np.ndarray]]:
    store = run_here().features("net_000")
    found = store.read(["sample_id", *store.attributes["block_arrays"]])
    return {name: {str(key): found[key].values[row] for key in found} for row, name in enumerate(found["sample_id"].values.tolist())}


def add_place() -> None:
    """Two more images, of a place that sorts among the old ones."""
    for view, file in (("drone", "image-01.jpeg"), ("satellite", "0000a.jpg")):
        folder = Path("photos/train") / view / "0000a"
        folder.mkdir()
        pixels = np.random.default_rng(len(file)).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / file, format="JPEG")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[5] ^= 4
    path.write_bytes(bytes(content))


# ---- reading


def test_there_is_a_store_of_every_version_and_they_are_of_that_version(old):
    assert max(VERSIONS) == SCHEMA_VERSION
    assert json.loads(Path("run/features.zarr/net_000/zarr.json").read_text())["attributes"]["schema_version"] == old
    assert Path(MARKS / "layout.json").exists() == (old > 1)


def test_it_opens_with_our_package(old):
    run = pipeline.open_run("run")
    assert run.features.sizes["checkpoint"] == 1
    assert run.features["epoch"].values.tolist() == [0]
    assert run.features["patch_map"].shape == (1, 15, 8, 8, 16)
    assert np.isfinite(run.features["patch_map"].values.astype(np.float32)).all()
    assert run.features["sample_id"].values.tolist() == run.manifest["id"].tolist()
    assert sorted(run.cams) == MAPS
    assert np.isfinite(run.cams[MAPS[0]].values).all()
    assert run.stats["recall_1"].dims == ("checkpoint", "direction")
    assert run.stats["checkpoint"].values.tolist() == ["net_000"]
    assert run.provenance["net_000"]["made_with"]["map_dtype"] == "float16"


def test_it_opens_with_plain_xarray(old):
    features = xr.open_zarr("run/features.zarr", group="net_000", consolidated=False)
    maps = xr.open_zarr("run/cams.zarr/net_000/aligned/match", consolidated=False)
    figures = xr.open_zarr("run/stats.zarr", group="all_checkpoints", consolidated=False)
    opened = pipeline.open_run("run")
    np.testing.assert_array_equal(features["embedding"].values, opened.features["embedding"].values[0])
    np.testing.assert_array_equal(maps["grad_cam"].values, opened.cams["aligned/match/grad_cam"].values[0])
    np.testing.assert_array_equal(figures["recall_1"].values, opened.stats["recall_1"].values)


def test_all_versions_hold_the_same_features(here):
    found = []
    for version in VERSIONS:
        unpack(version)
        found.append(values_by_id())
        Path("run").rename(f"run_{version}")
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, key in itertools.product(other, found[0]["drone/0000/image-01"]):
            np.testing.assert_array_equal(other[name][key], found[0][name][key], err_msg=f"{name} {key}")


def test_status_tells_what_it_holds(old):
    result = atlas("status", "--bad")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "run: 15 images, 0 bad" in result.stdout
    assert re.search(r"net_000 +- +0 +2/2 blocks +2 kinds +yes", result.stdout)


def test_verify_finds_no_fault(old):
    result = atlas("verify")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.search(r"^verify: 4 blocks, .* read, 0 faults$", result.stdout, re.MULTILINE)
    notes = [line for line in result.stdout.splitlines() if line.startswith("note: ")]
    said = "note: run/{}/net_000: schema version 1: its metadata has no checksums; `atlas {}` brings it up to date"
    assert notes == ([said.format("features.zarr", "extract"), said.format("cams.zarr", "cam")] if old == 1 else [])


def test_reading_writes_nothing(old):
    before = whole_run()
    pipeline.open_run("run")
    for command in ("status", "plan", "verify"):
        assert atlas(command).exit_code == 0
    assert whole_run() == before


def test_all_later_stages_read_it(old, no_network):
    """Without `extract` before; maps and figures are made again, as both formulas and figures have had a new version since."""
    assert cam(run_here()).computed == 2
    assert stats(run_here()).computed == 1
    for stage in STAGES[4:]:
        assert stage.bring_up_to_date(run_here()).computed > 0
    assert open_stats(run_here())["checkpoint"].values.tolist() == ["net_000"]
    assert Path("run/report/index.html").stat().st_size > 1000


def test_its_maps_are_made_again_in_long_blocks(old, no_network):
    """They had fewer facts."""
    assert cam(run_here("cam.block_samples=2048")).computed == 2
    store = run_here().cams("net_000")
    assert [len(block) for block in store.blocks] == [15]
    assert store.values(f"{FACTS_PREFIX}{MAPS[0]}").shape == (15, len(FACTS))
    assert verify(run_here()).faults == []


def test_the_manifest_of_version_1_knew_no_times(first):
    assert "problem_since" not in pd.read_parquet("run/manifest.parquet")
    table = read_manifest(Path("run/manifest.parquet"))
    assert set(table["problem_since"]) == {""}
    assert bad_images(run_here()) == {}


def test_the_plan_of_a_version_1_run(first):
    rows = {(row.stage, row.what): row for row in plan(run_here())}
    assert (rows["index", ""].state, rows["index", ""].reason) == ("stale", "listed by schema version 1")
    assert rows["extract", "net_000"].state == "fresh"
    assert (rows["cam", "net_000"].state, rows["cam", "net_000"].images) == ("stale", 2 * 15)


def test_bad_images_of_version_1_have_no_time(first, no_network):
    path = MARKS / "000001.json"
    name = read_manifest(Path("run/manifest.parquet"))["id"].iloc[9]
    path.write_text(json.dumps({**json.loads(path.read_text()), "quarantined": {name: "cut short"}}))
    assert f"{name} " in atlas("status", "--bad").stdout
    assert "cut short, since an earlier version" in atlas("status", "--bad").stdout
    assert extract(run_here()).computed == 0
    assert "cut short, since an earlier version" in atlas("status", "--bad").stdout


# ---- going on


def test_extract_computes_nothing_and_brings_it_up_to_date(old, no_network):
    before = block_files()
    outcome = extract(run_here())
    assert (outcome.computed, outcome.fresh) == (0, 2)
    assert block_files() == before
    store = run_here().features("net_000")
    assert store.attributes["schema_version"] == SCHEMA_VERSION
    assert store.is_laid_out
    assert store.read(["variant"])["variant"].values.tolist() == [""] * 15, "not in the stores of this version when it was made"
    assert verify(run_here()).faults == []
    assert [note for note in verify(run_here()).notes if "features.zarr" in note] == []
    assert finished_checkpoints(run_here()) == ["net_000"]
    before = whole_run()
    assert extract(run_here()).computed == 0
    assert whole_run() == before, "a second call writes nothing"


def test_what_it_is_brought_up_to_is_what_today_would_have_written(here, no_network):
    found = []
    for version in VERSIONS:
        unpack(version)
        extract(run_here())
        keep = ("rows", "arrays", "images")
        found.append([{key: mark[key] for key in keep} for mark in marks()])
        Path("run").rename(f"run_{version}")
    assert found[0] == found[1]
    texts = [xr.open_zarr(f"run_{version}/features.zarr/net_000") for version in VERSIONS]
    assert set(texts[0]) == set(texts[1])
    for key in texts[1]:
        np.testing.assert_array_equal(texts[0][key].values, texts[1][key].values, err_msg=key)


def test_marks_name_their_images_after_the_upgrade(first, no_network):
    assert [mark.get("images") for mark in marks()] == [None, None]
    extract(run_here())
    digests = read_manifest(Path("run/manifest.parquet"))["digest"].tolist()
    assert [mark["images"] for mark in marks()] == [digests[:8], digests[8:]]


def test_after_all_stages_nothing_is_noted_any_more(old, no_network):
    for stage in STAGES[:4]:
        stage.bring_up_to_date(run_here())
    found = verify(run_here())
    assert (list(found.faults), list(found.notes)) == ([], [])
    opened = pipeline.open_run("run")
    assert sorted(opened.cams) == MAPS
    assert opened.stats["checkpoint"].values.tolist() == ["net_000"]
    assert [stage.bring_up_to_date(run_here()).computed for stage in STAGES[:4]] == [0, 0, 0, 0]


def test_maps_come_out_as_they_were(first):
    before = run_here().cams("net_000").read(MAPS)
    extract(run_here())
    cam(run_here())
    after = pipeline.open_run("run", partial=True).cams.isel(checkpoint=0)
    for key in MAPS:
        np.testing.assert_allclose(after[key].values, before[key].values, rtol=1e-6, atol=1e-7)  # float32 sums in another order


@pytest.mark.parametrize("writes", range(8))
def test_killed_while_it_is_brought_up_to_date_nothing_is_computed(first, no_network, monkeypatch, writes):
    """Two marks, the seal open and closed, who made it (two writes, for old and new checksum), the note of the whole."""
    before = block_files()
    calls = [0]
    with monkeypatch.context() as patch:
        for module in (schema_versions, seals, blocks):

            def killed(path, content, original=module.write_record):
                calls[0] += 1
                if calls[0] > writes:
                    raise KeyboardInterrupt
                original(path, content)

            patch.setattr(module, "write_record", killed)
        if writes < 7:
            with pytest.raises(KeyboardInterrupt):
                extract(run_here())
        else:
            extract(run_here())
            assert calls == [7], "more writes than this test knows: raise its range"
    if writes < 7:
        kept = {path: content for path, content in before.items() if Path(path).is_file()}
        assert kept == before
    assert extract(run_here()).computed == 0
    assert block_files() == before
    assert verify(run_here()).faults == []
    assert [note for note in verify(run_here()).notes if "features.zarr" in note] == []


def test_half_way_readers_refuse_or_read_right(first, monkeypatch):
    """A store with one new mark and one old one."""
    before = pipeline.open_run("run").features["embedding"].values
    original, calls = schema_versions.write_record, []

    def killed(path, content):
        calls.append(path)
        if len(calls) > 1:
            raise KeyboardInterrupt
        original(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(schema_versions, "write_record", killed)
        with pytest.raises(KeyboardInterrupt):
            extract(run_here())
    with pytest.raises(MissingProductError, match="net_000: unfinished, 1 of 2 blocks missing; run `atlas extract` again"):
        pipeline.open_run("run")
    extract(run_here())
    with pytest.raises(MissingProductError, match=r"stats\.zarr: older than .*net_000; run `atlas stats`, or pass partial=True"):
        pipeline.open_run("run")
    cam(run_here())
    stats(run_here())
    np.testing.assert_array_equal(pipeline.open_run("run").features["embedding"].values, before)


def test_new_images_extend_it_and_no_old_one_is_computed(old, computed):
    """15 samples in blocks of 8: the last block takes one more, and there is another."""
    before = values_by_id()
    add_place()
    assert "2 new, 0 changed, 0 forgotten" in str(index(run_here()))
    assert extract(run_here()).computed == 2
    assert sum(computed) == 2
    after = values_by_id()
    assert list(after) == [*before, "drone/0000a/image-01", "satellite/0000a/0000a"]
    for name, values in before.items():
        for key, value in values.items():
            np.testing.assert_array_equal(after[name][key], value, err_msg=f"{name} {key}")
    assert verify(run_here()).faults == []
    assert cam(run_here()).computed == 2
    assert stats(run_here()).computed == 1
    assert int(open_stats(run_here())["count"].sum()) == 17


def test_a_lost_block_is_the_only_one_that_is_computed(old, computed):
    before = block_files()
    (MARKS / "000001.json").unlink()
    assert extract(run_here()).computed == 1
    assert sum(computed) == 7
    after = block_files()
    assert after.keys() == before.keys()
    assert {path: content for path, content in after.items() if Path(path).name.startswith("c.0")} == {
        path: content for path, content in before.items() if Path(path).name.startswith("c.0")
    }
    assert verify(run_here()).faults == []


def test_moved_photos_change_nothing(old, no_network):
    Path("photos").rename("elsewhere")
    index(run_here("dataset.root='elsewhere'"))
    assert extract(run_here("dataset.root='elsewhere'")).computed == 0


# ---- refusing


def test_other_settings_are_refused(old, no_network):
    before = whole_run()
    said = r"net_000: made with map_dtype = 'float16', but 'float32' is asked for\. .* or pass --replace"
    with pytest.raises(StaleStoreError, match=said):
        extract(run_here("extract.map_dtype=float32"))
    assert whole_run() == before


def test_a_changed_image_is_refused(old, no_network):
    Image.new("RGB", (48, 48), "red").save("photos/train/drone/0000/image-01.jpeg")
    assert "0 new, 1 changed, 0 forgotten" in str(index(run_here()))
    before = whole_run()
    with pytest.raises(StaleStoreError, match=r"net_000: made of another list of images than .* now holds"):
        extract(run_here())
    assert whole_run() == before


def test_a_flipped_bit_is_an_error_and_stays_one(old, no_network):
    flip(Path("run/features.zarr/net_000/aligned_map/c.1.0.0.0"))
    said = r"features\.zarr/net_000/aligned_map, samples 8 to 14: damaged"
    with pytest.raises(DamagedStoreError, match=said):
        pipeline.open_run("run").features["aligned_map"].values  # noqa: B018  (reading is what fails)
    assert extract(run_here()).computed == 0
    with pytest.raises(DamagedStoreError, match=said):
        cam(run_here("cam.methods=['mean']"))
    (fault,) = verify(run_here()).faults
    assert (fault.kind, fault.where) == ("damaged", "run/features.zarr/net_000/aligned_map, block 1")


def test_a_flipped_bit_in_a_mark_of_version_1_costs_its_block_alone(first, computed):
    """Its marks carry no checksum: one that is no JSON any more is none."""
    path = MARKS / "000001.json"
    path.write_bytes(path.read_bytes().replace(b"{", b";", 1))
    assert extract(run_here()).computed == 1
    assert sum(computed) == 7
    assert verify(run_here()).faults == []


# ---- later versions


@pytest.fixture
def later(here):
    """A run of today whose features were touched by a version that is not written yet."""
    unpack(max(VERSIONS))
    run_here().features("net_000").update_attributes({"schema_version": 99})


LATER = rf"features\.zarr/net_000: written with schema version 99; this safenet-atlas reads versions up to {LATEST_SCHEMA_VERSION}\. Update it"


@pytest.mark.parametrize("command", ["extract", "cam", "stats", "render", "status", "plan", "verify"])
def test_a_later_version_is_refused_in_one_line(later, command):
    before = whole_run()
    result = atlas(command)
    assert result.exit_code == 1
    assert re.fullmatch(rf"atlas: run/{LATER}\n", result.stderr), result.stderr
    assert whole_run() == before


def test_a_later_version_is_not_opened(later):
    with pytest.raises(ValueError, match=LATER):
        pipeline.open_run("run")


@pytest.mark.parametrize("what", ["new images", "a lost block", "other settings"])
def test_a_later_version_is_never_written_over(later, no_network, what):
    """Not even where `extract` has reason to write."""
    more, options = (), {}
    if what == "new images":
        add_place()
        index(run_here())
    elif what == "a lost block":
        (MARKS / "000001.json").unlink()
    else:
        more, options = ("extract.map_dtype=float32",), {"replace": True}
    before = whole_run()
    with pytest.raises(ValueError, match=LATER):
        extract(run_here(*more), **options)
    assert whole_run() == before


def test_damaged_metadata_in_an_unfinished_layout_tell_no_version(here, no_network):
    """A writer was killed while it laid the store out, and then the disk failed: `extract` lays it out again."""
    unpack(max(VERSIONS))
    run_here().features("net_000").seal.open()
    flip(Path("run/features.zarr/net_000/zarr.json"))
    assert extract(run_here()).computed == 0
    assert verify(run_here()).faults == []


@pytest.mark.parametrize(("store", "command"), [("cams.zarr", "cam"), ("stats.zarr", "stats")])
def test_later_maps_and_figures_are_refused(here, store, command):
    unpack(max(VERSIONS))
    if store == "cams.zarr":
        run_here().cams("net_000").update_attributes({"schema_version": 99})
    else:
        cam(run_here())
        path = Path("run/stats.zarr/net_000/zarr.json")
        content = json.loads(path.read_text())
        content["attributes"]["schema_version"] = 99
        seals.Seal(Path("run/ledger/stats/net_000/layout.json"), path.parent).replace("zarr.json", json.dumps(content).encode())
    before = whole_run()
    result = atlas(command)
    assert result.exit_code == 1
    assert re.fullmatch(rf"atlas: run/{re.escape(store)}/net_000: written with schema version 99; .* Update it\n", result.stderr), result.stderr
    assert whole_run() == before
