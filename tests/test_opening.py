"""A run opened for analysis."""

import numpy as np
import pytest

import pipeline


def test_checkpoints_lie_side_by_side(finished):
    run = pipeline.open_run(finished.directory)
    assert run.features.sizes["checkpoint"] == 3
    assert run.features["epoch"].values.tolist() == [0, 1, 2]
    assert run.cams["aligned/match/grad_cam"].dims == ("checkpoint", "sample", "y", "x")
    assert run.cams.chunks, "nothing is read before it is used"
    assert len(run.manifest) == run.features.sizes["sample"]
    stored = finished.cams("net_001").read(["patch/none/l2_norm"])["patch/none/l2_norm"].values
    np.testing.assert_array_equal(run.cams["patch/none/l2_norm"].sel(checkpoint="net_001"), stored)


def test_samples_are_chosen_by_their_texts(finished):
    run = pipeline.open_run(finished.directory)
    drones = run.cams.isel(sample=run.cams["view"].values == "drone")
    assert set(drones["view"].values) == {"drone"}
    assert drones.sizes["sample"] == (run.manifest["view"] == "drone").sum()


def test_figures_come_with_the_run(finished):
    assert pipeline.open_run(finished.directory).stats["recall_1"].dims == ("checkpoint", "direction")


def test_a_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no features; run `atlas extract` first"):
        pipeline.open_run(tmp_path)
