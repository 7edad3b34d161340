"""Every layout is built from tiny pictures and indexed; what is asserted is the manifest."""

import json
import os
import random
import shutil
import time
import zlib
from pathlib import Path

import pandas as pd
import pydantic
import pytest
from made_datasets import indexed, picture, pictures

from pipeline.disk import records
from pipeline.run import manifest as index
from pipeline.run.manifest import index_dataset, manifest_digest, manifest_seal, read_manifest, write_manifest
from stages.index.layouts import LAYOUTS, detect_layout, natural_key
from stages.index.manifest import MANIFEST_COLUMNS, find_images
from stages.index.settings import DatasetSettings

SHORT = ["id", "split", "roles", "variant"]


def short(table: pd.DataFrame) -> list[tuple[str, ...]]:
    return list(table[SHORT].itertuples(index=False, name=None))


def university(root: Path) -> Path:
    return pictures(
        root,
        "train/drone/0839/image-10.jpeg", "train/drone/0839/image-02.jpeg", "train/satellite/0839/0839.jpg",
        "train/street/0839/1.jpg", "train/google/0839/a.jpg",
        "test/query_drone/0007/image-01.jpeg", "test/gallery_drone/0007/image-01.jpeg", "test/gallery_drone/0002/image-01.jpeg",
        "test/query_satellite/0007/0007.jpg", "test/gallery_satellite/0007/0007.jpg", "test/gallery_satellite/0002/0002.jpg",
        "test/query_street/0007/1.jpg", "test/gallery_street/0007/1.jpg",
    )  # fmt: skip


def sues200_pictures(root: Path, drone: str, satellite: str, places: tuple[str, ...]) -> Path:
    """Two shots a place and height, and one satellite picture a place."""
    for place in places:
        for height in ("150", "300"):
            for shot in ("2", "10"):
                picture(root / drone.format(place=place, height=height) / f"{shot}.jpg", content=f"drone {place} {height} {shot}")
            picture(root / satellite.format(place=place, height=height) / "0.png", content=f"satellite {place}")
    return root


def sues200_raw(root: Path) -> Path:
    return sues200_pictures(root, "drone_view_512/{place}/{height}", "satellite-view/{place}", ("0001", "0002", "0010"))


def sues200_split(root: Path) -> Path:
    """What the official script makes of `sues200_raw` with the training place 0002."""
    sues200_pictures(root, "Training/{height}/drone/{place}", "Training/{height}/satellite/{place}", ("0002",))
    for role, places in (("query", ("0001", "0010")), ("gallery", ("0001", "0002", "0010"))):
        sues200_pictures(root, f"Testing/{{height}}/{role}_drone/{{place}}", f"Testing/{{height}}/{role}_satellite/{{place}}", places)
    return root


def denseuav(root: Path) -> Path:
    names = [f"{view}/{place}/{name}" for place in ("000000", "002256") for view, name in (("drone", "H80.JPG"), ("drone", "H100.JPG"))]
    names += [f"satellite/{place}/{name}" for place in ("000000", "002256") for name in ("H80.tif", "H80_old.tif")]
    train = [f"train/{name}" for name in names if "000000" in name]
    query = [f"test/query_{name}" for name in names if "002256" in name]
    pictures(root, *train, *query, *(f"test/gallery_{name}" for name in names))
    (root / "Dense_GPS_ALL.txt").write_text("train/drone/000000/H80.JPG E120.38 N30.32 94.6\n")
    return root


def plain_folder(root: Path) -> Path:
    return pictures(root, "top.png", "My UAV shots/1.webp", "roofs/sat_2.BMP", "satellite images/a.TIFF", "saturn/rings.jpeg", "masks/top.png")


def gta_uav(root: Path) -> Path:
    """In full in test_pair_lists.py."""
    pictures(root, "drone/images/500_0001_0000025682.png", "satellite/4_0_6_13.png", "satellite/5_0_12_27.png")
    named = {"drone_img_dir": "drone/images", "drone_img_name": "500_0001_0000025682.png", "sate_img_dir": "satellite"}
    (root / "cross-area-drone2sate-test.json").write_text(json.dumps([{**named, "pair_pos_sate_img_list": ["4_0_6_13.png"]}]))
    return root


