"""A checkpoint is known by its digest: renamed, moved or joined by namesakes it keeps its name, and nothing is computed again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import pipeline
from pipeline.cam.stage import cam
from pipeline.checkpoints.files import CheckpointFile, find_checkpoint_files
from pipeline.checkpoints.names import StoredCheckpoint, name_files
from pipeline.extract.stage import extract
from pipeline.look.plan import plan
from pipeline.run.directory import Run, StaleStoreError
from pipeline.stats import reduce
from pipeline.stats.stage import stats
from pipeline.stats.staleness import open_stats
from pipeline.store.groups import read_attributes
from pipeline.work.share import Share
from safenet.checkpoint import save_checkpoint

ONE, TWO = "net_000", "net_001"


def files(root, **contents):
    """Files by their path below a folder, without suffix and with __ for /; in the order of their paths."""
    for name, content in contents.items():
        path = root / f"{name.replace('__', '/')}.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return find_checkpoint_files([f"{root}/**/*.pth"])


def called(named, root):
    return {name: str(file.path.relative_to(root).with_suffix("")) for name, file in named.files.items()}


def stored(**made_of):
    """Stored checkpoints by name, each made of a file: (file, whether its folder was noted)."""
    return {name: StoredCheckpoint(file.digest, file.path.name, file.folder if noted else "") for name, (file, noted) in made_of.items()}


# ---- names, from files and what is stored


def test_a_new_file_is_called_by_its_stem(tmp_path):
    assert called(name_files(files(tmp_path, a__net_1="1", a__net_0="0"), {}), tmp_path) == {"net_0": "a/net_0", "net_1": "a/net_1"}


def test_folders_tell_new_files_of_one_stem_apart_and_more_folders_where_one_does_not(tmp_path):
    found = name_files(files(tmp_path, near__net="1", bil__net="2", bil__other="3", x__run__last="4", y__run__last="5"), {})
    assert list(found.files) == ["bil-net", "near-net", "other", "x-run-last", "y-run-last"]
    assert found.notes == ()


def test_where_no_folder_tells_the_digest_does(tmp_path):
    long = "f" * 100
    found = files(tmp_path, **{f"x__{long}__{long}__net": "1", f"y__{long}__{long}__net": "2"})
    assert list(name_files(found, {}).files) == sorted(f"net-{file.digest[:8]}" for file in found)


def test_names_that_differ_in_case_alone_are_the_same(tmp_path):
    found = files(tmp_path, a__Net="1", b__net="2")
    assert list(name_files(found, {}).files) == ["a-Net", "b-net"]
    gone = stored(NET=(CheckpointFile(tmp_path / "a" / "Net.pth"), True))
    (tmp_path / "a" / "Net.pth").write_text("3")
    assert list(name_files(files(tmp_path / "b"), gone).files) == ["b-net"]


def test_a_namesake_does_not_rename_what_is_stored(tmp_path):
    (first,) = files(tmp_path, a__net_119="1")
    for noted in (True, False):
        found = name_files(files(tmp_path, a__net_119="1", b__net_119="2"), stored(net_119=(first, noted)))
        assert called(found, tmp_path) == {"b-net_119": "b/net_119", "net_119": "a/net_119"}
        assert (found.left, found.notes) == ((), ())


def test_a_renamed_and_moved_file_keeps_its_name_and_that_is_told(tmp_path):
    (first,) = files(tmp_path, a__net_0="1")
    known = stored(net_0=(first, True))
    (tmp_path / "b").mkdir()
    first.path.rename(tmp_path / "b" / "final.pth")
    found = name_files(files(tmp_path), known)
    assert called(found, tmp_path) == {"net_0": "b/final"}
    assert len(found.notes) == 1 and found.notes[0].endswith("final.pth is known as net_0")


@pytest.mark.parametrize("noted", [True, False])
def test_a_file_that_was_trained_again_in_place_keeps_its_name(tmp_path, noted):
    (first,) = files(tmp_path, a__net_0="1")
    known = stored(net_0=(first, noted))
    found = name_files(files(tmp_path, a__net_0="2"), known)
    assert called(found, tmp_path) == {"net_0": "a/net_0"}


def test_of_several_files_at_the_place_of_one_none_is_taken_for_it(tmp_path):
    """Where the folder was not noted."""
    (first,) = files(tmp_path, a__net_0="1")
    known = stored(net_0=(first, False))
    found = name_files(files(tmp_path, a__net_0="2", b__net_0="3"), known)
    assert called(found, tmp_path) == {"a-net_0": "a/net_0", "b-net_0": "b/net_0"}
    assert found.left == ("net_0",)


def test_a_file_of_that_stem_in_another_folder_is_another_checkpoint(tmp_path):
    (first,) = files(tmp_path, a__net_0="1")
    known = stored(net_0=(first, True))
    found = name_files(files(tmp_path / "b", net_0="2"), known)
    assert called(found, tmp_path) == {"b-net_0": "b/net_0"}
    assert found.left == ("net_0",)


def test_files_of_the_same_bytes_are_one_checkpoint(tmp_path):
    found = name_files(files(tmp_path, a__best="1", b__net_3="1"), {})
    assert called(found, tmp_path) == {"best": "a/best"}
    assert found.notes == (f"{tmp_path}/a/best.pth, {tmp_path}/b/net_3.pth hold the same bytes: extracted once, as best",)


def test_files_of_the_same_bytes_that_were_stored_under_own_names_keep_them(tmp_path):
    first, second = both = files(tmp_path, a__best="1", b__net_3="1")
    found = name_files(both, stored(best=(first, False), net_3=(second, False)))
    assert called(found, tmp_path) == {"best": "a/best", "net_3": "b/net_3"}
    assert found.notes == ("best and net_3 are stored of the same bytes; each keeps its name. `atlas forget-checkpoint net_3` takes one out",)


def test_names_do_not_depend_on_which_of_them_are_stored_already(tmp_path):
    """Parts begin one after the other, and each sees what the others have laid out by then."""
    every = files(tmp_path, a__net="1", b__net="2", q__b_net="3", x__run__last="4", y__run__last="5", B__run__last="6", c__b="7")
    expected = called(name_files(every, {}), tmp_path)
    by_name = {name: (next(file for file in every if str(file.path) == f"{tmp_path}/{path}.pth"), True) for name, path in expected.items()}
    rng = np.random.default_rng(0)
    for _ in range(50):
        some = {name: made for name, made in by_name.items() if rng.random() < 0.5}
        assert called(name_files(every, stored(**some)), tmp_path) == expected


def test_a_link_is_called_where_it_lies(tmp_path):
    (target,) = files(tmp_path / "blobs", abc="1")
    for folder in ("a", "b"):
        (tmp_path / "links" / folder).mkdir(parents=True)
    (tmp_path / "links" / "a" / "net.pth").symlink_to(target.path)
    assert called(name_files(files(tmp_path / "links", b__net="2"), {}), tmp_path / "links") == {"a-net": "a/net", "b-net": "b/net"}


def test_a_file_named_twice_is_one_file(tmp_path, monkeypatch):
    files(tmp_path, net="1")
    monkeypatch.chdir(tmp_path)
    assert len(find_checkpoint_files([f"{tmp_path}/*.pth", "net.pth"])) == 1


def test_no_pattern_and_no_match_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"extract\.checkpoints names no checkpoint; give files or globs, for instance"):
        find_checkpoint_files([])
    files(tmp_path, net="1")
    (tmp_path / "folder.pth").mkdir()
    for pattern in ("typo_*.pth", "folder.pth"):
        with pytest.raises(FileNotFoundError, match=rf"no file matches '.*{pattern[:4]}.*\.pth' \(working directory "):
            find_checkpoint_files([f"{tmp_path}/net.pth", f"{tmp_path}/{pattern}"])


# ---- a run


@pytest.fixture
def folder(lab, tmp_path):
    """A folder `a` with two of the lab's checkpoints, to move about."""
    (tmp_path / "a").mkdir()
    for name in (ONE, TWO):
        shutil.copy(lab.checkpoints / f"{name}.pth", tmp_path / "a")
    return tmp_path / "a"


