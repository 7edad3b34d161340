"""A run opened for analysis."""

import numpy as np
import pytest
import xarray as xr

import pipeline
from pipeline.cam.stage import cam
from pipeline.cam.staleness import map_stamps
from pipeline.store.groups import JOINED
from pipeline.store.tables import write_dataset
from stages.cam.facts import FACTS, map_facts


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


def test_facts_and_figures_of_an_earlier_version_are_read_under_today_s_names(lab, extracted_copy, monkeypatch):
    """Version 2 of cam had no `rounding`; what versions up to 3 of stats called flat is low contrast."""
    run = lab.run(extracted_copy, checkpoints="net_000.pth")
    with monkeypatch.context() as earlier:
        earlier.setattr("pipeline.cam.layout.FACTS", FACTS[:6])
        earlier.setattr(map_stamps, "__defaults__", (2,))
        earlier.setattr("stages.cam.compute.map_facts", lambda *given: map_facts(*given)[:, :6])
        cam(run)
    coordinates = {"checkpoint": np.array(["net_000"], object), "epoch": ("checkpoint", [0.0]), "status": np.array(["ok", "flat"], object)}
    write_dataset(run.stats_path, JOINED, xr.Dataset({"flat": (("checkpoint", "status"), [[0.5, 0.25]])}, coords=coordinates), {})
    opened = pipeline.open_run(extracted_copy, partial=True)
    assert opened.facts["fact"].values.tolist() == list(FACTS[:6])
    facts = opened.facts["aligned/match/grad_cam"]
    assert facts.shape == (1, 15, 6) and float(facts.sel(fact="high")[0, 0]) == float(opened.cams["aligned/match/grad_cam"][0, 0].max())
    assert "flat" not in opened.stats and opened.stats["status"].values.tolist() == ["ok", "low contrast"]
    cam(run)
    assert pipeline.open_run(extracted_copy, partial=True).facts["fact"].values.tolist() == list(FACTS)