BUILDERS = {
    "university1652": university,
    "sues200_raw": sues200_raw,
    "sues200_split": sues200_split,
    "denseuav": denseuav,
    "gta_uav": gta_uav,
    "folder": plain_folder,
}


# ---- the layouts


def test_university1652(tmp_path):
    assert short(indexed(university(tmp_path))) == [
        ("drone/0002/image-01", "test", "gallery", ""),
        ("drone/0007/image-01", "test", "gallery+query", ""),
        ("satellite/0002/0002", "test", "gallery", ""),
        ("satellite/0007/0007", "test", "gallery+query", ""),
        ("drone/0839/image-02", "train", "train", ""),
        ("drone/0839/image-10", "train", "train", ""),
        ("satellite/0839/0839", "train", "train", ""),
    ]


def test_every_column_of_a_row(tmp_path):
    table = indexed(university(tmp_path / "University-Release"))
    assert tuple(table.columns) == MANIFEST_COLUMNS
    row = table.loc[1].to_dict()
    assert len(row.pop("digest")) == 32
    assert row == {
        "sample": 1, "id": "drone/0007/image-01", "path": "test/gallery_drone/0007/image-01.jpeg", "view": "drone", "place": "0007", "split": "test",
        "roles": "gallery+query", "variant": "", "height_px": 20, "width_px": 24, "mask_path": "", "problem": "",
        "problem_since": "",
    }  # fmt: skip
    assert len(table.attrs.pop("listing")) == 32
    assert table.attrs == {"root": str(tmp_path / "University-Release"), "layout": "university1652"}
    assert list(table["sample"]) == list(range(7))


def test_street_and_google_are_taken_by_name_only(tmp_path):
    table = indexed(university(tmp_path), views=("street", "google"))
    assert short(table) == [
        ("street/0007/1", "test", "gallery+query", ""), ("google/0839/a", "train", "train", ""), ("street/0839/1", "train", "train", ""),
    ]  # fmt: skip


def test_sues200_raw_is_all_test_without_training_places(tmp_path):
    table = indexed(sues200_raw(tmp_path))
    assert set(table["split"]) == {"test"}
    assert set(table["roles"]) == {"gallery+query"}
    assert list(table["id"][:5]) == ["drone/0001/150/2", "drone/0001/150/10", "drone/0001/300/2", "drone/0001/300/10", "drone/0002/150/2"]
    assert short(table)[-1] == ("satellite/0010/0", "test", "gallery+query", "")
    assert len(table) == 3 * 2 * 2 + 3


def test_sues200_raw_and_split_give_one_manifest(tmp_path):
    """The split script copies files; with its training places the raw folders must mean the same samples."""
    raw = indexed(sues200_raw(tmp_path / "raw"), train_places=("0002",))
    split = indexed(sues200_split(tmp_path / "split"))
    pd.testing.assert_frame_equal(raw.drop(columns="path"), split.drop(columns="path"))
    assert manifest_digest(raw) == manifest_digest(split)
    trained_on = raw[raw["place"] == "0002"]
    assert set(trained_on["split"]) == {"train"}
    assert set(trained_on["roles"]) == {"gallery+train"}


def test_denseuav(tmp_path):
    assert short(indexed(denseuav(tmp_path))) == [
        ("drone/002256/H80", "test", "gallery+query", "H80"),
        ("drone/002256/H100", "test", "gallery+query", "H100"),
        ("satellite/002256/H80", "test", "gallery+query", "H80"),
        ("satellite/002256/H80_old", "test", "gallery+query", "H80"),
        ("drone/000000/H80", "train", "gallery+train", "H80"),
        ("drone/000000/H100", "train", "gallery+train", "H100"),
        ("satellite/000000/H80", "train", "gallery+train", "H80"),
        ("satellite/000000/H80_old", "train", "gallery+train", "H80"),
    ]