def run_of(lab, directory, folder, *more) -> Run:
    return lab.run(directory, f"extract.checkpoints=['{folder.parent}/**/*.pth']", *more)


def test_renamed_moved_and_joined_by_namesakes_nothing_is_computed_again(lab, fresh, folder, computed):
    extract(run_of(lab, fresh, folder))
    computed.clear()
    other = folder.parent / "b"
    other.mkdir()
    (folder / f"{ONE}.pth").rename(other / "final.pth")
    (folder / f"{TWO}.pth").rename(other / f"{TWO}.pth")
    shutil.copy(lab.checkpoints / "net_002.pth", folder / f"{TWO}.pth")
    outcome = extract(run_of(lab, fresh, folder))
    assert (outcome.computed, outcome.fresh, sum(computed)) == (4, 8, 15)
    assert any(note.endswith(f"final.pth is known as {ONE}") for note in outcome.notes)
    assert f"checkpoint_file brought up to date: {ONE} (was '{ONE}.pth', is 'final.pth')" in outcome.notes
    assert f"series brought up to date: {ONE} (was 'a', is 'b'), {TWO} (was 'a', is 'b')" in outcome.notes
    assert sorted(entry.name for entry in (fresh / "features.zarr").iterdir() if entry.is_dir()) == [f"a-{TWO}", ONE, TWO]
    assert extract(run_of(lab, fresh, folder)).computed == 0


