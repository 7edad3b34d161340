"""The stub run of the benchmarks: what the stages find is finished, and one more of each is all that they compute."""

import sys
from pathlib import Path

from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.index.stage import index
from pipeline.look.plan import plan
from pipeline.look.verify import verify
from pipeline.run.directory import Run
from pipeline.settings.all import load_settings
from pipeline.stats.stage import stats

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from stub_run import Size, add_checkpoints, assignments, stub_run, write_checkpoint, write_photo


def test_a_stub_run_is_finished_and_grows(tmp_path):
    size = Size(checkpoints=2, images=60, methods=2)
    run = stub_run(tmp_path, size)
    assert [row for row in plan(run) if row.state != "fresh"] == []
    assert verify(run).faults == []

    write_checkpoint(tmp_path, 2)
    run = Run(tmp_path / "run", load_settings(None, assignments(tmp_path, size)), progress=False)
    add_checkpoints(run, ("extract",))
    assert (cam(run).computed, stats(run).computed) == (6, 1), "maps of the new checkpoint, and its figures"

    write_photo(tmp_path, 60)
    index(run)
    run = Run(tmp_path / "run", run.settings, progress=False)
    assert extract(run).computed == 3, "a block of each checkpoint"
    assert [stage(run).fresh for stage in (cam, stats)] == [0, 0]
    assert verify(run).faults == []
