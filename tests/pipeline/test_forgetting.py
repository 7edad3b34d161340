"""`atlas forget-checkpoint`: everything of a checkpoint leaves a run, nothing of another does, and a kill at any step is mended by a second call."""

import json
import shutil
from pathlib import Path

import pytest
from disk_content import content
from faults import FaultServer, Scenario, run_trials, spread_steps

import pipeline
from pipeline.cam.stage import cam
from pipeline.disk.leases import LockedError
from pipeline.extract.stage import extract
from pipeline.forgetting import forget_checkpoints
from pipeline.look.verify import verify
from pipeline.run.directory import MissingProductError
from pipeline.stages import STAGES
from pipeline.stats.staleness import open_stats

NAME = "net_001"


def files_of(directory: Path, name: str) -> list[str]:
    """Files of a run, but for locks, whose path has a name in it."""
    paths = (path.relative_to(directory) for path in directory.rglob("*"))
    return [path.as_posix() for path in paths if name in path.parts and path.parts[0] != "locks"]


def test_everything_of_it_leaves_and_nothing_of_another(lab, finished, finished_copy):
    before = content(finished_copy)
    result = lab.atlas("forget-checkpoint", finished_copy, NAME)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"forget-checkpoint: {NAME} taken out, " in result.stdout
    assert files_of(finished_copy, NAME) == []
    after = content(finished_copy)
    gone = {path for path in before if path not in after}
    assert all(NAME in Path(path).parts or "all_checkpoints" in Path(path).parts for path in gone)
    assert {path for path, found in after.items() if found != before[path]} <= {"mosaics/index.json", "ledger/mosaics.json"}
    assert verify(lab.run(finished_copy)).faults == []


def test_the_stages_bring_the_rest_up_to_date(lab, finished_copy):
    rest = "net_00[02].pth"
    forget_checkpoints(lab.run(finished_copy), [NAME])
    with pytest.raises(MissingProductError, match="no figures; run `atlas stats` first"):
        open_stats(lab.run(finished_copy))
    assert pipeline.open_run(finished_copy).features["checkpoint"].values.tolist() == ["net_000", "net_002"]
    run = lab.run(finished_copy, checkpoints=rest)
    assert [stage.bring_up_to_date(run).computed for stage in STAGES[:4]] == [0, 0, 0, 0]
    for stage in STAGES[4:]:
        stage.bring_up_to_date(run)
    assert open_stats(run)["checkpoint"].values.tolist() == ["net_000", "net_002"]
    assert NAME not in run.report_path.read_text()
    assert verify(run).faults == []


def test_pictures_that_show_it_alone_leave_and_strips_stay(lab, finished_copy):
    run = lab.run(finished_copy)
    listed = json.loads((run.mosaics_path / "index.json").read_text())
    alone = [entry["path"] for entry in listed if entry["checkpoints"] == ["net_002"]]
    stray = run.mosaics_path / "paper" / "stray.png"
    shutil.copy(run.mosaics_path / alone[0], stray)
    found = forget_checkpoints(run, ["net_002"])
    assert found.pictures == len(alone) + 1
    left = json.loads((run.mosaics_path / "index.json").read_text())
    assert [entry["path"] for entry in left] == [entry["path"] for entry in listed if entry["path"] not in alone]
    assert all((run.mosaics_path / entry["path"]).is_file() for entry in left)
    assert not stray.exists()


def test_it_can_be_extracted_again(lab, finished, finished_copy):
    forget_checkpoints(lab.run(finished_copy), [NAME])
    run = lab.run(finished_copy)
    assert extract(run).computed == 4
    cam(run)
    for folder in (f"features.zarr/{NAME}/patch_map", f"cams.zarr/{NAME}/aligned/match"):
        assert content(finished_copy / folder) == content(finished.directory / folder)


def test_an_unknown_name_is_refused_with_the_nearest(lab, finished, tmp_path):
    result = lab.atlas("forget-checkpoint", finished.directory, NAME, "net_02")
    assert result.exit_code == 1
    assert "checkpoint: 'net_02' is unknown. Did you mean 'net_002'? Known: net_000, net_001, net_002" in result.stderr
    assert files_of(finished.directory, NAME) != []
    with pytest.raises(FileNotFoundError, match="holds no checkpoints"):
        forget_checkpoints(lab.run(tmp_path), [NAME])


@pytest.mark.parametrize("product", [f"features/{NAME}", f"cams/{NAME}", "stats", "pixels", "mosaics"])
def test_it_waits_for_nobody_who_writes(lab, finished_copy, product):
    run, before = lab.run(finished_copy), content(finished_copy)
    with run.locked(product, shared=True), pytest.raises(LockedError, match=f"{product}: another process writes it"):
        forget_checkpoints(run, [NAME])
    assert content(finished_copy) == before


def test_another_checkpoint_may_be_written_at_the_same_time(lab, finished_copy):
    run = lab.run(finished_copy)
    with run.locked("features/net_000"), run.locked("cams/net_000"):
        forget_checkpoints(run, [NAME])


def test_an_unfinished_replacement_leaves_too(lab, finished_copy):
    shutil.copytree(finished_copy / "features.zarr" / NAME, finished_copy / "features.zarr" / f".{NAME}.next")
    shutil.copytree(finished_copy / "ledger" / "features" / NAME, finished_copy / "ledger" / "features" / f".{NAME}.next")
    forget_checkpoints(lab.run(finished_copy), [NAME])
    assert not any(finished_copy.rglob(f".{NAME}*"))


def test_a_store_whose_seal_is_damaged_can_be_forgotten(lab, finished_copy):
    (finished_copy / "ledger" / "features" / NAME / "layout.json").write_text("{broken")
    forget_checkpoints(lab.run(finished_copy), [NAME])
    assert files_of(finished_copy, NAME) == []
    assert verify(lab.run(finished_copy)).faults == []


def test_a_kill_at_any_step_is_mended_by_a_second_call(lab, finished, tmp_path):
    """Between mark and data, in the middle of a deletion: what is left counts as unfinished, and its name is known."""
    server = FaultServer(tmp_path)
    try:
        scenario = Scenario.of(server, finished.directory, tmp_path / "whole", lambda directory: ["forget-checkpoint", NAME, "--run", str(directory)])
        steps = [*spread_steps(scenario.steps, 10, seed=1), scenario.steps - 1, scenario.steps]
        faults = [{"fault": kind, "at": at} for at, kind in zip(steps, ["kill", "error", "term"] * 4, strict=True)]
        counts = run_trials(server, scenario, tmp_path, lab, faults)
        assert (counts.survived, counts.bad_pixels) == (len(steps), 0)
    finally:
        server.close()