def test_a_file_that_was_trained_again_is_refused_until_it_may_replace(lab, fresh, folder, make_network):
    (folder / f"{TWO}.pth").unlink()
    extract(run_of(lab, fresh, folder))
    save_checkpoint(folder / f"{ONE}.pth", make_network(7), epoch=0)
    with pytest.raises(StaleStoreError, match=rf"{ONE}: made of a checkpoint file of this name with other content"):
        extract(run_of(lab, fresh, folder))
    assert extract(run_of(lab, fresh, folder), replace=True).computed == 4


def test_parts_come_to_the_same_names(lab, fresh, folder):
    for path in list(folder.iterdir()):  # two files of one stem in two folders
        shutil.copy(lab.checkpoints / "net_002.pth" if path.stem == TWO else path, folder.parent / f"{path.stem}.pth")
    for number in (2, 1):
        run = run_of(lab, fresh, folder)
        extract(Run(run.directory, run.settings, progress=False, share=Share(number, 2)))
    found = sorted(entry.name for entry in (fresh / "features.zarr").iterdir() if entry.is_dir())
    assert found == sorted([ONE, f"a-{TWO}", f"{folder.parent.name}-{TWO}"])
    assert extract(run_of(lab, fresh, folder)).computed == 0


# ---- epochs and series


def retold(run, name, **attributes):
    """As an earlier version left it: a guessed epoch, no series."""
    store = run.features(name)
    store.update_attributes({"series": None, **attributes})


def test_a_guessed_epoch_is_brought_up_to_date_and_figures_follow(lab, finished_copy, computed):
    run = lab.run(finished_copy)
    retold(run, ONE, epoch=20240115)
    cam(run)
    stats(run)
    assert open_stats(run)["checkpoint"].values.tolist() == [TWO, "net_002", ONE]
    outcome = extract(lab.run(finished_copy))
    assert "epoch brought up to date: net_000 (was 20240115, is 0)" in outcome.notes
    assert (outcome.computed, computed) == (0, [])
    run = lab.run(finished_copy)
    assert "net_000" not in {row.what for row in plan(run) if row.state != "fresh"}
    cam(run)
    assert run.cams(ONE).attributes["epoch"] == 0
    stats(run)
    assert open_stats(run)["checkpoint"].values.tolist() == [ONE, TWO, "net_002"]
    assert open_stats(run)["epoch"].values.tolist() == [0, 1, 2]


def test_the_series_is_the_folder_and_stands_beside_the_epoch(lab, finished):
    for found in (pipeline.open_run(finished.directory).features, pipeline.open_run(finished.directory).stats):
        assert found["series"].dims == ("checkpoint",)
        assert found["series"].values.tolist() == [lab.checkpoints.name] * 3


def test_a_series_by_a_regular_expression_makes_nothing_stale(lab, finished_copy, monkeypatch):
    more = ("extract.series='net_00([01])'",)
    outcome = extract(lab.run(finished_copy, *more))
    assert outcome.computed == 0
    assert {name: read_attributes(finished_copy / "features.zarr" / name)["series"] for name in (ONE, TWO, "net_002")} == {
        ONE: "0",
        TWO: "1",
        "net_002": lab.checkpoints.name,
    }
    run, written = lab.run(finished_copy, *more), []
    monkeypatch.setattr(reduce, "write_dataset", lambda path, group, *rest: written.append(group))
    stats(run)
    assert written == [], "figures of one checkpoint do not know its series"
    assert open_stats(run)["series"].values.tolist() == ["0", "1", lab.checkpoints.name]


