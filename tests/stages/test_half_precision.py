"""Halves become singles bit for bit as NumPy converts them."""

import numpy as np
import pytest

from stages import half_precision
from stages.half_precision import to_single

EVERY_HALF = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


@pytest.mark.parametrize("at_once", [1 << 16, 1000])
def test_every_half_is_converted_as_numpy_does(monkeypatch, at_once):
    """Signed zeros, subnormal numbers, infinities and NaNs among them; a block without any takes the short way."""
    monkeypatch.setattr(half_precision, "_AT_ONCE", at_once)
    found, expected = to_single(EVERY_HALF.reshape(256, 256)), EVERY_HALF.reshape(256, 256).astype(np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_a_view_is_laid_out_in_rows():
    for dtype in (np.float16, np.float32):
        values = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(dtype).transpose(2, 0, 1)
        found = to_single(values)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, values)


def test_inputs_are_not_written_into_and_singles_are_not_copied():
    halves, singles = EVERY_HALF.copy(), np.ones(3, np.float32)
    to_single(halves)
    np.testing.assert_array_equal(halves.view(np.uint16), EVERY_HALF.view(np.uint16))
    assert to_single(singles) is singles
