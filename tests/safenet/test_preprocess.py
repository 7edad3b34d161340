"""Photos as the network reads them: normalised as the published code does it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from safenet.photos import MEAN, STD
from safenet.preprocess import denormalise, load_image, normalise

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "preprocess.npz")  # a 300 x 420 photo, resized by the published code's transform


def test_load_image_matches_the_golden_tensor(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(GOLDEN["rgb"]).save(path)
    tensor = load_image(path, 256)
    assert tensor.shape == (3, 256, 256)
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor[:, ::16, ::16], GOLDEN["tensor_every_16th"], atol=1e-6)  # float32 rounding of (x / 255 - m) / s


def test_denormalise_undoes_normalise():
    photos = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(denormalise(normalise(photos)), photos)


def test_normalising_gives_the_bits_of_the_formula_in_the_layout_of_the_photos():
    """The layout decides which convolution is run, and so the last digits of all features."""
    photos = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    kept = photos.clone()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    expected = (photos.permute(0, 3, 1, 2).float().div(255) - mean) / std
    found = normalise(photos)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
    assert torch.equal(photos, kept)
