"""A dataset that changes: new images extend a store, changed ones are found, gone ones are asked about; nothing old is computed again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cam.stage import cam
from pipeline.disk.records import read_record, write_record
from pipeline.extract.extractor import SpanExtractor
from pipeline.extract.stage import extract
from pipeline.features.bad_images import bad_images
from pipeline.features.finished import finished_checkpoints
from pipeline.index.stage import index
from pipeline.look.verify import verify
from pipeline.render.stage import render
from pipeline.run.directory import MissingProductError, StaleStoreError
from pipeline.stats.stage import stats
from pipeline.stats.staleness import open_stats
from stages.extract.batch import FeatureExtractor

ONE = "net_000.pth"


@pytest.fixture
def photos(lab, tmp_path):
    """A copy of the lab's photos, to change."""
    return Path(shutil.copytree(lab.photos, tmp_path / "photos"))


def add_place(photos: Path, name: str = "0000a") -> None:
    """A new training place whose name sorts among the old ones."""
    for view, file in (("drone", "image-01.jpeg"), ("satellite", f"{name}.jpg")):
        (photos / "train" / view / name).mkdir()
        rng = np.random.default_rng(len(file))
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(photos / "train" / view / name / file, format="JPEG")


def values_of(run, name="net_000"):
    store = run.features(name)
    found = store.read(store.attributes["block_arrays"])
    ids = store.read(["sample_id"])["sample_id"].values.tolist()
    return {sample: {key: found[key].values[row] for key in found} for row, sample in enumerate(ids)}


def assert_same_values(before, after):
    """What was stored of every sample is still stored of it, to the bit."""
    for sample, values in before.items():
        for key, value in values.items():
            np.testing.assert_array_equal(after[sample][key], value, err_msg=f"{sample} {key}")


# ---- new images


def test_new_images_join_at_the_end_and_the_old_keep_their_numbers(lab, extracted_copy, photos):
    before = lab.run(extracted_copy).manifest
    add_place(photos)
    outcome = index(lab.run(extracted_copy, photos=photos))
    assert "2 new, 0 changed, 0 forgotten" in str(outcome)
    after = lab.run(extracted_copy, photos=photos).manifest
    assert after["id"].tolist()[:15] == before["id"].tolist()
    assert after["id"].tolist()[15:] == ["drone/0000a/image-01", "satellite/0000a/0000a"]
    assert after["sample"].tolist() == list(range(17))


def test_new_images_extend_the_store_and_no_old_one_is_computed(lab, extracted_copy, photos, computed):
    """15 samples in blocks of 4: the last block has 3, which are carried over."""
    before = values_of(lab.run(extracted_copy))
    moments = {path: path.stat().st_mtime_ns for path in (extracted_copy / "features.zarr").rglob("c.[012].*")}
    add_place(photos)
    run = lab.run(extracted_copy, photos=photos, checkpoints=ONE)
    index(run)
    run = lab.run(extracted_copy, photos=photos, checkpoints=ONE)
    assert run.features("net_000").attributes["samples"] == 15
    with pytest.raises(MissingProductError, match="unfinished, 2 of 5 blocks missing"):
        extract_then_break(run)
    assert extract(run).computed == 2
    assert sum(computed) == 2
    assert_same_values(before, values_of(run))
    whole = [path for path in moments if "head_" not in path.as_posix() and path.stat().st_mtime_ns != moments[path]]
    assert whole == [], "a whole block was written again"
    assert verify(run).faults == []
    assert extract(run).computed == 0


def extract_then_break(run):
    """Lay the longer store out and stop before its first new block: readers must not take it for whole."""

    def stop(*arguments):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpanExtractor, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            extract(run)
    finished_checkpoints(run)


def test_the_new_values_are_those_of_a_store_made_at_once(lab, extracted_copy, photos, tmp_path):
    add_place(photos)
    grown, whole = (lab.run(directory, photos=photos, checkpoints=ONE) for directory in (extracted_copy, tmp_path / "whole"))
    for run in (grown, whole):
        index(run)
    grown, whole = (lab.run(directory, photos=photos, checkpoints=ONE) for directory in (extracted_copy, tmp_path / "whole"))
    for run in (grown, whole):
        extract(run)
    found, expected = values_of(grown), values_of(whole)
    assert found.keys() == expected.keys()
    for sample, values in expected.items():
        for key, value in values.items():
            np.testing.assert_allclose(found[sample][key], value, rtol=1e-3, atol=1e-3, err_msg=key)  # float16, and another batch size


def test_maps_and_figures_follow(lab, finished_copy, photos):
    add_place(photos)
    index(lab.run(finished_copy, photos=photos))
    run = lab.run(finished_copy, photos=photos)
    extract(run)
    before = {path: path.stat().st_mtime_ns for path in (finished_copy / "cams.zarr").rglob("none/l2_norm/c.[012].*")}
    cam(run)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "class-free maps of whole blocks do not depend on other images"
    stats(run)
    assert int(open_stats(run)["count"].sel(checkpoint="net_000").sum()) == 17
    assert render(run).fresh >= 0
    assert verify(run).faults == []