def test_folder(tmp_path):
    table = indexed(plain_folder(tmp_path), layout="folder")
    assert list(table[["path", "view", "place"]].itertuples(index=False, name=None)) == [
        ("My UAV shots/1.webp", "drone", "1"),
        ("satellite images/a.TIFF", "satellite", "a"),
        ("roofs/sat_2.BMP", "satellite", "roofs"),
        ("saturn/rings.jpeg", "unknown", "saturn"),
        ("top.png", "unknown", "top"),
    ]
    assert set(table["roles"]) == {"gallery+query"}
    assert table["mask_path"].tolist() == ["", "", "", "", "masks/top.png"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognised(name, tmp_path):
    """A listed layout without a builder fails here."""
    root = BUILDERS[name](tmp_path / "data")
    if name == "folder":  # any tree would fit, so a mistaken root must not become one
        with pytest.raises(ValueError, match="the layout is not recognised"):
            detect_layout(root)
    else:
        assert detect_layout(root) == name


def test_denseuav_is_recognised_without_its_lists(tmp_path):
    (denseuav(tmp_path) / "Dense_GPS_ALL.txt").unlink()
    assert detect_layout(tmp_path) == "denseuav"


# ---- selecting


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({"views": ("satellite",), "splits": ("train",)}, ["satellite/0002/0"]),
        ({"variants": ("300",), "splits": ("train",)}, ["drone/0002/300/2", "drone/0002/300/10", "satellite/0002/0"]),
        ({"variants": ("300",), "views": ("drone",), "splits": ("test",), "limit_places": 1}, ["drone/0001/300/2", "drone/0001/300/10"]),
    ],
)
def test_selecting(settings, ids, tmp_path):
    assert list(indexed(sues200_raw(tmp_path), train_places=("0002",), **settings)["id"]) == ids


def test_training_places_stay_as_distractors_when_only_test_is_asked_for(tmp_path):
    table = indexed(sues200_split(tmp_path), splits=("test",), views=("satellite",))
    assert set(table["split"]) == {"test"}
    assert table.set_index("place")["roles"].to_dict() == {"0001": "gallery+query", "0002": "gallery", "0010": "gallery+query"}


@pytest.mark.parametrize(("split", "places"), [("train", {"0839"}), ("test", {"0002", "0007"})])
def test_one_split(split, places, tmp_path):
    assert set(indexed(university(tmp_path), splits=(split,))["place"]) == places


def test_limit_places_takes_queried_places_first(tmp_path):
    """Place 0002 comes before 0007, but is in the gallery only."""
    assert set(indexed(university(tmp_path), limit_places=1)["place"]) == {"0007", "0839"}


# ---- samples


def test_equal_bytes_under_other_names_are_one_sample_of_their_place_and_view(tmp_path):
    for path in ("train/drone/0001/a.png", "train/drone/0001/b.png", "train/drone/0002/a.png", "train/satellite/0001/a.png"):
        picture(tmp_path / path, content="same")
    assert list(indexed(tmp_path)["path"]) == ["train/drone/0001/a.png", "train/drone/0002/a.png", "train/satellite/0001/a.png"]


