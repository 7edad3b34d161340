"""GTA-UAV, from made-up files of the format that its repository publishes."""

import json
from pathlib import Path

import pandas as pd
import pytest
from made_datasets import indexed, picture

from pipeline.index.stage import index
from pipeline.look.plan import plan
from stages.index.layouts import detect_layout
from stages.index.manifest import find_images
from stages.index.settings import DatasetSettings

HIGH, LOW, TRAINED = "500_0001_0000025682.png", "100_0001_0000000007.png", "200_0002_0000000001.png"
TILES = ("4_0_6_13.png", "5_0_12_27.png", "5_0_13_27.png", "6_0_0_0.png", "7_0_1_1.png")


def entry(drone: str, tiles: list[str], weights: list[float] | None = None, **changed) -> dict:
    """An entry as the README of Yux1angJi/GTA-UAV shows it."""
    found = {
        "drone_img_dir": "drone/images",
        "drone_img_name": drone,
        "drone_loc_x_y": [4472.2, 9460.9],
        "sate_img_dir": "satellite",
        "pair_pos_sate_img_list": tiles,
        "pair_pos_sate_weight_list": [0.5 - 0.01 * number for number in range(len(tiles))] if weights is None else weights,
        "pair_pos_sate_loc_x_y_list": [[0.0, 0.0] for _ in tiles],
        "pair_pos_semipos_sate_img_list": [*tiles, "7_0_1_1.png"],
        "pair_pos_semipos_sate_weight_list": [0.2] * (len(tiles) + 1),
        "pair_pos_semipos_sate_loc_x_y_list": [[0.0, 0.0]] * (len(tiles) + 1),
        "drone_metadata": {"height": 494.7},
    }
    return {**found, **changed}


TEST = [entry(HIGH, ["4_0_6_13.png", "5_0_12_27.png"], [0.41, 0.47]), entry(LOW, ["5_0_13_27.png"])]
TRAIN = [entry(TRAINED, ["6_0_0_0.png"])]


def gta_uav(root: Path, **lists: list) -> Path:
    """`lists` are named as cross_test; without any, those above."""
    for name in (HIGH, LOW, TRAINED):
        picture(root / "drone/images" / name)
    for name in TILES:
        picture(root / "satellite" / name)
    for name, entries in (lists or {"cross_train": TRAIN, "cross_test": TEST}).items():
        area, split = name.split("_")
        (root / f"{area}-area-drone2sate-{split}.json").write_text(json.dumps(entries))
    return root


def rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    return list(table[["view", "place", "split", "roles", "variant"]].itertuples(index=False, name=None))


def test_it_is_recognised(tmp_path):
    assert detect_layout(gta_uav(tmp_path)) == "gta_uav"


def test_a_drone_photo_shows_its_best_tile_and_every_tile_is_in_the_gallery(tmp_path):
    assert rows(indexed(gta_uav(tmp_path))) == [
        ("drone", "5_0_12_27", "test", "gallery+query", "500"),  # of two positive tiles that with the larger weight
        ("drone", "5_0_13_27", "test", "gallery+query", "100"),
        ("satellite", "4_0_6_13", "test", "gallery", ""),
        ("satellite", "5_0_12_27", "test", "gallery+query", ""),
        ("satellite", "5_0_13_27", "test", "gallery+query", ""),
        ("satellite", "7_0_1_1", "test", "gallery", ""),
        ("drone", "6_0_0_0", "train", "train", "200"),
        ("satellite", "6_0_0_0", "train", "gallery+train", ""),
    ]


@pytest.mark.parametrize(("weights", "place"), [([0.4, 0.5], "5_0_12_27"), ([0.5, 0.4], "4_0_6_13"), ([0.5, 0.5], "4_0_6_13"), (None, "4_0_6_13")])
def test_the_best_tile(tmp_path, weights, place):
    one = entry(HIGH, list(TILES[:2]), weights)
    if weights is None:
        del one["pair_pos_sate_weight_list"]
    table = indexed(gta_uav(tmp_path, cross_test=[one]))
    assert table.loc[table["view"] == "drone", "place"].tolist() == [place]


def test_only_the_test_list(tmp_path):
    assert set(indexed(gta_uav(tmp_path), splits=("test",))["split"]) == {"test"}


def test_photos_whose_names_tell_no_height(tmp_path):
    """UAV-VisLoc is prepared in this format; its names begin with the number of a flight."""
    root = gta_uav(tmp_path, same_test=[entry("01_0001.JPG", ["6_0_0_0.png"])])
    picture(root / "drone/images/01_0001.JPG")
    table = indexed(root)
    assert table.loc[table["view"] == "drone", "variant"].tolist() == [""]


# ---- which lists


