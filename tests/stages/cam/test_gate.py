"""The gate before the heat maps: what it measures, when it falls back to autograd, and when it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from feature_blocks import context_of, feature_block, random_net

from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from safenet.head_arrays import fold_head
from safenet.partition import pool_rings
from stages.cam import gate
from stages.cam.compute import compute_cams
from stages.cam.gate import GATE_READS, examine
from stages.cam.map_keys import MapKey

PREDICTED = MapKey("aligned", "predicted", "hires_cam")


def examined(model, change=None, **kind):
    features = feature_block(model, 4)
    block = {name: features[name].values.copy() for name in GATE_READS}
    arrays = [head.arrays() for head in model.heads[:-1]]
    if change:
        change(block, arrays)
    return examine(block, arrays, kind.get("head_activation", "none"), kind.get("pooling", "mean"))


@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
def test_an_affine_head_passes_with_its_closed_form(sampling):
    found = examined(random_net(sampling, parts=4))
    assert found.form == "closed"
    assert found.samples == 4
    assert found.logit_error < 1e-5, "float32 sums over 16 channels and 64 cells"
    assert found.gradient_error < 1e-5


@pytest.mark.parametrize("kind", [{"head_activation": "leaky_relu"}, {"pooling": "max"}], ids=str)
def test_a_head_without_a_closed_form_is_taken_by_autograd(kind):
    found = examined(random_net(**kind), **kind)
    assert found.form == "autograd"
    assert found.logit_error < 1e-5
    assert found.as_dict()["gradient_error"] is None, "there is nothing to compare, and JSON has no NaN"


def test_a_wrong_closed_form_is_noticed(monkeypatch):
    """One that forgets what BatchNorm divides by gives other cells than their removal does."""

    def without_variance(arrays):
        return fold_head({**arrays, "bn_var": np.ones_like(arrays["bn_var"])})

    monkeypatch.setattr(gate, "fold_head", without_variance)
    found = examined(random_net())
    assert found.gradient_error > 0.1
    assert found.form == "autograd"


def test_the_gate_measures_the_distance_to_autograd():
    """HiResCAM of the predicted class by autograd in float64, through torch's own pooling and heads."""
    model = random_net(parts=4)
    features = feature_block(model, 4)
    cells = torch.tensor(np.moveaxis(features["aligned_map"].values, 3, 1), dtype=torch.float64, requires_grad=True)
    part = pool_rings(cells, torch.from_numpy(features["boundary"].values.astype(np.int64)))
    logit = torch.stack([head(values)[1] for head, values in zip(model.double().heads[:-1], part.unbind(2), strict=True)]).mean(dim=0)
    (gradient,) = torch.autograd.grad(logit.amax(dim=1).sum(), cells)
    expected = (gradient * cells.detach()).sum(dim=1).flatten(1).numpy()
    closed = compute_cams(features, [PREDICTED], context_of(random_net(parts=4)))[PREDICTED.key].values.reshape(4, -1)
    error = np.abs(closed - expected).max() / np.abs(expected).max()
    np.testing.assert_allclose(examined(random_net(parts=4)).gradient_error, error, rtol=1e-4)  # both are roundings of float32


def test_half_precision_costs_what_it_costs():
    def halve(block, arrays):
        block["aligned_map"] = block["aligned_map"].astype(np.float16)

    found = examined(random_net(), halve)
    assert 1e-6 < found.logit_error < gate.LOGIT_TOLERANCE["float16"]


def test_void_and_overflowed_images_are_passed_over():
    def spoil(block, arrays):
        block["valid"][0] = False
        block["aligned_map"][1, 0, 0, 0] = np.inf

    assert examined(random_net(), spoil).samples == 2

    def spoil_all(block, arrays):
        block["valid"][:] = False

    assert examined(random_net(), spoil_all).samples == 0


def test_the_figures_are_kept_beside_the_maps(finished):
    for name in ("net_000", "net_002"):
        kept = finished.cams(name).attributes["exactness"]
        assert kept["form"] == "closed"
        assert kept["gradient_error"] < 1e-4
        assert kept["logit_error"] < 5e-3


def test_a_closed_form_that_disagrees_is_left_for_autograd(lab, extracted_copy, finished, monkeypatch):
    """The maps are the same to rounding; the store says how they were taken."""
    monkeypatch.setattr(gate, "GRADIENT_TOLERANCE", -1.0)
    run = lab.run(extracted_copy, checkpoints="net_000.pth")
    cam(run)
    assert run.cams("net_000").attributes["exactness"]["form"] == "autograd"
    for key in ("aligned/match/grad_cam", "patch/label/grad_cam"):
        ours, theirs = (one.cams("net_000").read([key])[key].values for one in (run, finished))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.nanmax(np.abs(theirs)))


def test_logits_of_other_maps_are_refused(lab, extracted_copy, monkeypatch):
    monkeypatch.setattr("pipeline.cam.references.LOGIT_TOLERANCE", {"float16": 1e-9, "float32": 1e-9})
    said = r"net_000: the stored logits are not those of the stored maps and heads: they differ by .* Run `atlas verify`"
    with pytest.raises(ValueError, match=said):
        cam(lab.run(extracted_copy, checkpoints="net_000.pth"))


def test_what_the_gate_compares_can_fail():
    """Heads of another network, or boundaries of other images, are noticed."""
    other = random_net(seed=5)

    def swap_heads(block, arrays):
        arrays[:] = [head.arrays() for head in other.heads[:-1]]

    def shift_boundaries(block, arrays):
        block["boundary"] = np.roll(block["boundary"], 1, axis=0) + np.array([1, 0], block["boundary"].dtype)

    assert examined(random_net(), swap_heads).logit_error > 0.1
    assert examined(random_net(), shift_boundaries).logit_error > 0.01


def test_a_network_with_an_activation_goes_through_all_stages(lab, tmp_path, indexed, make_network):
    from safenet.checkpoint import save_checkpoint

    model = make_network(0, head_activation="leaky_relu", pooling="max")
    save_checkpoint(tmp_path / "net_000.pth", model, epoch=0, class_names=("0000", "0001", "0002"))
    directory = Path(shutil.copytree(indexed, tmp_path / "run"))
    run = lab.run(directory, f"extract.checkpoints=['{tmp_path / 'net_000.pth'}']", "cam.methods=['hires_cam', 'token_deletion']")
    extract(run)
    cam(run)
    assert run.cams("net_000").attributes["exactness"]["form"] == "autograd"
    assert not run.cams("net_000").array_attributes("aligned/label/hires_cam")["exact"]
