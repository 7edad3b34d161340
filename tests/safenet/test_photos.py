"""Photos as the network reads them: Pillow's bicubic, exactly."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safenet.photos import decode_photo, resize_photo

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "preprocess.npz")  # a 300 x 420 photo, resized by the published code's transform


def test_resize_equals_pillow_bicubic_exactly():
    np.testing.assert_array_equal(resize_photo(Image.fromarray(GOLDEN["rgb"]), 256), GOLDEN["resized"])


def test_a_jpeg_is_decoded_whole_and_then_resized(tmp_path):
    """libjpeg-turbo halves a photo of twice the size while it decodes it, in less time, but to other pixels."""
    path, photo = tmp_path / "photo.jpg", Image.fromarray(GOLDEN["rgb"]).resize((64, 64))
    photo.save(path, quality=90)
    with Image.open(path) as whole, Image.open(path) as scaled:
        scaled.draft("RGB", (32, 32))
        assert scaled.size == (32, 32)
        assert not np.array_equal(decode_photo(path, 32), np.asarray(scaled))
        plain = Image.fromarray(np.array(whole.convert("RGB"))).resize((32, 32), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(decode_photo(path, 32), np.asarray(plain))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    Image.fromarray(GOLDEN["rgb"]).convert(mode).save(path)
    assert decode_photo(path, 32).shape == (32, 32, 3)


def test_a_missing_photo_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg"):
        decode_photo(tmp_path / "absent.jpg", 32)