# ---- changed images


def change(photos: Path, color: str = "red") -> None:
    Image.new("RGB", (48, 48), color).save(photos / "train" / "drone" / "0000" / "image-01.jpeg")


def test_a_changed_image_is_found_by_its_digest_and_refused(lab, extracted_copy, photos, computed):
    change(photos)
    assert "0 new, 1 changed, 0 forgotten" in str(index(lab.run(extracted_copy, photos=photos)))
    run = lab.run(extracted_copy, photos=photos, checkpoints=ONE)
    said = r"net_000: made of another list of images than .* now holds \(1 changed, for instance drone/0000/image-01\)\. .* or pass --replace"
    with pytest.raises(StaleStoreError, match=said):
        extract(run)
    assert computed == []


def test_replacing_a_changed_image_computes_that_image(lab, extracted_copy, photos, computed):
    before = values_of(lab.run(extracted_copy))
    change(photos)
    index(lab.run(extracted_copy, photos=photos))
    run = lab.run(extracted_copy, photos=photos, checkpoints=ONE)
    extract(run, replace=True)
    assert sum(computed) == 1
    after = values_of(run)
    changed = before.pop("drone/0000/image-01")
    assert not np.array_equal(after["drone/0000/image-01"]["image"], changed["image"])
    assert_same_values(before, after)
    assert verify(run).faults == []


def test_a_renamed_file_is_the_same_image(lab, extracted_copy, photos, computed):
    folder = photos / "train" / "drone" / "0000"
    (folder / "image-01.jpeg").rename(folder / "image-77.jpeg")
    assert "0 new, 0 changed, 0 forgotten" in str(index(lab.run(extracted_copy, photos=photos)))
    run = lab.run(extracted_copy, photos=photos, checkpoints=ONE)
    assert run.manifest.set_index("id").loc["drone/0000/image-01", "path"].endswith("image-77.jpeg")
    assert extract(run).computed == 0
    assert computed == []


def test_a_photo_that_changes_between_index_and_extract_is_void(lab, fresh, photos, tmp_path):
    """Its digest is that of the manifest no more: what was listed is not what would be computed."""
    run = lab.run(fresh, "extract.max_bad_share=0.2", photos=photos, checkpoints=ONE)
    index(run)
    change(photos)
    extract(run)
    assert bad_images(run)["drone/0000/image-01"].reason == "changed since it was indexed; run `atlas index`"


# ---- images that are gone


def test_gone_images_are_never_forgotten_unasked(lab, extracted_copy, photos):
    (photos / "train" / "drone" / "0000" / "image-01.jpeg").unlink()
    before = (extracted_copy / "manifest.parquet").read_bytes()
    with pytest.raises(ValueError, match=r"1 images that it lists are no longer in the dataset \(drone/0000/image-01\)\. Bring them back"):
        index(lab.run(extracted_copy, photos=photos))
    assert (extracted_copy / "manifest.parquet").read_bytes() == before


def test_forgotten_images_leave_the_store_with_replace_and_nothing_is_computed(lab, extracted_copy, photos, computed):
    before = values_of(lab.run(extracted_copy))
    (photos / "train" / "drone" / "0000" / "image-01.jpeg").unlink()
    index(lab.run(extracted_copy, photos=photos), forget=True)
    run = lab.run(extracted_copy, photos=photos, checkpoints=ONE)
    extract(run, replace=True)
    assert computed == []
    del before["drone/0000/image-01"]
    after = values_of(run)
    assert after.keys() == before.keys()
    assert_same_values(before, after)


# ---- bad images


@pytest.fixture
def marred(lab, photos, tmp_path):
    """A run with one photo that could not be decoded."""
    path = photos / "train" / "drone" / "0000" / "image-01.jpeg"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    run = lab.run(tmp_path / "run", "extract.max_bad_share=0.2", photos=photos, checkpoints=ONE)
    index(run)
    extract(run)
    assert list(bad_images(run)) == ["drone/0000/image-01"]
    return run, path, good


def again(lab, run, photos):
    return lab.run(run.directory, "extract.max_bad_share=0.2", photos=photos, checkpoints=ONE)


def test_a_mended_photo_is_computed_without_replace(lab, marred, photos, computed):
    """Nothing of worth is overwritten: its slot was void."""
    run, path, good = marred
    path.write_bytes(good)
    assert "0 new, 1 changed, 0 forgotten" in str(index(again(lab, run, photos)))
    run = again(lab, run, photos)
    assert extract(run).computed == 1
    assert bad_images(run) == {}
    assert values_of(run)["drone/0000/image-01"]["valid"]


def test_bad_photos_are_tried_again_when_asked(lab, marred, photos, monkeypatch, computed):
    """A folder that could not be read for a while: same bytes, same manifest."""
    run, _, _ = marred
    since = bad_images(run)["drone/0000/image-01"].since
    assert extract(again(lab, run, photos)).computed == 0
    assert extract(again(lab, run, photos), retry_bad=True).computed == 1
    assert bad_images(run)["drone/0000/image-01"].since == since  # still bad, since the same time
    monkeypatch.setattr("pipeline.extract.photos.decode_photo", lambda source, size_px: np.full((size_px, size_px, 3), 7, np.uint8))
    assert extract(again(lab, run, photos), retry_bad=True).computed == 1
    assert bad_images(run) == {}
    assert extract(again(lab, run, photos), retry_bad=True).computed == 0