def test_each_file_is_read_once(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(index, "read_header", lambda path, real=index.read_header: read.append(path) or real(path))
    indexed(sues200_raw(tmp_path))
    assert len(read) == len(set(read)) == 15


def test_ids_of_like_names_are_told_apart(tmp_path):
    for path in ("train/drone/0001/a.png", "train/drone/0001/a.bmp", "test/query_drone/0002/a.png", "test/gallery_drone/0002/a.png"):
        picture(tmp_path / path)
    table = indexed(tmp_path)
    gallery, query = table["digest"][:2]
    assert list(table["id"]) == [f"drone/0002/a.png~{gallery[:12]}", f"drone/0002/a.png~{query[:12]}", "drone/0001/a.bmp", "drone/0001/a.png"]


@pytest.mark.parametrize("name", BUILDERS)
def test_the_order_of_creation_does_not_matter(name, tmp_path, monkeypatch):
    root = BUILDERS[name](tmp_path)
    expected = indexed(root, layout=name)
    real = os.scandir

    class Shuffled(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    def scandir(folder):
        with real(folder) as entries:
            found = Shuffled(entries)
        random.Random(7).shuffle(found)
        return found

    monkeypatch.setattr(os, "scandir", scandir)
    pd.testing.assert_frame_equal(indexed(root, layout=name), expected)


def test_the_number_of_workers_does_not_matter(tmp_path, monkeypatch):
    """Files finish out of order here, yet each keeps its own digest."""
    settings = DatasetSettings(root=university(tmp_path))
    expected = index_dataset(settings, workers=1)
    real = index.read_header
    monkeypatch.setattr(index, "read_header", lambda path: (time.sleep(zlib.crc32(bytes(path)) % 5 / 200), real(path))[1])
    pd.testing.assert_frame_equal(index_dataset(settings, workers=8), expected)


def test_progress_counts_files(tmp_path):
    steps = []
    index_dataset(DatasetSettings(root=university(tmp_path)), workers=2, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 9) for done in range(1, 10)]


def test_natural_order():
    assert sorted(["b1", "a10", "a2", "A2", "a02", "a", "10", "9"], key=natural_key) == ["9", "10", "a", "A2", "a02", "a2", "a10", "b1"]


def test_masks(tmp_path):
    """A mask may lie beside any of a sample's paths, and is never a photo itself."""
    masks = ("masks/test/query_drone/0007/image-01.png", "masks/train/satellite/0839/0839.png", "masks/train/drone/0839/x.png")
    root = pictures(university(tmp_path), *masks)
    table = indexed(root).set_index("id")["mask_path"]
    assert table[table != ""].to_dict() == {
        "drone/0007/image-01": "masks/test/query_drone/0007/image-01.png",
        "satellite/0839/0839": "masks/train/satellite/0839/0839.png",
    }


def test_odd_names(tmp_path):
    hidden = ("train/drone/图书馆 1/.hidden.jpg", "train/drone/.cache/a.jpg")
    pictures(tmp_path, "train/drone/图书馆 1/фото №2.jpg", "train/drone/a'b\"c/%20.PNG", *hidden)
    (tmp_path / "train/drone/图书馆 1/notes.txt").write_text("no image")
    (tmp_path / "train/drone/图书馆 1/folder.jpg").mkdir()
    table = indexed(tmp_path)
    assert list(table["id"]) == ["drone/a'b\"c/%20", "drone/图书馆 1/фото №2"]
    assert set(table["problem"]) == {""}
    write_manifest(tmp_path / "manifest.parquet", table)
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "manifest.parquet"), table)


