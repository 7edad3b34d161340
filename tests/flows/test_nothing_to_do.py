"""What a finished run costs to look at: no mark, no text and no block is read for the sake of an image, and no folder is listed."""

import os

import pytest

import pipeline
from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.look.plan import plan
from pipeline.look.status import run_status
from pipeline.report.stage import report
from pipeline.stats.stage import stats
from pipeline.store import group_reader
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


LATE = 1_000_000_000


@pytest.fixture
def settled(lab, finished_copy):
    """A run whose notes of the whole are a second younger than all else: blocks and note do not fall into one tick of the clock."""
    for note in finished_copy.glob("ledger/*/*/whole.json"):
        os.utime(note, ns=(note.stat().st_atime_ns, note.stat().st_mtime_ns + LATE))
    return lab.run(finished_copy)


@pytest.mark.parametrize("name", ["plan", "status", "extract", "cam", "stats"])
def test_no_folder_is_listed_that_has_not_changed_since_the_whole_was_noted(settled, monkeypatch, name):
    listed = []
    names_in = group_reader.file_names_in
    monkeypatch.setattr(group_reader, "file_names_in", lambda folder: listed.append(folder.relative_to(settled.directory)) or names_in(folder))
    assert not LOOKS[name](settled)
    assert [str(folder) for folder in listed if folder.name != "retrieval"] == []


@pytest.mark.parametrize(
    ("store", "key", "stage"),
    [("features", "embedding", "extract"), ("cams", "patch/none/l2_norm", "cam"), ("figures", "maps/patch/none/l2_norm", "stats")],
)
@pytest.mark.parametrize("same_tick", [False, True])
def test_a_file_that_goes_after_the_note_is_missed(settled, store, key, stage, same_tick):
    """Also where it went within the tick in which the whole was noted."""
    group = getattr(settled, store)("net_001")
    file, note = group.chunk_file(key, 1), group.ledger.directory / "whole.json"
    file.unlink()
    if same_tick:
        os.utime(file.parent, ns=(0, note.stat().st_mtime_ns))
    else:
        assert file.parent.stat().st_mtime_ns > note.stat().st_mtime_ns - LATE
        os.utime(note, ns=(0, file.parent.stat().st_mtime_ns - 1))
    assert [row.what for row in plan(settled) if row.stage == stage and row.state != "fresh"]
    assert LOOKS[stage](settled)
    assert file.is_file()


def test_a_map_that_lost_a_file_is_not_named_by_the_next_note(lab, settled):
    """A later note speaks for all that it names: a map that is not wanted at the time is looked at all the same."""
    cams = settled.cams("net_000")
    file = cams.chunk_file("patch/none/l2_norm", 1)
    file.unlink()
    os.utime(file.parent, ns=(0, (cams.ledger.directory / "whole.json").stat().st_mtime_ns + 1))
    fewer = lab.run(settled.directory, "cam.methods=['grad_cam', 'max']")
    assert cam(fewer).computed
    named = cams.ledger.whole()["products"]
    assert "patch/none/max" in named and "patch/match/grad_cam" in named and "patch/none/l2_norm" not in named
    assert cam(lab.run(settled.directory)).computed == 1
    assert file.is_file()
