"""`atlas verify`: a flipped bit anywhere in a run is found, named and undone; and no stage reads it as data."""

import random
import shutil
from collections import Counter, defaultdict
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
from disk_content import content

import pipeline
from pipeline.disk.leases import LockedError
from pipeline.features.finished import finished_checkpoints
from pipeline.look import verify as verify_module
from pipeline.look.verify import verify
from pipeline.stages import STAGES
from pipeline.store import seals

KINDS = {  # kind of file -> where one lies; every file of a run is of one of these kinds
    "block of features": "features.zarr/net_000/patch_map/c.1.0.0.0",
    "last block": "features.zarr/net_000/boundary/c.3.0",
    "validity": "features.zarr/net_000/valid/c.0",
    "heads": "features.zarr/net_000/head_w1/c.0.0.0",
    "texts": "features.zarr/net_000/place/c.0",
    "metadata of an array": "features.zarr/net_000/patch_map/zarr.json",
    "metadata of a checkpoint": "features.zarr/net_000/zarr.json",
    "metadata of the store": "features.zarr/zarr.json",
    "block of heat maps": "cams.zarr/net_000/aligned/match/grad_cam/c.2.0.0",
    "facts of heat maps": "cams.zarr/net_000/facts/aligned/match/grad_cam/c.2.0",
    "metadata of a target's facts": "cams.zarr/net_000/facts/aligned/match/zarr.json",
    "metadata of facts": "cams.zarr/net_000/facts/aligned/match/grad_cam/zarr.json",
    "metadata of heat maps": "cams.zarr/net_000/aligned/match/grad_cam/zarr.json",
    "metadata of a position": "cams.zarr/net_000/aligned/zarr.json",
    "metadata of the store of maps": "cams.zarr/zarr.json",
    "metadata of the store of figures": "stats.zarr/zarr.json",
    "metadata of a target": "cams.zarr/net_000/aligned/match/zarr.json",
    "metadata of a group of figures": "stats.zarr/net_000/zarr.json",
    "metadata of a checkpoint's maps": "cams.zarr/net_000/zarr.json",
    "block of figures of images": "figures.zarr/net_000/maps/aligned/match/grad_cam/c.2.0",
    "metadata of an array of figures": "figures.zarr/net_000/images/zarr.json",
    "metadata of agreement": "figures.zarr/net_000/agreement/aligned/zarr.json",
    "metadata of figures of a map": "figures.zarr/net_000/maps/aligned/match/grad_cam/zarr.json",
    "metadata of figures of a target": "figures.zarr/net_000/maps/aligned/match/zarr.json",
    "metadata of figures of a checkpoint": "figures.zarr/net_000/zarr.json",
    "metadata of the store of figures of images": "figures.zarr/zarr.json",
    "mark of figures of images": "ledger/figures/net_000/000002.json",
    "seal of figures of images": "ledger/figures/net_000/layout.json",
    "figures": "stats.zarr/net_000/map_mean/c.0.0.0.0",
    "metadata of figures": "stats.zarr/net_000/map_mean/zarr.json",
    "joined figures": "stats.zarr/all_checkpoints/recall_1/c.0.0",
    "metadata of joined figures": "stats.zarr/all_checkpoints/zarr.json",
    "mark": "ledger/features/net_000/000002.json",
    "mark of maps": "ledger/cams/net_000/000002.json",
    "note of the whole": "ledger/features/net_000/whole.json",
    "seal": "ledger/features/net_000/layout.json",
    "seal of maps": "ledger/cams/net_000/layout.json",
    "seal of figures": "ledger/stats/net_000/layout.json",
    "seal of the manifest": "ledger/manifest.json",
    "seal of the mosaics": "ledger/mosaics.json",
    "seal of the page": "ledger/report.json",
    "fence": "ledger/features/net_000/fence.json",
    "fence of maps": "ledger/cams/net_000/fence.json",
    "fence of figures": "ledger/stats/fence.json",
    "fence of the mosaics": "ledger/mosaics/fence.json",
    "rates": "ledger/rates.json",
    "manifest": "manifest.parquet",
    "picture": "mosaics/epochs/0003-l2_norm.png",
    "list of pictures": "mosaics/index.json",
    "page": "report/index.html",
}


def flip(path: Path, place: int, bit: int) -> None:
    found = bytearray(path.read_bytes())
    found[place] ^= 1 << bit
    path.write_bytes(bytes(found))


