"""The procedural scenes: same settings, same bytes; the building alone tells a place apart; the masks fit."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import cv2
import numpy as np
import pytest

from safenet.scenes import dataset
from safenet.scenes.buildings import FOOTPRINTS, ROOF_PATTERNS, Wing, design_building, outer_walls
from safenet.scenes.canvas import open_canvas, sweep
from safenet.scenes.dataset import draw_view, plan_views, write_scenes
from safenet.scenes.painting import PATTERNS
from safenet.scenes.settings import SceneSettings

SMALL = SceneSettings(places=3, test_places=1, drone_views=2, size_px=48)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes") / "root"
    write_scenes(root, SMALL)
    return root


def _files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_layout_is_university_1652s(written):
    train = [f"train/{kind}/{place}/{name}" for place in ("0000", "0001") for kind, name in _photos(place)]
    test = [f"test/{role}_{kind}/0002/{name}" for role in ("query", "gallery") for kind, name in _photos("0002")]
    masks = [f"masks/{name.rsplit('.', 1)[0]}.png" for name in train + test]
    assert sorted(_files(written)) == sorted([*train, *test, *masks, "scenes.json"])


def _photos(place):
    return [("satellite", f"{place}.jpg"), ("drone", "image-01.jpeg"), ("drone", "image-02.jpeg")]


def test_query_and_gallery_hold_the_same_bytes(written):
    files = _files(written)
    queries = [name for name in files if "query_" in name]
    assert len(queries) == 6  # 3 photos and 3 masks of the one test place
    assert all(files[name] == files[name.replace("query_", "gallery_")] for name in queries)


def test_same_settings_give_the_same_bytes_whoever_draws_them(written, tmp_path):
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        write_scenes(tmp_path / "again", SMALL, pool.map)
    assert _files(tmp_path / "again") == _files(written)


def test_a_scene_that_cannot_be_drawn_leaves_nothing_finished(tmp_path, monkeypatch):
    def no_room(path, content):
        raise OSError("no space left")

    monkeypatch.setattr(dataset, "_write_bytes", no_room)
    with ThreadPoolExecutor(2) as pool, pytest.raises(OSError, match="no space left"):
        write_scenes(tmp_path / "scenes", SMALL, pool.map)
    assert not (tmp_path / "scenes").exists()


def test_another_seed_gives_other_photos_and_buildings():
    other = replace(SMALL, seed=1)
    assert not np.array_equal(draw_view(0, plan_views(0, SMALL)[0], SMALL)[0], draw_view(0, plan_views(0, other)[0], other)[0])
    assert design_building(0, 0).heading_deg != design_building(0, 1).heading_deg


def test_the_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw_view(0, plan_views(0, SMALL)[1], SMALL)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_masks_lie_beside_their_photos(written):
    for path in written.glob("t*/*/*/*.jp*g"):
        photo = cv2.imread(str(path))
        mask = cv2.imread(str(written / "masks" / path.relative_to(written).with_suffix(".png")), cv2.IMREAD_UNCHANGED)
        assert photo.shape == (48, 48, 3)
        assert mask.shape == (48, 48)
        assert set(np.unique(mask)) == {0, 255}


def test_what_is_written_is_what_is_drawn(written):
    photo, mask = draw_view(1, plan_views(1, SMALL)[2], SMALL)
    stored = cv2.imread(str(written / "train/drone/0001/image-02.jpeg"))[..., ::-1]
    np.testing.assert_array_equal(cv2.imread(str(written / "masks/train/drone/0001/image-02.png"), cv2.IMREAD_UNCHANGED), mask * 255)
    assert np.abs(stored.astype(float) - photo).mean() < 10  # JPEG at quality 92 halves the colour resolution of a 48 px picture


def test_finished_scenes_are_not_drawn_again(written, monkeypatch):
    monkeypatch.setattr("safenet.scenes.dataset.draw_view", None)
    before = (written / "scenes.json").stat().st_mtime_ns
    write_scenes(written, SMALL)
    assert (written / "scenes.json").stat().st_mtime_ns == before


def test_a_killed_run_leaves_nothing_under_the_root(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    root = tmp_path / "root"
    with monkeypatch.context() as patch:
        patch.setattr("safenet.scenes.dataset._write_place", stop)
        with pytest.raises(KeyboardInterrupt):
            write_scenes(root, SMALL)
    assert not root.exists()
    write_scenes(root, replace(SMALL, places=1, test_places=0))
    assert [path.name for path in tmp_path.iterdir()] == ["root"]  # the leftover is swept


def test_other_settings_scenes_are_kept(written):
    with pytest.raises(ValueError, match=r"root: holds scenes made with seed = 0, but 5 is asked for\. Name another folder"):
        write_scenes(written, replace(SMALL, seed=5))


def test_a_folder_of_something_else_is_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear reader")
    with pytest.raises(FileExistsError, match=r"holds files but no scenes\.json, so it was not written by write_scenes\. Name an empty"):
        write_scenes(tmp_path, SMALL)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"places": 3, "test_places": 4}, r"places = 3 and test_places = 4, but expected 0 <= test_places <= places <= 9999"),
        ({"places": 10000}, r"places = 10000 .*ids have 4 digits"),
        ({"drone_views": 0}, r"drone_views = 0, .* expected drone_views >= 1"),
        ({"size_px": 8}, r"size_px = 8, .* size_px >= 32"),
        ({"seed": -1}, r"seed = -1, .* seed >= 0"),
        ({"max_offset": 0.5}, r"max_offset = 0\.5, but .* max_offset <= 0\.3"),
        ({"jpeg_quality": 101}, r"jpeg_quality = 101, but .* 1 to 100"),
    ],
)
def test_wrong_settings_are_named(wrong, text):
    with pytest.raises(ValueError, match=text):
        SceneSettings(**wrong)


def test_surroundings_change_and_the_building_stays():
    settings = replace(SMALL, size_px=96)
    for place, index in ((0, 0), (0, 1), (1, 2)):
        view = plan_views(place, settings)[index]
        photo, mask = draw_view(place, view, settings)
        other, other_mask = draw_view(place, replace(view, surroundings_seed=(77, index)), settings)
        change = np.abs(photo.astype(float) - other).mean(axis=-1)
        kernel = np.ones((3, 3), np.uint8)
        inside = cv2.erode(mask & other_mask, kernel, iterations=2).astype(bool)
        outside = ~cv2.dilate(mask | other_mask, kernel, iterations=2).astype(bool)
        assert change[inside].mean() < 1.0  # the blur reaches in from the border, a little
        assert change[outside].mean() > 10
        assert (mask != other_mask).mean() < 0.02  # a tree in front of a wall


def test_one_place_has_different_surroundings_in_each_view():
    seeds = [view.surroundings_seed for place in range(3) for view in plan_views(place, SMALL)]
    assert len(set(seeds)) == len(seeds)


@pytest.fixture(scope="module")
def drawn():
    """Photos and masks of 12 places: 1 satellite and 2 drone views each."""
    settings = replace(SMALL, places=12)
    views = [[draw_view(place, view, settings) for view in plan_views(place, settings)] for place in range(12)]
    return np.array([[photo for photo, _ in row] for row in views]), np.array([[mask for _, mask in row] for row in views])


def test_the_building_is_seen_whole_and_seldom_in_the_middle(drawn):
    middles = []
    for mask in drawn[1].reshape(-1, 48, 48):
        assert 0.03 < mask.mean() < 0.5
        assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
        middles.append(np.argwhere(mask).mean(axis=0) / 48 - 0.5)
    assert (np.std(middles, axis=0) > 0.08).all()
    assert np.abs(middles).max() < 0.22 + 0.1  # the middle of the mask is not quite that of its bounding box


def test_drone_views_go_round_the_building():
    azimuths = np.sort([view.azimuth_deg for view in plan_views(0, replace(SMALL, drone_views=8))[1:]])
    gaps = np.diff([*azimuths, azimuths[0] + 360])
    assert gaps.max() < 1.6 * 360 / 8 + 1e-9  # each is moved by at most 0.3 of a step


def test_colour_of_the_whole_photo_does_not_name_the_place(drawn):
    colour = drawn[0].mean(axis=(2, 3))
    distance = np.linalg.norm(colour[:, 1:, None] - colour[None, None, :, 0], axis=-1)
    assert (distance.argmin(axis=-1) == np.arange(12)[:, None]).mean() < 0.36  # chance is 1 / 12; five deviations of 24 draws more


def test_every_pattern_is_dealt_before_one_returns():
    assert set(ROOF_PATTERNS) == set(PATTERNS)
    buildings = [design_building(place, 3) for place in range(len(FOOTPRINTS))]
    assert len({len(building.wings) for building in buildings}) >= 3
    assert len({building.pattern for building in buildings}) >= len(ROOF_PATTERNS) - 1  # a pitched octagon gets a penthouse


def test_outer_walls_leave_out_what_two_wings_share():
    walls = outer_walls((Wing(0, 0, 4, 1, 5), Wing(1, 1, 2, 3, 5)))
    lengths = np.linalg.norm(walls[:, 1] - walls[:, 0], axis=1)
    assert lengths.sum() == pytest.approx(4 + 1 + 1 + 4 + 2 + 2)  # the T's perimeter, its ends and both sides of the stem
    x, y = walls[:, 0].T
    next_x, next_y = walls[:, 1].T
    assert (x * next_y - next_x * y).sum() / 2 == pytest.approx(4 * 1 + 1 * 2)  # counterclockwise, so the area is positive


def test_camera_looks_where_it_is_told():
    canvas = open_canvas(100, azimuth_deg=90, tilt_deg=40, distance_m=200, span_m=50, sun=np.array([0.0, 0.0, 1.0]), ambient=0.5)
    middle, north, east, up = canvas.project(np.array([[0.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]))
    np.testing.assert_allclose(middle, [49.5, 49.5])
    np.testing.assert_allclose(north - middle, [-2, 0], atol=1e-9)  # east is up, so north is left; 100 px / 50 m
    assert east[1] < middle[1] - 1.4  # cos 40 of 2 px, less a little of perspective
    assert up[1] < middle[1] - 1.2  # sin 40 of 2 px


def test_shadows_fall_away_from_the_sun():
    sun = np.array([np.cos(np.deg2rad(45)), 0, np.sin(np.deg2rad(45))])
    shadow = sweep(np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), sun, 3.0)
    np.testing.assert_allclose([shadow.min(axis=0), shadow.max(axis=0)], [[-3, 0], [1, 1]], atol=1e-6)  # float32 inside cv2
