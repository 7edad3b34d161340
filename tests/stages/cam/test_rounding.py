"""What part of a map is rounding: the formulas against rounding itself, and the verdict on maps of an untrained and of a trained network."""

import numpy as np
import pytest

from stages.cam.facts import within_rounding
from stages.cam.methods import METHODS, CamInput, Cells
from stages.cam.rounding import ROUNDOFF, relative_error

TYPES = {"float16": np.float16, "float32": np.float32}


def exact_cells(channels=256, cells=64, samples=12, seed=0):
    """Cells of equal length, as a LayerNorm of unit gain gives them."""
    values = np.random.default_rng(seed).standard_normal((samples, cells, channels))
    return values / np.linalg.norm(values, axis=2, keepdims=True) * channels**0.5


def made(method, values):
    view = CamInput(Cells(values))
    found = METHODS[method].formula(view)
    return found if METHODS[method].gives == "cells" else np.einsum("bk,bnk->bn", found, values)


@pytest.mark.parametrize("method", ["l2_norm", "max", "mean", "sum"])
def test_the_formulas_are_the_spread_that_rounding_makes(method):
    """Within a factor of two: errors are not quite as likely everywhere up to u, since mantissas are not."""
    exact = exact_cells()
    rounded = exact.astype(np.float16).astype(np.float64)
    spread = (made(method, rounded) - made(method, exact)).std(axis=1)
    told = relative_error("float16", "float32", exact.shape[2]) * METHODS[method].rounding(CamInput(Cells(exact)), made(method, exact))
    assert (told / spread > 1).all() and (told / spread < 2).all()


def test_the_principal_component_of_rounding_alone_is_within_it():
    exact = np.broadcast_to(exact_cells(cells=1), (12, 64, 256))
    noise = (exact * (1 + np.random.default_rng(1).uniform(-1, 1, exact.shape) * ROUNDOFF["float16"])).astype(np.float64)
    found = made("eigen_cam", noise)
    told = relative_error("float16", "float32", 256) * METHODS["eigen_cam"].rounding(CamInput(Cells(noise)), found)
    assert within_rounding(found.min(axis=1), found.max(axis=1), told, 64).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_lengths_that_only_rounding_tells_apart_are_constant_and_a_thousandth_is_not(dtype):
    """The untrained network of SAFENET's size, whose norms are equal; and norms that vary by the 0.14 % that a trained gain leaves."""
    for variation, expected in ((0, True), (0.0014, False)):
        values = exact_cells(768, 256, 4) * (1 + variation * np.random.default_rng(2).standard_normal((4, 256, 1)))
        stored = values.astype(TYPES[dtype]).astype(np.float32)
        norms = made("l2_norm", stored)
        told = relative_error(dtype, "float32", 768) * METHODS["l2_norm"].rounding(CamInput(Cells(stored)), norms)
        assert (within_rounding(norms.min(axis=1), norms.max(axis=1), told, 256) == expected).all()


def test_the_coarsest_of_the_two_types_decides():
    coarse = [relative_error("float32", precision, 768) for precision in ("float32", "float16", "bfloat16")]
    assert coarse == sorted(coarse) and coarse[2] / coarse[1] == pytest.approx(4, rel=0.01)
    assert relative_error("float16", "float32", 768) == pytest.approx(2**-11 / 3**0.5, rel=0.01)
    assert relative_error("float32", "float32", 768) == pytest.approx(2**-24 * (770 / 3) ** 0.5)


def test_every_statistic_tells_its_rounding():
    """It is drawn from its minimum, so that rounding could be stretched into a picture."""
    assert all((row.rounding is not None) == (row.kind == "statistic") for row in METHODS.values())