def test_a_link_back_up_does_not_hang(tmp_path):
    pictures(tmp_path, "drone/1/a.png")
    (tmp_path / "drone/1/up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "drone/itself").symlink_to(tmp_path / "drone/itself")
    (tmp_path / "again").symlink_to(tmp_path / "drone", target_is_directory=True)  # no loop: followed
    assert list(indexed(tmp_path, layout="folder")["path"]) == ["drone/1/a.png", "again/1/a.png"]


# ---- photos that cannot be used


def bomb(path: Path) -> None:
    """A bitmap's header that claims a gigapixel."""
    picture(path)
    raw = bytearray(path.read_bytes())
    raw[18:26] = (32000).to_bytes(4, "little") * 2
    path.write_bytes(raw)


def near_bomb(path: Path) -> None:
    """Between one and two times Pillow's limit, where it warns instead of raising."""
    picture(path)
    raw = bytearray(path.read_bytes())
    raw[18:26] = (11000).to_bytes(4, "little") * 2
    path.write_bytes(raw)


def cut_short(path: Path) -> None:
    picture(path)
    path.write_bytes(path.read_bytes()[:20])


def not_utf8(path: Path) -> None:
    picture(path.with_name("plain.png"))
    path.with_name("plain.png").rename(os.fsdecode(os.fsencode(path.parent) + b"/caf\xe9.png"))


BAD = {
    "empty.jpg": (Path.touch, "zero bytes"),
    "text.jpg": (lambda path: path.write_text("<html>404</html>"), "not an image, or its header is damaged"),
    "cut.png": (cut_short, "header is damaged"),  # the rest of the text is Pillow's and changes with its version
    "cut.jpg": (cut_short, "header is damaged"),
    "dot.png": (lambda path: picture(path, (1, 1)), "too small: 1 x 1 px (height x width), at least 16 needed"),
    "strip.png": (lambda path: picture(path, (15, 40)), "too small: 15 x 40 px (height x width), at least 16 needed"),
    "bomb.bmp": (bomb, "too large: its header claims more than 89478485 pixels"),
    "near.bmp": (near_bomb, "too large: its header claims more than 89478485 pixels"),
    "gone.jpg": (lambda path: path.symlink_to("nowhere.jpg"), "cannot be read: No such file or directory"),
    "pipe.jpg": (os.mkfifo, "not a regular file"),
    "locked.jpg": (picture, "cannot be read: Permission denied"),
    "caf\\xe9.png": (not_utf8, "its name is not UTF-8; rename the file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_photo_is_quarantined(name, tmp_path, monkeypatch):
    """It has a row with the reason, the good one beside it has none, and nothing is raised though warnings are errors here."""
    spoil, reason = BAD[name]
    pictures(tmp_path, "train/drone/0001/good.png")
    spoil(tmp_path / "train/drone/0001" / name)
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *rest: deny(path) if path.name == "locked.jpg" else real(path, *rest))  # chmod does not stop root
    problems = indexed(tmp_path).set_index("path")["problem"].to_dict()
    assert problems.pop("train/drone/0001/good.png") == ""
    assert list(problems) == [f"train/drone/0001/{name}"]
    assert reason in problems[f"train/drone/0001/{name}"]


def deny(path: Path):
    raise PermissionError(13, "Permission denied", str(path))


def test_a_side_of_sixteen_pixels_is_enough(tmp_path):
    picture(tmp_path / "train/drone/0001/a.png", (16, 16))
    assert list(indexed(tmp_path)["problem"]) == [""]


def test_empty_files_are_not_merged_with_each_other(tmp_path):
    """Each is a photo that was lost; only the gallery's copy of a query is the same one."""
    university(tmp_path)
    for path in ("train/drone/0839/a.jpg", "train/drone/0839/b.jpg", "test/query_drone/0007/c.jpg", "test/gallery_drone/0007/c.jpg"):
        (tmp_path / path).touch()
    table = indexed(tmp_path)
    lost = table[table["problem"] == "zero bytes"]
    assert short(lost) == [
        ("drone/0007/c", "test", "gallery+query", ""), ("drone/0839/a", "train", "train", ""), ("drone/0839/b", "train", "train", ""),
    ]  # fmt: skip


# ---- errors


def test_a_root_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no-such: expected a dataset's folder, found nothing there\. Set dataset\.root"):
        indexed(tmp_path / "no-such")
    with pytest.raises(FileNotFoundError, match="no-such: expected a dataset's folder, found nothing there"):
        indexed(tmp_path / "no-such", layout="folder")


def test_a_root_that_is_a_file(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"a\.png: expected a dataset's folder, found a file there"):
        indexed(tmp_path / "a.png")


def test_an_unknown_layout_lists_all(tmp_path):
    pictures(tmp_path, "pics/a.png", "b.png")
    with pytest.raises(ValueError, match=r"found folders \[pics\] and 1 images\. Expected one of: .*layout = 'folder'") as caught:
        indexed(tmp_path)
    assert all(f"{name}: {layout.description}" in str(caught.value) for name, layout in LAYOUTS.items())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("slip", [".", "University-Release/train"])
def test_a_root_one_level_off_is_pointed_out(slip, tmp_path):
    university(tmp_path / "University-Release")
    with pytest.raises(ValueError, match=r"/University-Release looks like university1652\. Name the folder that holds these"):
        indexed(tmp_path / slip)


@pytest.mark.parametrize(("layout", "expected"), [("auto", "university1652"), ("sues200_raw", "sues200_raw"), ("folder", "folder")])
def test_no_image_at_all(layout, expected, tmp_path):
    (tmp_path / "train/drone/0001").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=rf"no image of layout '{expected}' in it; expected .*, files \.bmp .*Check dataset\.root"):
        indexed(tmp_path, layout=layout)


def test_nothing_left_of_what_was_found(tmp_path):
    pictures(tmp_path, "train/drone/0001/a.png")
    with pytest.raises(ValueError, match=r"none of its 1 images .* splits \[train\], but dataset.views = \[\] and dataset.splits = \[test\]"):
        indexed(tmp_path, splits=("test",))


def test_a_variant_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"dataset\.variants asks for \[200\], but it has \[150, 300\]"):
        indexed(sues200_raw(tmp_path), variants=("150", "200"))


def test_training_places_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"train_places names \[2\], which do not exist; it has 3 places, 0001 to 0010"):
        indexed(sues200_raw(tmp_path), train_places=("0001", "2"))


