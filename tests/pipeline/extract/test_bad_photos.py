"""Odd and bad photos from the folder to the store: each is used as docs/bad-input.md says, or quarantined with a reason in one line."""

import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from odd_photos import BAD, HEIGHT, TOO_LARGE, USED, WIDTH, claiming, colours, palette_of, plain, repeated, sixteen_bits, square_of_30000_px
from PIL import Image, ImageFile

from pipeline.disk.stamps import file_digest
from pipeline.extract.photos import PhotoFiles, PhotoReader
from pipeline.extract.stage import extract
from pipeline.features.bad_images import bad_images
from pipeline.index.stage import index
from pipeline.run.manifest import index_dataset, read_header, read_manifest
from safenet.photos import FORMATS, LARGEST_PHOTO_PX, decode_photo, resize_photo, to_rgb
from stages.index.layouts import IMAGE_SUFFIXES, walk
from stages.index.settings import DatasetSettings

ODD = "train/drone/0000"  # among the drone views of a training place
INPUT_PX = 32


@pytest.fixture(scope="module")
def odd_run(lab, tmp_path_factory):
    """The lab's 15 photos, all odd and bad ones in one folder of them, and links that lead nowhere or round in circles; what must come out."""
    photos = Path(shutil.copytree(lab.photos, tmp_path_factory.mktemp("odd") / "photos"))
    folder = photos / ODD
    expected = {name: write(folder / name) for name, write in USED.items()}
    for name, (write, _) in BAD.items():
        write(folder / name)
    (folder / "up").symlink_to(photos, target_is_directory=True)
    (photos / "train" / "drone" / "round").symlink_to("round")
    (photos / "train" / "drone" / "0009").symlink_to("nowhere")
    run = lab.run(tmp_path_factory.mktemp("odd_run") / "run", "extract.max_bad_share=0.6", photos=photos, checkpoints="net_000.pth")
    index(run)
    extract(run)
    return run, expected


def reasons(run):
    """Sample id -> why it is void, as text."""
    return {name: fault.reason for name, fault in bad_images(run).items()}


def row_of(run, name):
    table = run.manifest
    return table[table["path"] == f"{ODD}/{name}"].iloc[0]


@pytest.mark.parametrize("name", USED)
def test_an_odd_photo_is_used(odd_run, name):
    run, expected = odd_run
    row = row_of(run, name)
    assert row["id"] not in reasons(run)
    stored = run.features("net_000").read(["image", "valid"])
    assert stored["valid"].values[row["sample"]]
    np.testing.assert_array_equal(stored["image"].values[row["sample"]], resize_photo(Image.fromarray(expected[name]), INPUT_PX))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_photo_is_quarantined(odd_run, name):
    run, _ = odd_run
    row = row_of(run, name)
    with pytest.raises(ValueError, match=BAD[name][1]):
        raise ValueError(reasons(run)[row["id"]])
    assert not run.features("net_000").read(["valid"])["valid"].values[row["sample"]]


def test_the_page_tells_every_reason(odd_run):
    page = (Path(__file__).parents[3] / "docs" / "bad-input.md").read_text(encoding="utf-8")
    for reason in reasons(odd_run[0]).values():
        assert f"`{re.split('[:;]', reason)[0]}" in page


def test_nothing_else_is_void_and_no_place_appears_or_goes(odd_run, indexed):
    run, _ = odd_run
    ordinary = read_manifest(indexed / "manifest.parquet")
    assert len(reasons(run)) == len(BAD)
    assert len(run.manifest) == len(ordinary) + len(USED) + len(BAD)
    assert set(run.manifest["place"]) == set(ordinary["place"])


def test_whatever_is_told_of_a_photo_is_one_line(odd_run):
    run, _ = odd_run
    for name, reason in {**dict.fromkeys(run.manifest["id"], ""), **reasons(run)}.items():
        assert len(f"{name}: {reason}".splitlines()) == 1
        assert (name + reason).isprintable()
    assert {r"drone/0000/line\nbreak", r"drone/0000/tab\tand\u2028more\x1b[31m"} <= set(run.manifest["id"])


