"""Photos as the network reads them: Pillow's bicubic, exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from safenet.preprocess import decode_photo, denormalise, load_image, normalise, resize_photo

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "preprocess.npz")  # a 300 x 420 photo, resized by the published code's transform


def test_resize_equals_pillow_bicubic_exactly():
    np.testing.assert_array_equal(resize_photo(GOLDEN["rgb"], 256), GOLDEN["resized"])


def test_load_image_matches_the_golden_tensor(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(GOLDEN["rgb"]).save(path)
    tensor = load_image(path, 256)
    assert tensor.shape == (3, 256, 256)
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor[:, ::16, ::16], GOLDEN["tensor_every_16th"], atol=1e-6)  # float32 rounding of (x / 255 - m) / s


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    Image.fromarray(GOLDEN["rgb"]).convert(mode).save(path)
    assert decode_photo(path, 32).shape == (32, 32, 3)


def test_denormalise_undoes_normalise():
    photos = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(denormalise(normalise(photos)), photos)


def test_a_missing_photo_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg"):
        load_image(tmp_path / "absent.jpg")