@pytest.mark.parametrize(
    ("pattern", "path", "series"),
    [(None, "a/b/net.pth", "b"), ("/(seed[0-9]+)/", "seed7/x/net.pth", "seed7"), ("net-(.*)[.]pth", "a/net-q.pth", "q"), ("(z)?a", "x/a.pth", "x")],
)
def test_the_series_of_a_path(tmp_path, pattern, path, series):
    assert CheckpointFile(Path("/data") / path).series(pattern) == series


@pytest.mark.parametrize(("pattern", "said"), [("seed(", "not a regular expression: "), ("seed[0-9]+", "has no group to take the series from")])
def test_a_series_without_a_group_is_refused_when_it_is_read(lab, tmp_path, pattern, said):
    with pytest.raises(ValueError, match=said):
        lab.run(tmp_path, f"extract.series='{pattern}'")


# ---- what was taken of a file


def test_which_network_of_a_file_was_taken_is_told_and_stored(lab, fresh, folder):
    state = torch.load(folder / f"{ONE}.pth", weights_only=True)["state_dict"]
    torch.save({"model": state, "model_ema": dict(state)}, folder / f"{ONE}.pth")
    more = ("extract.heads=2",)
    outcome = extract(run_of(lab, fresh, folder, *more))
    assert f"{ONE}: {ONE}.pth: its network 'model' is taken; left out: model_ema" in outcome.notes
    assert not any(note.startswith(f"{TWO}: ") for note in outcome.notes)
    assert run_of(lab, fresh, folder).features(ONE).attributes["taken"] == {"network": "model", "left_out": ["model_ema"]}


def test_another_network_of_the_file_is_another_store(lab, fresh, folder):
    state = torch.load(folder / f"{ONE}.pth", weights_only=True)["state_dict"]
    torch.save({"model": state, "model_ema": dict(state)}, folder / f"{ONE}.pth")
    (folder / f"{TWO}.pth").unlink()
    extract(run_of(lab, fresh, folder, "extract.heads=2"))
    with pytest.raises(StaleStoreError, match="made with state_key = None, but 'model_ema' is asked for"):
        extract(run_of(lab, fresh, folder, "extract.heads=2", "extract.state_key='model_ema'"))


# ---- sizes, and what left


def test_networks_of_different_sizes_are_refused_before_anything_is_laid_out(lab, fresh, folder, make_network):
    save_checkpoint(folder / f"{TWO}.pth", make_network(1, parts=4), epoch=1)
    said = (
        rf"{ONE} \(grid 8 x 8, 2 parts, width 16\) and {TWO} \(grid 8 x 8, 4 parts, width 16\) differ in size, so their figures "
        r"cannot be compared\. Use a run for each \(--run\)$"
    )
    with pytest.raises(ValueError, match=said):
        extract(run_of(lab, fresh, folder))
    assert not (fresh / "features.zarr").exists()
    assert next(row.reason for row in plan(run_of(lab, fresh, folder)) if row.stage == "extract" and not row.what).endswith("(--run)")


def test_a_network_of_another_size_than_those_stored_is_refused(lab, extracted_copy, tmp_path, make_network):
    save_checkpoint(tmp_path / "wide.pth", make_network(1, width=32), epoch=1)
    run = lab.run(extracted_copy, f"extract.checkpoints=['{tmp_path}/wide.pth']")
    with pytest.raises(ValueError, match=rf"wide \(.* width 32\) and {ONE} \(.* width 16\) differ in size.*`atlas forget-checkpoint {ONE}`$"):
        extract(run)
    assert not (extracted_copy / "features.zarr" / "wide").exists()


def test_what_left_the_configuration_is_told_by_extract_plan_and_status(lab, finished):
    stays = "is stored, but extract.checkpoints names no file of it; it stays in figures and pictures"
    said = f"{ONE} {stays}. `atlas forget-checkpoint {ONE}` takes it out"
    rest = "net_00[12].pth"
    rows = {row.what: row for row in plan(lab.run(finished.directory, checkpoints=rest)) if row.stage == "extract"}
    assert (rows[ONE].state, rows[ONE].reason) == ("fresh", said)
    assert said in lab.atlas("status", finished.directory, checkpoints=rest).stdout
    assert "names no file of" not in lab.atlas("status", finished.directory).stdout
    assert "names no file of" not in lab.atlas("status", finished.directory, checkpoints="gone_*.pth").stdout
    assert said in extract(lab.run(finished.directory, checkpoints=rest)).notes