def test_a_folder_with_a_line_break_is_a_place_of_one_line(tmp_path):
    (tmp_path / "roof\nand sky").mkdir()
    plain(tmp_path / "roof\nand sky" / "a.png")
    (tmp_path / r"roof\nand sky").mkdir()
    plain(tmp_path / r"roof\nand sky" / "a.png")
    table = index_dataset(DatasetSettings(root=tmp_path, layout="folder"), workers=1)
    assert set(table["place"]) == {r"roof\nand sky"}
    assert table["id"].is_unique
    assert all((tmp_path / path).is_file() for path in table["path"])


# ---- the same limit in every process


@pytest.mark.parametrize("filtered", ["ignore", "error", "default"])
@pytest.mark.parametrize("pillows_limit", [None, 100, Image.MAX_IMAGE_PIXELS])
def test_the_index_and_the_decoder_have_one_limit(tmp_path, monkeypatch, filtered, pillows_limit):
    """Whatever the caller set for warnings and for Pillow; a lower limit of Pillow's is told in the same words."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
    claiming(11_000, 11_000)(tmp_path / "a.png")
    with warnings.catch_warnings(record=filtered == "default"):
        warnings.simplefilter(filtered)
        assert re.fullmatch(TOO_LARGE, read_header(tmp_path / "a.png").problem)
        with pytest.raises(ValueError, match=TOO_LARGE):
            decode_photo(tmp_path / "a.png", INPUT_PX)


def test_a_bomb_that_the_index_did_not_see_is_refused_in_a_worker_process(tmp_path):
    claiming(11_000, 11_000)(tmp_path / "near.png")
    claiming(100_000, 100_000)(tmp_path / "bomb.png")
    plain(tmp_path / "good.png")
    names = ["near.png", "bomb.png", "good.png"]
    files = PhotoFiles(tmp_path, names, [file_digest(tmp_path / name) for name in names], [""] * 3, [""] * 3, INPUT_PX, 8)
    (batch,) = PhotoReader(files, workers=1).read([[0, 1, 2]])
    near, huge, good = (photo.problem for photo in batch.photos)
    assert near == huge == "cannot be decoded: too large: its header claims more than 89478485 pixels"
    assert good == ""


def test_the_largest_photo_is_just_allowed(tmp_path):
    height = 9_459
    claiming(LARGEST_PHOTO_PX // height, height)(tmp_path / "a.png")
    claiming(LARGEST_PHOTO_PX // height + 1, height)(tmp_path / "b.png")
    assert read_header(tmp_path / "a.png").problem == ""
    assert re.fullmatch(TOO_LARGE, read_header(tmp_path / "b.png").problem)


def test_no_pixel_of_a_photo_that_is_too_large_is_decoded(tmp_path, monkeypatch):
    """900 million pixels would be 2.7 GB."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    square_of_30000_px(tmp_path / "a.png")
    assert re.fullmatch(TOO_LARGE, read_header(tmp_path / "a.png").problem)
    with pytest.raises(ValueError, match=TOO_LARGE):
        decode_photo(tmp_path / "a.png", INPUT_PX)


# ---- conversions, one by one


def test_16_bits_keep_their_order_instead_of_turning_white():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = np.asarray(to_rgb(Image.fromarray(ramp)))[..., 0]
    np.testing.assert_array_equal(found, np.repeat(np.arange(256)[:, None], 256, axis=1))
    assert np.mean(np.asarray(Image.fromarray(ramp).convert("RGB")) == 255) > 0.99, "what Pillow alone makes of it, and why we do not leave it to it"


