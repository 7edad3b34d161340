"""Photos in, masks in."""

import numpy as np
import pytest
from PIL import Image

from pipeline.disk.stamps import file_digest
from pipeline.extract.photos import PhotoFiles, PhotoReader, read_mask
from safenet.photos import decode_photo


def save_mask(path, mask):
    Image.fromarray((np.asarray(mask) * 255).astype(np.uint8)).save(path)
    return path


def test_the_share_of_a_cell_is_the_mean_of_its_pixels(tmp_path):
    mask = np.random.default_rng(0).random((12, 12)) < 0.4
    share, _ = read_mask(save_mask(tmp_path / "m.png", mask), 4)
    assert share.dtype == np.float32
    np.testing.assert_allclose(share, mask.reshape(4, 3, 4, 3).mean(axis=(1, 3)), atol=1e-6)  # float32 sums over 9 pixels


def test_the_centre_of_a_cell_is_its_middle_pixel(tmp_path):
    mask = np.random.default_rng(1).random((12, 12)) < 0.4
    _, centre = read_mask(save_mask(tmp_path / "m.png", mask), 4)
    assert centre.dtype == np.int8
    np.testing.assert_array_equal(centre, mask[1::3, 1::3])


def test_a_mask_of_another_shape_is_squashed_like_its_photo(tmp_path):
    mask = np.zeros((4, 8), bool)
    mask[:, :4] = True
    share, centre = read_mask(save_mask(tmp_path / "m.png", mask), 2)
    np.testing.assert_array_equal(share, [[1, 0], [1, 0]])
    np.testing.assert_array_equal(centre, [[1, 0], [1, 0]])


def test_a_grey_mask_is_cut_in_the_middle(tmp_path):
    Image.fromarray(np.array([[127, 128], [0, 255]], np.uint8)).save(tmp_path / "m.png")
    share, centre = read_mask(tmp_path / "m.png", 2)
    np.testing.assert_array_equal(share, [[0, 1], [0, 1]])
    np.testing.assert_array_equal(centre, [[0, 1], [0, 1]])


def test_without_a_mask_nothing_is_claimed():
    share, centre = read_mask(None, 3)
    assert np.isnan(share).all()
    assert (centre == -1).all()


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(2)
    names = [f"{number}.png" for number in range(9)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path, names


BATCHES = [[0, 1], [2, 3], [4], [8, 6, 7]]


def digests(root, names):
    return [file_digest(root / name) if (root / name).exists() else "" for name in names]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_come_in_order_again_and_again(photos, workers):
    """The second reading reuses the worker processes, with other batches: as the second checkpoint of a run does."""
    root, names = photos
    reader = PhotoReader(PhotoFiles(root, names, digests(root, names), [""] * 9, [""] * 9, 16, 4), workers, threads=2)
    for wanted in (BATCHES, [[3, 5]], BATCHES):
        batches = list(reader.read(wanted))
        assert [len(batch.photos) for batch in batches] == [len(samples) for samples in wanted]
        for batch, samples in zip(batches, wanted, strict=True):
            expected = np.stack([decode_photo(root / names[sample], 16) for sample in samples])
            assert batch.pixels.dtype == np.uint8
            np.testing.assert_array_equal(batch.pixels, expected)


def test_a_reading_that_is_given_up_leaves_nothing_for_the_next(photos):
    """As where too many photos are bad: what was read ahead must not be taken for what is asked next."""
    root, names = photos
    reader = PhotoReader(PhotoFiles(root, names, digests(root, names), [""] * 9, [""] * 9, 16, 4), 1)
    assert len(next(reader.read(BATCHES)).photos) == 2
    (batch,) = reader.read([[7]])
    np.testing.assert_array_equal(batch.pixels, [decode_photo(root / names[7], 16)])


def test_a_photo_that_cannot_be_decoded_is_black_and_says_why(photos):
    root, names = photos
    (root / names[0]).write_bytes((root / names[0]).read_bytes()[:200])
    (root / names[1]).unlink()
    (root / names[2]).write_bytes(b"not a picture\nat all")
    files = PhotoFiles(root, names, digests(root, names), [""] * 9, ["", "", "", "zero bytes", *[""] * 5], 16, 4)
    for number, reason in (
        (0, "cannot be decoded: .*truncated"),
        (1, "cannot be decoded: .*No such file"),
        (2, "cannot be decoded: cannot identify"),
    ):
        photo = files[number]
        assert not photo.pixels.any()
        assert "\n" not in photo.problem
        with pytest.raises(ValueError, match=reason):
            raise ValueError(photo.problem)
    assert files[3].problem == "zero bytes"  # known from the manifest: not tried again
    assert not files[3].pixels.any()
    assert files[4].problem == ""
    assert files[4].pixels.any()
