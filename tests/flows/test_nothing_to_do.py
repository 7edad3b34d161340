"""What a finished run costs to look at: no mark, no text and no block is read for the sake of an image."""

import pytest

import pipeline
from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.look.plan import plan
from pipeline.look.status import run_status
from pipeline.report.stage import report
from pipeline.stats.stage import stats
from pipeline.store.blocks import Ledger
from pipeline.store.group_reader import GroupReader
from stages.schema import FEATURES

LOOKS = {
    "plan": lambda run: [row for row in plan(run) if row.state != "fresh"],
    "status": lambda run: [row for row in run_status(run) if row["figures"] != "yes"],
    "open_run": lambda run: [] if pipeline.open_run(run.directory).cams else ["no maps"],
    **{stage.__name__: lambda run, stage=stage: stage(run).computed for stage in (extract, cam, stats, report)},
}
AT_PICTURES = {"plan", "report"}  # of the images that they show


@pytest.fixture
def looked_up(monkeypatch):
    """Blocks whose marks are read, and arrays whose values are, while a run is looked at."""
    marks, values = [], []
    read_marks, read_values = Ledger.records_or_errors, GroupReader._read_all
    monkeypatch.setattr(Ledger, "records_or_errors", lambda self, indices: marks.extend(indices) or read_marks(self, indices))
    monkeypatch.setattr(GroupReader, "_read_all", lambda self, keys, rows: values.extend(keys) or read_values(self, keys, rows))
    return marks, values


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_at_a_finished_run_reads_no_mark_and_no_image(lab, finished, looked_up, name):
    run = lab.run(finished.directory)
    assert not LOOKS[name](run)
    marks, values = looked_up
    if name not in AT_PICTURES:
        assert marks == []
    texts = [] if name == "open_run" else values  # which labels its arrays with the texts of one checkpoint
    assert [key for key in texts if key in FEATURES and FEATURES[key].per_sample] == []


def test_a_mark_that_is_gone_is_missed(lab, finished_copy):
    run = lab.run(finished_copy)
    (run.features("net_001").ledger.directory / "000001.json").unlink()
    assert [(row.what, row.state) for row in plan(run) if row.stage == "extract" and row.state != "fresh"] == [("net_001", "partial")]


def test_a_file_of_a_block_that_is_gone_is_missed(lab, finished_copy):
    run = lab.run(finished_copy)
    run.features("net_001").chunk_file("embedding", 1).unlink()
    assert [(row.what, row.state) for row in plan(run) if row.stage == "extract" and row.state != "fresh"] == [("net_001", "partial")]