def test_two_splits_of_the_photos_are_not_mixed(tmp_path):
    root = gta_uav(tmp_path, cross_test=TEST, same_test=TRAIN)
    with pytest.raises(ValueError, match=r"has the pair lists of cross-area and of same-area, .* Choose with dataset\.pair_lists = 'cross-area' or"):
        indexed(root)
    table = indexed(root, pair_lists="same-area")
    assert table.loc[table["view"] == "drone", "place"].tolist() == ["6_0_0_0"]


def test_lists_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no same-area-drone2sate-train\.json or -test\.json in it; found lists of \[cross-area\]"):
        indexed(gta_uav(tmp_path), pair_lists="same-area")


def test_the_setting_belongs_to_this_layout(tmp_path):
    picture(tmp_path / "train/drone/0001/a.png")
    with pytest.raises(ValueError, match=r"dataset\.pair_lists is for GTA-UAV only, but this is 'university1652'"):
        indexed(tmp_path, pair_lists="cross-area")


# ---- faults


def test_a_listed_photo_that_is_missing_is_quarantined(tmp_path):
    root = gta_uav(tmp_path)
    (root / "drone/images" / LOW).unlink()
    (root / "satellite/5_0_12_27.png").unlink()
    table = indexed(root)
    assert table.loc[table["problem"] != "", ["path", "problem"]].to_numpy().tolist() == [
        [f"drone/images/{LOW}", "cannot be read: No such file or directory"],
        ["satellite/5_0_12_27.png", "cannot be read: No such file or directory"],
    ]


def test_a_photo_that_is_listed_with_two_tiles_is_told(lab, tmp_path):
    twice = [*TEST, entry(HIGH, ["6_0_0_0.png"]), TEST[1]]
    run = lab.run(tmp_path / "run", photos=gta_uav(tmp_path / "photos", cross_test=twice))
    said = "warning: 1 drone photo of the test list with several best tiles, each of which counts as a place: for instance "
    assert f"{said}drone/images/{HIGH}" in str(index(run))


def test_a_byte_order_mark_before_a_list_is_passed_over(tmp_path):
    root = gta_uav(tmp_path)
    plain = indexed(root)
    path = root / "cross-area-drone2sate-test.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    pd.testing.assert_frame_equal(indexed(root), plain)


def test_a_photo_without_a_positive_tile_is_left_out_and_told(lab, tmp_path):
    """As the published evaluation does."""
    root = gta_uav(tmp_path / "photos", cross_test=[TEST[0], entry(LOW, [])])
    run = lab.run(tmp_path / "run", photos=root)
    said = f"1 drone photos of the test list have no positive satellite tile and are left out, for instance drone/images/{LOW}"
    assert said in str(index(run))
    assert LOW not in " ".join(run.manifest["path"])
    assert "1 of 5 places have both drone and satellite photos; 0 of 2 queries have no gallery photo" in str(index(run))
    assert plan(run)[0].state == "fresh"


BAD = {
    "no JSON": ("{", r"cross-area-drone2sate-test\.json: not JSON \(.*\); expected a pair list of GTA-UAV\. Download it again"),
    "no UTF-8": (b"\xff\xfe[]", r"test\.json: not JSON \(.*\); expected a pair list"),
    "deep": ("[" * 100_000, r"test\.json: not JSON \(.*\); expected a pair list"),
    "no list": ({"a": 1}, r"test\.json: holds a dict; expected a list with one entry per drone photo"),
    "no entry": ([7], r"test\.json: entry 0 is a int; expected drone_img_dir, drone_img_name, sate_img_dir, pair_pos_sate_img_list"),
    "no name": ([entry(HIGH, ["6_0_0_0.png"], drone_img_name=None)], r"entry 0: drone_img_name is None; expected a text"),
    "no tiles": ([entry(HIGH, [], pair_pos_sate_img_list="a")], r"entry 0: pair_pos_sate_img_list is 'a'; expected a list of file names"),
    "few weights": ([entry(HIGH, list(TILES[:2]), [0.5])], r"entry 0: pair_pos_sate_weight_list is \[0\.5\]; expected 2 numbers, one per tile"),
    "NaN": ([entry(HIGH, ["6_0_0_0.png"], [float("nan")])], r"pair_pos_sate_weight_list is \[nan\]; expected 1 number, one per tile"),
    "no positives": ([entry(HIGH, []), entry(LOW, [])], r"test\.json: none of its 2 entries has a tile in pair_pos_sate_img_list; expected one"),
    "outside": ([entry("../../x.png", ["6_0_0_0.png"])], r"entry 0: drone/images/\.\./\.\./x\.png does not lie in the dataset's folder"),
    "no folder": ([entry(HIGH, ["6_0_0_0.png"], sate_img_dir="sat")], r"test\.json: its tiles lie in 'sat', and .*/sat is no folder\. Unpack the"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_list_that_cannot_be_used_is_one_line(fault, tmp_path):
    content, said = BAD[fault]
    root = gta_uav(tmp_path)
    raw = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
    (root / "cross-area-drone2sate-test.json").write_bytes(raw)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
        find_images(root, DatasetSettings(root=root))
    assert "\n" not in str(caught.value)