def places(path: Path, count: int, seed: str) -> list[tuple[int, int]]:
    """First and last byte, and some between."""
    draw, size = random.Random(seed), path.stat().st_size
    chosen = [size - 1, 0, *(draw.randrange(size) for _ in range(count - 2))][:count]
    return [(place, draw.randrange(8)) for place in chosen]


def read_everything(run) -> dict[str, np.ndarray]:
    """All values that a reader gets, by stage and key; what cannot be read raises."""
    opened = pipeline.open_run(run.directory)
    found = {f"features/{key}": opened.features[key].values for key in opened.features}
    found |= {f"cams/{key}": opened.cams[key].values for key in opened.cams}
    return found | {f"stats/{key}": opened.stats[key].values for key in opened.stats}


@pytest.fixture(scope="module")
def small(lab, indexed, tmp_path_factory):
    """Every stage done, for one checkpoint. Look, do not touch."""
    run = run_of(lab, Path(shutil.copytree(indexed, tmp_path_factory.mktemp("small") / "run")))
    for stage in STAGES:
        stage.bring_up_to_date(run)
    return run


def run_of(lab, directory):
    return lab.run(directory, "cam.positions=['aligned']", "cam.targets=['match']", "render.mosaics=['epochs']", checkpoints="net_000.pth")


@pytest.fixture(scope="module")
def undamaged(small):
    return read_everything(small)


@pytest.fixture(scope="module")
def copy(lab, small, tmp_path_factory):
    """For bits that are flipped and flipped back."""
    directory = Path(shutil.copytree(small.directory, tmp_path_factory.mktemp("flipped") / "run"))
    yield directory
    assert verify(run_of(lab, directory)).faults == []


@pytest.fixture
def small_copy(small, tmp_path):
    return Path(shutil.copytree(small.directory, tmp_path / "run"))


def test_a_sound_run_has_no_faults(finished):
    found = verify(finished)
    assert found.faults == []
    assert found.notes == []
    assert found.checked_blocks == 3 * 3 * 4  # checkpoints x (features, maps, figures) x blocks
    assert found.checked_bytes > 100_000


def test_every_file_of_a_run_is_of_a_kind_that_is_tested(finished):
    """So that a new kind of file cannot stay out of the tests below."""
    kinds = {_kind(Path(path)) for path in KINDS.values()}
    files = [path.relative_to(finished.directory) for path in finished.directory.rglob("*") if path.is_file()]
    assert {_kind(path) for path in files if path.parts[0] != "locks"} <= kinds