@pytest.mark.parametrize("replaced", [False, True])
def test_a_photo_that_is_still_bad_is_so_since_the_same_time(lab, marred, photos, replaced):
    run, _, _ = marred
    path = run.directory / "ledger" / "features" / "net_000" / "000001.json"
    record = read_record(path)
    (name,) = record["quarantined"]
    record["quarantined"][name]["since"] = "2020-01-01T00:00:00+00:00"
    write_record(path, record)
    (path.parent / "whole.json").unlink()  # it tells of them too
    more = ("extract.map_dtype=float32",) if replaced else ()
    changed = lab.run(run.directory, "extract.max_bad_share=0.2", *more, photos=photos, checkpoints=ONE)
    assert extract(changed, replace=replaced, retry_bad=True).computed > 0
    assert bad_images(changed)[name].since == "2020-01-01T00:00:00+00:00"


def test_mended_photos_do_not_count_as_bad_while_others_wait_for_their_turn(lab, photos, tmp_path):
    """Both were bad, both are good now: no bad image is allowed any more."""
    paths = [photos / "train" / "drone" / place / "image-01.jpeg" for place in ("0000", "0002")]
    good = [path.read_bytes() for path in paths]
    for path, content in zip(paths, good, strict=True):
        path.write_bytes(content[: len(content) // 2])
    run = lab.run(tmp_path / "run", "extract.max_bad_share=0.2", photos=photos, checkpoints=ONE)
    index(run)
    extract(run)
    assert len(bad_images(run)) == 2
    for path, content in zip(paths, good, strict=True):
        path.write_bytes(content)
    index(lab.run(run.directory, photos=photos, checkpoints=ONE))
    run = lab.run(run.directory, "extract.max_bad_share=0", photos=photos, checkpoints=ONE)
    assert extract(run).computed == 2
    assert bad_images(run) == {}


def test_maps_of_a_mended_photo_refresh_themselves(lab, marred, photos):
    run, path, good = marred
    cam(run)
    path.write_bytes(good)
    index(again(lab, run, photos))
    extract(again(lab, run, photos))
    with pytest.raises(MissingProductError, match="lack heat maps"):
        stats(again(lab, run, photos))
    assert cam(again(lab, run, photos)).computed > 0
    maps = run.cams("net_000").read(["patch/none/l2_norm"])["patch/none/l2_norm"].values
    assert np.isfinite(maps).all()


def test_status_lists_file_reason_and_since(lab, marred, photos):
    run, _, _ = marred
    result = lab.atlas("status", run.directory, "--bad")
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("drone/0000/image-01")]
    assert "(train/drone/0000/image-01.jpeg): cannot be decoded" in line
    assert ", since 20" in line


# ---- replacing


def test_the_old_features_stay_until_the_new_are_complete(lab, extracted_copy, monkeypatch):
    before = values_of(lab.run(extracted_copy))
    run = lab.run(extracted_copy, "extract.map_dtype=float32", checkpoints=ONE)
    calls = [0]
    original = FeatureExtractor.__call__

    def broken(self, images, *more):
        calls[0] += 1
        if calls[0] > 3:
            raise KeyboardInterrupt
        return original(self, images, *more)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractor, "__call__", broken)
        with pytest.raises(KeyboardInterrupt):
            extract(run, replace=True)
    assert finished_checkpoints(run) == ["net_000"]
    assert_same_values(before, values_of(run))
    assert values_of(run)["drone/0000/image-01"]["patch_map"].dtype == np.float16
    outcome = extract(run, replace=True)  # goes on with what the first call made
    assert 0 < outcome.computed < 4
    assert values_of(run)["drone/0000/image-01"]["patch_map"].dtype == np.float32
    assert [path.name for path in (extracted_copy / "features.zarr").iterdir() if path.name.startswith(".")] == []


def test_an_unfinished_replacement_is_kept_and_told(lab, extracted_copy, monkeypatch):
    """It may have cost hours: only another --replace takes its place."""
    monkeypatch.setattr(SpanExtractor, "__call__", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        extract(lab.run(extracted_copy, "extract.map_dtype=float32", checkpoints=ONE), replace=True)
    monkeypatch.undo()
    outcome = extract(lab.run(extracted_copy, checkpoints=ONE))
    assert outcome.computed == 0
    assert "an unfinished replacement of net_000 is kept: go on with --replace and its settings, or delete .net_000.next" in str(outcome)
    assert (extracted_copy / "features.zarr" / ".net_000.next").is_dir()
    assert extract(lab.run(extracted_copy, "extract.map_dtype=float32", checkpoints=ONE), replace=True).computed == 4
    assert not (extracted_copy / "features.zarr" / ".net_000.next").exists()