def test_training_places_where_the_disk_has_a_split(tmp_path):
    with pytest.raises(ValueError, match="train_places is for raw SUES-200 only, but this is 'university1652'"):
        indexed(university(tmp_path), train_places=("0839",))


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    """Unlike a bad file: nobody knows what is missing."""
    root, real = university(tmp_path), os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: deny(folder) if str(folder).endswith("0839") else real(folder))
    with pytest.raises(PermissionError, match=r"0839: this folder cannot be listed \(Permission denied\)\. Allow reading it"):
        find_images(root, DatasetSettings(root=root))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "university-1652"}, "no dataset layout is called 'university-1652'; did you mean 'university1652'"),
        ({"views": ("drones",)}, "Input should be 'drone', 'satellite'"),
        ({"splits": ()}, "at least 1 item"),
        ({"limit_places": 0}, "greater than or equal to 1"),
        ({"heights": ("150",)}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_are_refused(settings, message, tmp_path):
    with pytest.raises(pydantic.ValidationError, match=message):
        DatasetSettings(root=tmp_path, **settings)


# ---- the stored manifest


def test_round_trip(tmp_path):
    table = indexed(denseuav(tmp_path / "data"))
    write_manifest(tmp_path / "runs/one/manifest.parquet", table)
    stored = read_manifest(tmp_path / "runs/one/manifest.parquet")
    pd.testing.assert_frame_equal(stored, table)
    assert stored.attrs == table.attrs
    assert manifest_digest(stored) == manifest_digest(table)
    assert sorted(path.name for path in (tmp_path / "runs/one").iterdir()) == ["ledger", "manifest.parquet"]


@pytest.mark.parametrize("allowed", range(6))  # seal, its folder, manifest, its folder, seal, its folder
def test_a_failed_write_keeps_a_whole_manifest(tmp_path, monkeypatch, allowed):
    table = indexed(university(tmp_path / "data"))
    path = tmp_path / "run" / "manifest.parquet"
    write_manifest(path, table)

    steps = [0]
    flush = os.fsync

    def fail(descriptor):
        steps[0] += 1
        if steps[0] > allowed:
            raise OSError("disk full")
        flush(descriptor)

    monkeypatch.setattr(records.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_manifest(path, table[:2])
    assert sorted(file.name for file in path.parent.iterdir()) == ["ledger", "manifest.parquet"]
    assert len(read_manifest(path)) in (len(table), 2)  # the old one or the new one, and no damage is cried


def test_no_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest\.parquet: no manifest; run `atlas index` first"):
        read_manifest(tmp_path / "manifest.parquet")


def test_a_damaged_manifest(tmp_path):
    path = tmp_path / "manifest.parquet"
    write_manifest(path, indexed(university(tmp_path / "data")))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"manifest\.parquet: damaged: its bytes do not match the checksum .* Run `atlas index` again, or res"):
        read_manifest(path)
    manifest_seal(path).remove()  # as in a run of schema version 1
    with pytest.raises(ValueError, match=r"manifest\.parquet: not a readable manifest \(.*\)\. Run `atlas index` again"):
        read_manifest(path)


def test_another_parquet_file(tmp_path):
    table = indexed(university(tmp_path / "data"))
    table.drop(columns=["roles", "problem"]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"not a manifest of this version; it lacks roles, problem"):
        read_manifest(tmp_path / "a.parquet")
    table.attrs = {}
    table.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="it lacks the dataset's root"):
        read_manifest(tmp_path / "b.parquet")


def test_the_digest_knows_nothing_of_where_the_photos_lie(tmp_path):
    here = indexed(university(tmp_path / "here"))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert manifest_digest(indexed(tmp_path / "there")) == manifest_digest(here)


@pytest.mark.parametrize("column", ["id", "digest", "view", "place", "split", "roles", "variant", "problem"])
def test_the_digest_follows_what_defines_the_samples(column, tmp_path):
    table = indexed(university(tmp_path))
    changed = table.copy()
    changed.loc[0, column] = "other"
    assert manifest_digest(changed) != manifest_digest(table)
    assert manifest_digest(table[::-1]) != manifest_digest(table)
    moved = table.assign(path="elsewhere", mask_path="masks/a.png")
    assert manifest_digest(moved) == manifest_digest(table)


def test_settings_can_be_written_down(tmp_path):
    """The resolved config goes into every store."""
    settings = DatasetSettings(root=tmp_path, variants=("150",))
    assert DatasetSettings(**json.loads(settings.model_dump_json())) == settings