def _kind(path: Path) -> tuple[str, str, int]:
    """Store, suffix, and how deep: good enough to tell kinds apart."""
    is_chunk = path.name.startswith("c.") or "/c/" in path.as_posix()
    return path.parts[0], "chunk" if is_chunk else path.suffix, 0 if is_chunk or path.parts[0] == "mosaics" else len(path.parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found_and_never_read_as_data(lab, copy, undamaged, kind):
    """The last byte; `make test-faults` flips hundreds."""
    assert flip_bits(lab, copy, undamaged, kind, 1)["wrong"] == 0


@pytest.mark.faults
def test_hundreds_of_flipped_bits(lab, copy, undamaged, capsys):
    counts = sum((flip_bits(lab, copy, undamaged, kind, 20) for kind in KINDS), Counter())
    with capsys.disabled():
        print(f"\n{counts['flipped']} bits flipped in {len(KINDS)} kinds of files: {dict(counts)}")  # noqa: T201  (what this is run for)
    assert counts["wrong"] == 0


def flip_bits(lab, copy, undamaged, kind, count) -> Counter:
    """Flip bits one after the other: `verify` must find each, and a reader must refuse, or get what was there before."""
    path, run, counts = copy / KINDS[kind], run_of(lab, copy), Counter()
    good = path.read_bytes()
    for place, bit in places(path, count, kind):
        flip(path, place, bit)
        faults = verify(run_of(lab, copy)).faults
        assert faults, f"{kind}: bit {bit} of byte {place} was not found"
        assert all(fault.kind in ("damaged", "foreign", "missing") for fault in faults)
        counts["flipped"] += 1
        if path.suffix not in (".png", ".html") and kind not in ("rates", "list of pictures"):
            counts[_read(run, undamaged)] += 1
        path.write_bytes(good)
    return counts


def _read(run, undamaged) -> str:
    try:
        values = read_everything(run)
    except (ValueError, OSError):
        return "refused"
    return "right" if all(np.array_equal(values[key], undamaged[key], equal_nan=values[key].dtype.kind == "f") for key in values) else "wrong"


def damaged_together() -> list[list[str]]:
    """Kinds in as few trials as there are kinds of one product: of each product one, so that no repair hides another's."""
    map_keys = defaultdict(list)
    for kind, path in KINDS.items():
        map_keys[path.removeprefix("ledger/").replace(".", "/").split("/")[0]].append(kind)
    return [[kind for kind in kinds if kind] for kinds in zip_longest(*map_keys.values())]


@pytest.mark.parametrize("kinds", damaged_together(), ids=lambda kinds: kinds[0])
def test_repair_undoes_just_what_is_wrong_and_the_stages_make_it_again(lab, small, small_copy, kinds):
    repair(lab, small, small_copy, kinds)


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_repair_of_each_kind_alone(lab, small, small_copy, kind):
    repair(lab, small, small_copy, [kind])


def repair(lab, small, small_copy, kinds):
    for path in (small_copy / KINDS[kind] for kind in kinds):
        flip(path, path.stat().st_size // 2, 3)
    assert len(verify(run_of(lab, small_copy), repair=True).faults) >= len(kinds)
    marks = {path: path.stat().st_mtime_ns for path in (small_copy / "ledger" / "features").rglob("[0-9]*.json")}
    for stage in STAGES:
        stage.bring_up_to_date(run_of(lab, small_copy))
    assert verify(run_of(lab, small_copy)).faults == []
    redone = [path.name for path, moment in marks.items() if path.stat().st_mtime_ns != moment]
    assert redone == [], "a block that was not damaged was computed again"
    found, expected = content(small_copy), content(small.directory)
    found.pop("manifest.damaged", None)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


def test_a_missing_block_is_named(lab, finished_copy):
    (finished_copy / "features.zarr" / "net_000" / "theta" / "c.1.0.0").unlink()
    (fault,) = verify(lab.run(finished_copy)).faults
    assert (fault.kind, fault.text) == ("missing", "c.1.0.0 is not there")
    assert fault.where.endswith("features.zarr/net_000/theta, block 1")


@pytest.mark.parametrize("variable", ["patch_map/c.{}.0.0.0", "valid/c.{}"])
def test_a_block_of_another_checkpoint_is_foreign(lab, finished_copy, variable):
    """Its own checksum is good."""
    path = finished_copy / "features.zarr" / "net_000" / variable.format(1)
    path.write_bytes((finished_copy / "features.zarr" / "net_001" / variable.format(3)).read_bytes())
    (fault,) = verify(lab.run(finished_copy)).faults
    assert fault.kind == "foreign"
    assert "are foreign: not the values that were marked as written" in fault.text


@pytest.mark.parametrize("name", ["features.zarr/net_000/patch_map/c.9.0.0.0", "features.zarr/net_000/notes.txt", "features.zarr/net_000/heat/c.0"])
def test_a_file_that_no_stage_wrote_is_foreign(lab, finished_copy, name):
    (finished_copy / name).parent.mkdir(exist_ok=True)
    (finished_copy / name).write_bytes(b"stray")
    (fault,) = verify(lab.run(finished_copy)).faults
    assert fault.kind == "foreign"
    assert "no stage wrote this file" in fault.text or "no mark knows it" in fault.text


def test_unfinished_work_is_no_fault(lab, finished_copy):
    (finished_copy / "ledger" / "features" / "net_000" / "000001.json").unlink()
    (finished_copy / "features.zarr" / "net_000" / "theta" / "c.1.0.0.77.partial").write_bytes(b"half")
    found = verify(lab.run(finished_copy))
    assert found.faults == []
    assert any("1 of 4 blocks are not done" in note for note in found.notes)
    assert any("1 half-written files" in note for note in found.notes)


def test_repair_of_one_block_computes_one_block(lab, finished, finished_copy):
    flip(finished_copy / "features.zarr" / "net_000" / "saliency" / "c.2.0", 3, 1)
    verify(lab.run(finished_copy), repair=True)
    assert finished_checkpoints(lab.run(finished_copy), partial=True) == ["net_001", "net_002"]
    assert STAGES[1].bring_up_to_date(lab.run(finished_copy)).computed == 1
    assert STAGES[2].bring_up_to_date(lab.run(finished_copy)).computed == 0  # the features came out the same
    assert content(finished_copy / "features.zarr") == content(finished.features_path)


def test_a_replacement_that_is_being_swapped_in_is_no_fault(lab, finished_copy):
    """Group and marks may be of different makings for an instant: to repair that would undo good work."""
    (finished_copy / "ledger" / "features" / ".net_000.swap.json").write_text('{"swapping": "net_000"}')
    (finished_copy / "ledger" / "features" / "net_000" / "layout.json").unlink()
    found = verify(lab.run(finished_copy), repair=True)
    assert found.faults == []
    assert any("it is being replaced; `atlas extract` finishes that" in note for note in found.notes)


def test_nothing_is_repaired_under_a_writers_hands(lab, finished_copy):
    flip(finished_copy / KINDS["block of features"], 30, 2)
    run = lab.run(finished_copy)
    with run.locked("features/net_000"):
        assert len(verify(lab.run(finished_copy)).faults) == 1
        with pytest.raises(LockedError, match="features/net_000: another process writes it"):
            verify(lab.run(finished_copy), repair=True)


def test_a_sample_reads_less(lab, finished):
    counts = [verify(lab.run(finished.directory), sample=0.1).checked_bytes for _ in range(5)]
    assert 0 < max(counts) < verify(finished).checked_bytes / 2
    assert len(set(counts)) > 1  # drawn anew at every call


def test_the_command_names_faults_and_exits_with_1(lab, finished_copy):
    flip(finished_copy / KINDS["block of features"], 30, 2)
    result = lab.atlas("verify", finished_copy)
    assert result.exit_code == 1
    assert "damaged: " in result.stdout
    assert "features.zarr/net_000/patch_map, block 1: " in result.stdout
    assert "1 faults\n" in result.stdout
    assert "`atlas verify --repair` removes the marks of exactly these" in result.stdout
    repaired = lab.atlas("verify", finished_copy, "--repair", "--sample", "100%")
    assert repaired.exit_code == 0
    assert "the marks of these are removed: run their stages again" in repaired.stdout
    assert lab.atlas("verify", finished_copy).exit_code == 0
    assert lab.atlas("verify", finished_copy, "--sample", "often").exit_code == 2


# ---- while other processes write


def test_a_group_that_is_laid_out_anew_meanwhile_is_left_for_another_time(lab, finished_copy, monkeypatch):
    run, original = lab.run(finished_copy), verify_module._records

    def records(store, *more):
        if store.name == "net_001" and store.path == run.cams_path:
            store.clear()
        yield from original(store, *more)

    monkeypatch.setattr(verify_module, "_records", records)
    found = verify(run)
    assert found.faults == []
    assert found.notes == [f"{run.cams('net_001')}: its layout has just been changed by another process; verify it again"]


def test_an_error_that_nobody_else_made_is_raised(lab, finished_copy, monkeypatch):
    def records(store, *more):
        raise OSError("the disk is gone")

    monkeypatch.setattr(verify_module, "_records", records)
    with pytest.raises(OSError, match="the disk is gone"):
        verify(lab.run(finished_copy))


def test_a_block_that_is_made_again_meanwhile_is_no_fault(lab, finished_copy, monkeypatch):
    run, original = lab.run(finished_copy), verify_module.is_intact
    store, key = run.features("net_001"), "patch_map"
    block = store.blocks[1]
    store.chunk_file(key, 1).write_bytes(b"other values")

    def is_intact(content, proof):
        if content == b"other values":
            store.ledger.forget(block)
        return original(content, proof)

    monkeypatch.setattr(verify_module, "is_intact", is_intact)
    assert verify(run).faults == []


def test_a_file_that_is_begun_meanwhile_is_no_stray(lab, finished_copy, monkeypatch):
    """What lies in a store is listed once: two listings would tell of each other's files."""
    run, original = lab.run(finished_copy), verify_module.files_below
    begun = iter(range(10**6))

    def files_below(folder, pattern):
        if folder.is_dir():
            (folder / f"zarr.json.host-{next(begun)}.partial").touch()
        return original(folder, pattern)

    monkeypatch.setattr(verify_module, "files_below", files_below)
    assert verify(run).faults == []


def test_seals_are_read_no_more_often_for_more_blocks(lab, indexed, tmp_path, monkeypatch):
    """At full size a checkpoint has 1,563 blocks of hundreds of arrays."""
    counted = {}
    for size in (8, 1):
        run = lab.run(Path(shutil.copytree(indexed, tmp_path / f"{size}")), f"extract.block_samples={size}", checkpoints="net_000.pth")
        for stage in STAGES[1:3]:
            stage.bring_up_to_date(run)
        read, original = Counter(), seals.read_record
        with monkeypatch.context() as patched:
            patched.setattr(seals, "read_record", lambda path, read=read, original=original: read.update([path.parent.name]) or original(path))
            assert verify(run).faults == []
        counted[size] = read["net_000"]
    assert counted[1] == counted[8]