def test_older_pillows_open_16_bit_grey_pngs_as_32_bits():
    values = sixteen_bits()
    photo = Image.fromarray(values.astype(np.int32))
    photo.format = "PNG"
    np.testing.assert_array_equal(to_rgb(photo), repeated(values // 256))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "RGBA", "LA", "P", "CMYK", "YCbCr", "LAB", "HSV"])
def test_8_bits_are_converted_as_the_published_code_does(mode):
    photo = Image.fromarray(colours()).convert(mode) if mode != "LAB" else Image.merge("LAB", Image.fromarray(colours()).split())
    np.testing.assert_array_equal(to_rgb(photo), photo.convert("RGB"))


def test_a_cmyk_jpeg_is_not_inverted(tmp_path):
    rgb = colours()
    bands = [Image.fromarray(255 - rgb[..., band]) for band in range(3)]
    Image.merge("CMYK", [*bands, Image.new("L", (WIDTH, HEIGHT), 0)]).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as photo:
        assert photo.mode == "CMYK"
        np.testing.assert_allclose(np.asarray(to_rgb(photo), int), rgb, atol=4)  # JPEG's rounding at quality 100


def test_converting_leaves_the_photo_alone():
    photo, _ = palette_of(colours())
    photo.info["transparency"] = bytes(range(16))
    to_rgb(photo)
    assert (photo.mode, photo.info["transparency"]) == ("P", bytes(range(16)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_a_photo_cut_at_any_length_is_refused_or_whole(tmp_path, suffix):
    """Never a picture that is grey from some row on; the last bytes of some formats say nothing of the picture."""
    path = tmp_path / f"a{suffix}"
    plain(path)
    content, whole = path.read_bytes(), decode_photo(path, INPUT_PX)
    warnings.simplefilter("ignore")  # as the index does; Pillow warns of some cuts besides refusing them
    for length in sorted({*range(0, len(content), max(1, len(content) // 60)), len(content) - 2, len(content) - 1}):
        path.write_bytes(content[:length])
        photo = PhotoFiles(tmp_path, [path.name], [file_digest(path)], [""], [read_header(path).problem], INPUT_PX, 8)[0]
        assert photo.problem or np.array_equal(photo.pixels, whole), length
        assert "\n" not in photo.problem


def test_formats_are_those_of_the_suffixes_and_gif():
    """Others are not worth the risk: Pillow hands PostScript to a program."""
    Image.init()
    assert set(FORMATS) == {Image.EXTENSION[suffix] for suffix in IMAGE_SUFFIXES} | {"GIF"}


def test_what_is_no_image_says_so_when_decoded(tmp_path):
    (tmp_path / "a.jpg").write_text("%!PS-Adobe-3.0")
    with pytest.raises(OSError, match="cannot identify it, or its header is damaged; expected BMP, GIF, JPEG, PNG, TIFF, WEBP"):
        decode_photo(tmp_path / "a.jpg", INPUT_PX)


# ---- links in the tree


def link(place, target):
    place.symlink_to(target, target_is_directory=True)


def test_links_round_in_circles_end(tmp_path):
    """Two folders that link to each other show each other's photos once; a link to itself, to a folder above or to nothing is left out."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    link(tmp_path / "a" / "to_b", tmp_path / "b")
    link(tmp_path / "b" / "to_a", tmp_path / "a")
    link(tmp_path / "a" / "here", ".")
    link(tmp_path / "a" / "up", "..")
    link(tmp_path / "itself", "itself")
    link(tmp_path / "ping", "pong")
    link(tmp_path / "pong", "ping")
    link(tmp_path / "nowhere", "gone")
    assert sorted(walk(tmp_path)) == ["a/1.png", "a/to_b/1.png", "b/1.png", "b/to_a/1.png"]


def test_a_root_that_is_a_link_is_followed(tmp_path):
    (tmp_path / "data" / "drone").mkdir(parents=True)
    plain(tmp_path / "data" / "drone" / "a.png")
    link(tmp_path / "here", "data")
    assert list(index_dataset(DatasetSettings(root=tmp_path / "here", layout="folder"), workers=1)["path"]) == ["drone/a.png"]
