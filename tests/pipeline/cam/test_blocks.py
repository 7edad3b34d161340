"""Heat maps lie in blocks of their own length: the same numbers for any length, and what is known is never computed again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from poison import poison_store

import pipeline
from pipeline.cam import spans
from pipeline.cam.blocks import wanted_block_samples
from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.forgetting import forget_checkpoints
from pipeline.index.stage import index
from pipeline.look.plan import plan
from pipeline.look.verify import verify
from pipeline.run.directory import MissingProductError
from pipeline.stats.stage import stats
from pipeline.store import replacing
from pipeline.store.group_store import GroupStore
from pipeline.store.replacing import is_swapping
from stages.cam.map_keys import FACTS_PREFIX

ONE, NAME = "net_000.pth", "net_000"
LONG = "cam.block_samples=2048"
FREE = ("cam.methods=['l2_norm','max']",)


@pytest.fixture
def made(monkeypatch):
    """Which images were computed, and how many maps of each."""
    found = []
    compute = spans._Checkpoint.compute

    def counted(checkpoint, rows, map_keys):
        found.append((rows.start, rows.stop, len(map_keys)))
        return compute(checkpoint, rows, map_keys)

    monkeypatch.setattr(spans._Checkpoint, "compute", counted)
    return found


@pytest.fixture
def short(lab, extracted_copy):
    """Maps in blocks of four images, as those of the features."""
    run = lab.run(extracted_copy, checkpoints=ONE)
    cam(run)
    return run


def in_long_blocks(lab, run, *more, **options):
    return lab.run(run.directory, LONG, *more, checkpoints=ONE, **options)


def values_of(run):
    """Every map and its facts, as they are stored."""
    cams = run.cams(NAME)
    return {key: cams.values(key) for key in cams.all_keys()}


def files_of(run):
    return sorted(path.name for path in (run.cams_path / NAME).rglob("c.*"))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=key)


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_a_file_holds_many_blocks_of_features_and_the_same_numbers(lab, extracted_copy, short, tmp_path, executor):
    expected = values_of(short)
    shutil.copytree(extracted_copy, tmp_path / "run", ignore=shutil.ignore_patterns("cams*"))
    run = lab.run(tmp_path / "run", LONG, f"compute.executor='{executor}'", checkpoints=ONE)
    assert cam(run).computed == len(expected) / 2
    assert_same(values_of(run), expected)
    assert len(files_of(run)) == len(expected)
    assert max(path.stat().st_size for path in (run.cams_path / NAME).rglob("c.*")) < 20_000, "not as long as 2,048 images"
    assert [len(block) for block in run.cams(NAME).blocks] == [15]
    assert run.cams(NAME).attributes["schema_version"] == 3
    assert verify(run).faults == []
    assert cam(run).computed == 0


def test_blocks_hold_complete_blocks_of_features(lab, extracted_copy):
    run = lab.run(extracted_copy, "cam.block_samples=11", checkpoints=ONE)
    cam(run)
    assert [len(block) for block in run.cams(NAME).blocks] == [8, 7]
    for asked, block in ((3, 4), (1, 4)):
        assert wanted_block_samples(lab.run(extracted_copy, f"cam.block_samples={asked}"), run.features(NAME)) == block


def test_one_image_is_read_without_its_neighbours(lab, short):
    run = in_long_blocks(lab, short)
    cam(run)
    expected = values_of(run)
    for key, values in expected.items():
        np.testing.assert_array_equal(run.cams(NAME).values(key, slice(6, 7)), values[6:7], err_msg=key)


# ---- maps of an earlier layout


def test_maps_of_an_earlier_layout_are_brought_over_and_not_computed(lab, short, made):
    expected = values_of(short)
    made.clear()
    run = in_long_blocks(lab, short)
    stats(run)  # may be made of maps as they lie
    outcome = cam(run)
    assert (outcome.computed, made) == (0, [])
    assert_same(values_of(run), expected)
    assert len(files_of(run)) == len(expected)
    assert verify(run).faults == []
    assert stats(run).computed == 1, "figures of images lie in the blocks of the maps, and are made anew"
    assert stats(run).computed == 0
    assert not list(run.cams_path.glob(".*")) + list((run.directory / "ledger/cams").glob(".*"))
    cam(short)
    assert made == []
    assert_same(values_of(short), expected)


def test_what_was_damaged_before_is_left_out_and_computed(lab, short, made):
    expected = values_of(short)
    made.clear()
    file = short.cams_path / NAME / "aligned/none/l2_norm/c.2.0.0"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    run = in_long_blocks(lab, short)
    assert cam(run).computed == 1
    assert {maps for *_, maps in made} == {1}
    assert_same(values_of(run), expected)
    assert verify(run).faults == []


@pytest.mark.parametrize("cut", ["brought over", "as it was"])
def test_only_images_whose_features_changed_are_computed(lab, short, made, cut):
    """Brought over, a block is left out with all its images; in blocks that stay as they are, its other images are known."""
    run = in_long_blocks(lab, short, *FREE) if cut == "as it was" else lab.run(short.directory, *FREE, checkpoints=ONE)
    cam(run)
    made.clear()
    poison_store(run, NAME, "patch_map", 3.0, sample=5)
    long = in_long_blocks(lab, short, *FREE)
    cam(long)
    assert sorted(made) == ([(4, 8, 6)] if cut == "as it was" else [(0, 4, 6), (4, 8, 6), (8, 12, 6), (12, 15, 6)])
    found = values_of(long)
    long.cams(NAME).clear()
    cam(long)
    expected = values_of(long)
    assert_same({key: found[key] for key in expected}, expected)


@pytest.mark.parametrize("step", [1, 10, *range(18, 26)])
def test_a_kill_while_maps_are_brought_over_loses_none(lab, short, made, monkeypatch, step):
    expected = values_of(short)
    made.clear()
    run = in_long_blocks(lab, short)
    with monkeypatch.context() as patch:
        taken = killed_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            cam(run)
    assert taken[-1] == "killed"
    again = in_long_blocks(lab, short)
    assert verify(again).faults == []
    states = {row.state for row in plan(again) if row.stage == "cam" and row.what == NAME}
    assert states <= {"fresh", "partial"}
    assert (cam(again).computed, made) == (0, [])
    assert_same(values_of(again), expected)
    assert verify(again).faults == []


def killed_at(patch, step):
    """Kill at the n-th write, rename or deletion of the bringing over."""
    taken, original = [], {}

    def mortal(module, name):
        original[name] = getattr(module, name)

        def may_die(*arguments, **options):
            taken.append(name)
            if len([one for one in taken if one != "killed"]) >= step:
                taken.append("killed")
                raise KeyboardInterrupt
            return original[name](*arguments, **options)

        patch.setattr(module, name, may_die)

    for module, name in ((replacing, "put_in_place"), (replacing, "write_record"), (replacing, "remove_tree"), (GroupStore, "write_chunk")):
        mortal(module, name)
    return taken


def test_until_a_swap_is_finished_readers_refuse_and_cam_goes_on(lab, short, made, monkeypatch):
    expected = values_of(short)
    made.clear()
    run, put_in_place = in_long_blocks(lab, short), replacing.put_in_place
    calls = []

    def killed(*folders):
        calls.append(folders)
        if len(calls) == 2:
            raise KeyboardInterrupt
        put_in_place(*folders)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(replacing, "put_in_place", killed)
        cam(run)
    assert is_swapping(run.cams(NAME))
    said = "heat maps are being put into blocks of another length"
    with pytest.raises(MissingProductError, match=said):
        stats(run)
    with pytest.raises(MissingProductError, match=said):
        pipeline.open_run(run.directory)
    assert len(pipeline.open_run(run.directory, partial=True).cams) == 0
    assert [row.state for row in plan(run) if row.stage == "cam"] == ["partial"]
    assert any("`atlas cam` finishes that" in note for note in verify(run).notes)
    assert (cam(run).computed, made) == (0, [])
    assert_same(values_of(run), expected)


def test_a_checkpoint_is_forgotten_with_what_was_being_brought_over(lab, short, monkeypatch):
    run = in_long_blocks(lab, short)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at(patch, 3)
        cam(run)
    assert (run.cams_path / f".{NAME}.next").is_dir()
    forget_checkpoints(run, [NAME])
    assert not [path for path in run.directory.rglob("*") if NAME in path.name and "locks" not in path.parts]


# ---- what is known of a block that has to be made again


def add_place(photos, name="0000a"):
    for view, file in (("drone", "image-01.jpeg"), ("satellite", f"{name}.jpg")):
        (photos / "train" / view / name).mkdir()
        pixels = np.random.default_rng(len(file)).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / "train" / view / name / file, format="JPEG")


@pytest.fixture
def grown(lab, extracted_copy, tmp_path):
    """A run in long blocks whose dataset then grew by two images: the last block of features, of three, has four now, and one more has one."""
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))

    def run(*more):
        return lab.run(extracted_copy, LONG, *more, photos=photos, checkpoints=ONE)

    def grow(*more):
        cam(run(*more))
        add_place(photos)
        index(run(*more))
        extract(run(*more))
        return run(*more)

    return grow


def test_new_images_compute_theirs_alone(grown, made):
    run = grown(*FREE)
    before = values_of(run)
    made.clear()
    assert cam(run).computed == 6
    assert sorted(made) == [(12, 16, 6), (16, 17, 6)]
    after = values_of(run)
    assert_same({key: values[:15] for key, values in after.items()}, before)
    assert verify(run).faults == []
    run.cams(NAME).clear()
    cam(run)
    assert_same(values_of(run), after)


def test_maps_that_depend_on_other_images_are_made_again_and_the_others_are_not(grown, made):
    run = grown()  # of `match`, whose reference is every image of the other view
    made.clear()
    cam(run)
    by_slice = {start: maps for start, _, maps in made}
    assert by_slice == {0: 3, 4: 3, 8: 3, 12: 9, 16: 9}, "grad_cam of match at three positions; l2_norm and grad_cam of label are known"


@pytest.mark.parametrize("where", ["maps", "facts"])
def test_what_is_known_and_damaged_is_computed(grown, made, where):
    run = grown(*FREE)
    before = values_of(run)
    folder = "aligned/none/max" if where == "maps" else f"{FACTS_PREFIX}aligned/none/max"
    (file,) = (run.cams_path / NAME / folder).glob("c.*")
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    made.clear()
    cam(run)
    assert {start: maps for start, _, maps in made} == {0: 1, 4: 1, 8: 1, 12: 6, 16: 6}
    assert_same({key: values[:15] for key, values in values_of(run).items()}, before)


def test_one_method_more_computes_itself_alone(lab, short, made):
    run = in_long_blocks(lab, short, *FREE)
    cam(run)
    made.clear()
    assert cam(in_long_blocks(lab, short, "cam.methods=['l2_norm','max','mean']")).computed == 3
    assert {maps for *_, maps in made} == {3}


# ---- who computes what


def test_threads_share_a_block_and_other_processes_get_it_whole(lab, extracted_copy, monkeypatch):
    from pipeline.cam.stage import CamStage

    given = {}
    lay_out = CamStage.lay_out

    def seen(stage, subject, *, alone):
        given[stage.run.settings.compute.executor] = lay_out(stage, subject, alone=alone)
        raise KeyboardInterrupt

    monkeypatch.setattr(CamStage, "lay_out", seen)
    for executor in ("threads", "local"):
        with pytest.raises(KeyboardInterrupt):
            cam(lab.run(extracted_copy, LONG, f"compute.executor='{executor}'", checkpoints=ONE))
    assert [len(span) for span in given["threads"]] == [4, 4, 4, 3]
    assert [len(span) for span in given["local"]] == [15]
    assert len(given["local"][0].slices) == 4


def test_a_stop_drops_the_open_block_and_keeps_the_others(lab, extracted_copy, made, monkeypatch):
    run = lab.run(extracted_copy, "cam.block_samples=8", "compute.executor='serial'", checkpoints=ONE)
    done, compute = [], spans._Checkpoint.compute

    def stopped(checkpoint, rows, map_keys):
        done.append(rows)
        if len(done) == 4:
            raise KeyboardInterrupt
        return compute(checkpoint, rows, map_keys)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(spans._Checkpoint, "compute", stopped)
        cam(run)
    made.clear()
    cam(run)
    assert [(start, stop) for start, stop, _ in made] == [(8, 12), (12, 15)]
    assert verify(run).faults == []
