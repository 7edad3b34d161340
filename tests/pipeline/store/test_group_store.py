"""Stores: one group a checkpoint, whole blocks, a checksum on every chunk, marks and seals, readable without our code."""

import json
import shutil
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.disk.records import write_atomically, write_record
from pipeline.store import seals, zarr_files
from pipeline.store.group_store import GroupStore
from pipeline.store.groups import DamagedStoreError, bytes_on_disk, group_names
from pipeline.store.layout import array_layout
from pipeline.store.tables import dataset_seal, group_attributes, read_dataset, write_dataset
from stages.schema import LATEST_SCHEMA_VERSION, SCHEMA_VERSION, Variable

SIZES = {"sample": 10, "y": 3, "x": 3, "head": 2}
MAP = Variable("heat", ("sample", "y", "x"), "float32", "heat of a cell", units="K", frame="patch")
NAME = Variable("name", ("sample",), "str", "name of the sample")
WEIGHT = Variable("weight", ("head",), "float32", "weight of the head")
NAMES = np.array([f"sample {n}" for n in range(10)], dtype=object)
HEAT = np.arange(90, dtype=np.float32).reshape(10, 3, 3)


@pytest.fixture
def store(tmp_path):
    made = GroupStore(tmp_path / "a.zarr", "net_000")
    arrays = [
        array_layout(MAP, "float32", SIZES, 4),
        array_layout(NAME, "str", SIZES, 4, values=NAMES),
        array_layout(WEIGHT, "float32", SIZES, 4, values=np.array([1, 2], np.float32)),
    ]
    made.lay_out(10, 4, {"epoch": 3}, arrays, {"made_of": "scenes"})
    return made


@pytest.fixture
def full(store):
    for block in store.blocks:
        store.write_block(block, {"heat": HEAT[block.rows]}, {"heat": "s1"})
    return store


def test_what_is_written_is_read(full):
    found = full.read(["heat", "name", "weight"], slice(3, 9))
    assert dict(found.sizes) == {"sample": 6, "y": 3, "x": 3, "head": 2}
    np.testing.assert_array_equal(found["heat"], HEAT[3:9])
    assert found["name"].values.tolist() == [f"sample {n}" for n in range(3, 9)]
    np.testing.assert_array_equal(found["weight"], [1, 2])
    assert full.own_keys() == ["heat", "name", "weight"]


def test_the_last_block_is_shorter_and_blocks_never_share_a_file(store):
    assert [(block.start, block.stop) for block in store.blocks] == [(0, 4), (4, 8), (8, 10)]
    files = []
    for block in store.blocks:
        store.write_chunk("heat", block, HEAT[block.rows])
        files.append(sorted(path.name for path in (store.root / "heat").glob("c*")))
    assert files == [["c.0.0.0"], ["c.0.0.0", "c.1.0.0"], ["c.0.0.0", "c.1.0.0", "c.2.0.0"]]


@pytest.mark.parametrize("chunk_samples", [0, 1, 2, 3, 4])  # 3 does not divide 4: the file is one chunk
@pytest.mark.parametrize("dtype", ["float16", "float32", "int16", "uint8", "int8", "bool"])
def test_a_file_is_what_zarr_would_write(tmp_path, dtype, chunk_samples):
    """To the bit, sharded or not, and filled up at the end: so that everything that reads Zarr reads it."""
    values = (np.random.default_rng(0).standard_normal((10, 3, 3)) * 9).astype(dtype)
    ours, zarrs = (GroupStore(tmp_path / "a.zarr", name) for name in ("ours", "zarrs"))
    for one in (ours, zarrs):
        one.lay_out(10, 4, {}, [array_layout(MAP, dtype, SIZES, 4, chunk_samples)])
    for block in ours.blocks:
        ours.write_chunk("heat", block, values[block.rows])
    zarr.open_group(zarrs.path, path="zarrs", mode="r+")["heat"][:] = values
    for block in ours.blocks:
        assert ours.chunk_file("heat", block.index).read_bytes() == zarrs.chunk_file("heat", block.index).read_bytes()
    np.testing.assert_array_equal(ours.read(["heat"])["heat"], values)


@settings(max_examples=20, deadline=None)
@given(samples=st.integers(1, 12), block_samples=st.integers(1, 6), chunk_samples=st.integers(0, 6))
def test_any_cut_gives_the_same_values(tmp_path_factory, samples, block_samples, chunk_samples):
    store = GroupStore(tmp_path_factory.mktemp("cut") / "a.zarr", "net")
    store.lay_out(samples, block_samples, {}, [array_layout(MAP, "float32", {**SIZES, "sample": samples}, block_samples, chunk_samples)])
    values = np.random.default_rng(samples).standard_normal((samples, 3, 3)).astype(np.float32)
    for block in store.blocks:
        store.write_block(block, {"heat": values[block.rows]}, {"heat": "s"})
    np.testing.assert_array_equal(store.read(["heat"])["heat"], values)
    np.testing.assert_array_equal(xr.open_zarr(store.root)["heat"], values)


def test_an_array_describes_itself(store):
    array = zarr.open_group(store.path, path="net_000", mode="r")["heat"]
    assert array.metadata.dimension_names == ("sample", "y", "x")
    assert dict(array.attrs) == {"long_name": "heat of a cell", "units": "K", "frame": "patch"}
    assert store.array_attributes("heat")["units"] == "K"
    assert store.array_attributes("cold") == {}
    assert store.has("heat")
    assert not store.has("cold")
    assert store.attributes == {"schema_version": SCHEMA_VERSION, "epoch": 3, "samples": 10, "block_samples": 4}
    assert store.seal.notes == {"made_of": "scenes"}


@pytest.mark.parametrize(("start", "stop"), [(1, 4), (0, 3), (4, 9), (2, 10), (0, 9)])
def test_rows_that_are_not_a_whole_block_are_refused(store, start, stop):
    from pipeline.store.blocks import Block

    said = rf"a\.zarr/net_000/heat: rows {start}:{stop} are not a whole block of 4 samples"
    with pytest.raises(ValueError, match=said):
        store.write_chunk("heat", Block(0, start, stop), HEAT[start:stop])
    with pytest.raises(ValueError, match="or not as many values"):
        store.write_chunk("heat", store.blocks[0], HEAT[:3])


def test_values_of_another_kind_are_refused(store):
    with pytest.raises(ValueError, match="the values are float64; the array holds float32"):
        store.write_chunk("heat", store.blocks[0], HEAT[:4].astype(np.float64))


# ---- damage


@pytest.mark.parametrize("place", [0, 17, 143, 144, 147])  # values and checksum
def test_a_flipped_bit_is_an_error_with_its_place(full, place):
    path = full.root / "heat" / "c.1.0.0"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedStoreError, match=r"a\.zarr/net_000/heat, samples 4 to 7: damaged or missing: .*checksum.* Run `atlas ver"):
        full.read(["heat"], slice(4, 8))
    with pytest.raises(ValueError, match="checksum"):
        xr.open_zarr(full.root)["heat"].isel(sample=slice(4, 8)).load()


@pytest.mark.parametrize("length", [0, 3, 50])
def test_a_chunk_that_is_cut_short_is_an_error(full, length):
    path = full.root / "heat" / "c.0.0.0"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedStoreError, match=r"net_000/heat, samples 0 to 3: damaged"):
        full.read(["heat"], slice(0, 4))


def test_a_missing_chunk_is_an_error_and_never_zeros(full):
    (full.root / "heat" / "c.1.0.0").unlink()
    with pytest.raises(DamagedStoreError, match="the file of samples 4 and following is not there"):
        full.read(["heat"])


def test_the_first_block_is_compared_with_its_mark_too(full):
    (full.root / "heat" / "c.0.0.0").write_bytes((full.root / "heat" / "c.1.0.0").read_bytes())
    for rows in (slice(None), slice(0, 4)):
        with pytest.raises(DamagedStoreError, match="samples 0 to 3 are foreign: not the values that were marked as written"):
            full.read(["heat"], rows)


def test_a_chunk_of_another_block_is_foreign_though_its_checksum_is_good(full):
    (full.root / "heat" / "c.1.0.0").write_bytes((full.root / "heat" / "c.0.0.0").read_bytes())
    with pytest.raises(DamagedStoreError, match="samples 4 to 7 are foreign: not the values that were marked as written"):
        full.read(["heat"])


@pytest.mark.parametrize("name", ["zarr.json", "name/c.0", "weight/c.0"])
def test_a_flipped_bit_in_metadata_texts_or_weights_is_an_error(full, name):
    path = full.root / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedStoreError, match=rf"net_000/{name}|net_000/{name.split('/')[0]}"):
        GroupStore(full.path, "net_000").read(["heat", "name", "weight"])


def test_a_chunk_of_zeros_is_written_all_the_same(store):
    """So that a chunk that is not there was never written."""
    store.write_chunk("heat", store.blocks[0], np.zeros((4, 3, 3), np.float32))
    assert (store.root / "heat" / "c.0.0.0").is_file()


# ---- layout


def test_plain_xarray_and_zarr_read_a_group(full):
    for found in (xr.open_zarr(full.root), xr.open_zarr(full.path, group="net_000", consolidated=False)):
        assert found["heat"].dims == ("sample", "y", "x")
        assert found["heat"].attrs["units"] == "K"
        assert found.attrs["epoch"] == 3
        np.testing.assert_array_equal(found["heat"], HEAT)
        assert found["name"].values.tolist() == NAMES.tolist()
    np.testing.assert_array_equal(zarr.open(full.root, mode="r")["heat"][:], HEAT)


def test_the_metadata_of_a_group_is_one_file(full, monkeypatch):
    """Consolidated: opening a checkpoint reads one file, however many arrays it has."""
    group = zarr.open_group(full.root, mode="r")
    assert sorted(group.metadata.consolidated_metadata.metadata) == ["heat", "name", "weight"]


def test_opening_lazily_reads_nothing_and_has_a_chunk_a_block(store):
    assert store.lazy()["heat"].chunks == ((4, 4, 2), (3,), (3,))


def test_laying_out_again_keeps_the_blocks(full):
    grown = {**SIZES, "sample": 13}
    names = np.array([f"sample {n}" for n in range(13)], dtype=object)
    full.lay_out(13, 4, {"epoch": 4}, [array_layout(MAP, "float32", grown, 4), array_layout(NAME, "str", grown, 4, values=names)])
    np.testing.assert_array_equal(full.read(["heat"], slice(0, 8))["heat"], HEAT[:8])
    assert full.read(["name"])["name"].values.tolist() == names.tolist()
    assert full.attributes["epoch"] == 4
    assert full.ledger.shorter_record(full.blocks[2])["rows"] == [8, 10]


def test_clearing_forgets_what_was_there(full):
    full.clear()
    assert not full.exists
    assert not full.seal.exists
    assert full.ledger.indices() == []
    assert group_names(full.path) == []


def test_groups_do_not_touch_each_other_and_hidden_ones_are_not_listed(full):
    other, hidden = (GroupStore(full.path, name) for name in ("net_001", ".net_000.next"))
    other.lay_out(2, 2, {})
    hidden.lay_out(2, 2, {})
    assert group_names(full.path) == ["net_000", "net_001"]
    other.clear()
    assert group_names(full.path) == ["net_000"]
    assert full.has("heat")


@pytest.fixture
def nested(tmp_path):
    """As cams.zarr is: arrays that are added one by one, in subgroups."""
    made = GroupStore(tmp_path / "cams.zarr", "net_000")
    made.lay_out(10, 4, {})
    made.add_arrays([array_layout(MAP, "float32", SIZES, 4, key="patch/none/max", attributes={"stamp": "s1"})])
    for block in made.blocks:
        made.write_block(block, {"patch/none/max": HEAT[block.rows]}, {"patch/none/max": "s1"})
    return made


def test_arrays_can_be_added_and_each_is_sealed(nested):
    nested.add_arrays([array_layout(MAP, "float32", SIZES, 4, key="patch/none/mean")])
    assert nested.all_keys() == ["patch/none/max", "patch/none/mean"]
    assert nested.seal.faults() == []
    assert "patch/none/mean/zarr.json" in nested.seal.names
    np.testing.assert_array_equal(nested.read(["patch/none/max"])["patch/none/max"], HEAT)


def test_an_array_that_was_never_sealed_is_not_there(nested):
    """Its writer was killed between making it and sealing it."""
    nested.seal.drop(["patch/none/max/zarr.json"])
    assert not GroupStore(nested.path, "net_000").has("patch/none/max")


def consolidated(store):
    """What the group's own file tells of others; None where it tells nothing."""
    return json.loads((store.root / "zarr.json").read_bytes()).get("consolidated_metadata")


def test_a_group_tells_of_all_its_arrays_as_zarr_would_have_it(nested):
    nested.consolidate()
    own = (nested.root / "zarr.json").read_bytes()
    assert nested.seal.faults() == [] and sorted(consolidated(nested)["metadata"]) == ["patch", "patch/none", "patch/none/max"]
    np.testing.assert_array_equal(GroupStore(nested.path, "net_000").read(["patch/none/max"])["patch/none/max"], HEAT)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(nested.root, zarr_format=3)
    assert json.loads((nested.root / "zarr.json").read_bytes()) == json.loads(own)
    (nested.root / "zarr.json").write_bytes(own)
    moment = (nested.root / "zarr.json").stat().st_mtime_ns
    nested.consolidate()
    assert (nested.root / "zarr.json").stat().st_mtime_ns == moment, "nothing to do"


CHANGES = {
    "an array is added": lambda store: store.add_arrays([array_layout(MAP, "float32", SIZES, 4, key="patch/none/mean")]),
    "an array is made anew": lambda store: store.add_arrays([array_layout(MAP, "float32", SIZES, 4, key="patch/none/max")]),
    "the group grows": lambda store: store.extend(12),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_group_never_tells_of_arrays_that_changed(nested, change, monkeypatch):
    """Stopped at any write or deletion, its own file tells either nothing, or what is there."""
    nested.consolidate()
    before = files_of(nested.root.parent.parent)
    for step in range(1, 50):
        restore(nested.root.parent.parent, before)
        store, left = GroupStore(nested.path, "net_000"), [step]

        def stop_at(original, left=left):
            def stopping(*arguments, **options):
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt
                return original(*arguments, **options)

            return stopping

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(zarr_files, "write_atomically", stop_at(write_atomically))
            patch.setattr(seals, "write_atomically", stop_at(write_atomically))
            patch.setattr(seals, "write_record", stop_at(write_record))
            patch.setattr(Path, "unlink", stop_at(Path.unlink))
            CHANGES[change](store)
        told = (consolidated(nested) or {"metadata": {}})["metadata"]
        for name, metadata in told.items():
            if metadata["node_type"] == "array":
                assert metadata == json.loads((nested.root / name / "zarr.json").read_bytes())
        if left[0] > 0:
            break
    assert step > 3 and told == {} and store.seal.faults() == []
    store.consolidate()
    assert consolidated(store)["metadata"]["patch/none/max"] == json.loads((nested.root / "patch/none/max/zarr.json").read_bytes())


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def restore(folder, files):
    shutil.rmtree(folder)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_damaged_metadata_is_neither_copied_nor_sealed_anew(nested):
    path = nested.root / "patch" / "none" / "max" / "zarr.json"
    path.write_bytes(path.read_bytes().replace(b"float32", b"float64"))
    with pytest.raises(DamagedStoreError, match=r"max/zarr\.json: damaged: its bytes do not match"):
        nested.consolidate()
    own = nested.root / "zarr.json"
    own.write_bytes(own.read_bytes().replace(b"samples", b"samplez"))
    with pytest.raises(DamagedStoreError, match=r"net_000/zarr\.json: damaged: its bytes do not match"):
        nested.extend(12)


def test_a_group_makes_room_for_more_samples(nested):
    nested.extend(12)
    assert nested.attributes["samples"] == 12
    assert nested.described("patch/none/max").shape == (12, 3, 3)
    np.testing.assert_array_equal(nested.read(["patch/none/max"], slice(0, 8))["patch/none/max"], HEAT[:8])
    assert nested.seal.faults() == []


def test_attributes_change_under_the_seal(full):
    full.update_attributes({"finished": "now"})
    assert GroupStore(full.path, "net_000").attributes["finished"] == "now"
    assert full.seal.faults() == []
    assert full.read(["heat"]).sizes["sample"] == 10


@pytest.mark.parametrize("what", ["group", "dataset"])
def test_a_store_of_a_newer_version_is_refused(full, what):
    said = rf"schema version {LATEST_SCHEMA_VERSION + 1}; this safenet-atlas reads versions up to {LATEST_SCHEMA_VERSION}\. Update it"
    if what == "group":
        full.update_attributes({"schema_version": LATEST_SCHEMA_VERSION + 1})
        with pytest.raises(ValueError, match=said):
            full.attributes  # noqa: B018  (reading it is the test)
    else:
        write_dataset(full.path.parent / "s.zarr", "a", xr.Dataset({"one": ("group", [1.0])}), {"schema_version": LATEST_SCHEMA_VERSION + 1})
        with pytest.raises(ValueError, match=said):
            group_attributes(full.path.parent / "s.zarr", "a")


# ---- groups of figures


def test_a_small_dataset_replaces_what_was_there(tmp_path):
    path = tmp_path / "s.zarr"
    write_dataset(path, "a", xr.Dataset({"one": ("group", [1.0, 2.0])}, coords={"group": np.array(["x", "y"], dtype=object)}), {"stamp": "s1"})
    write_dataset(path, "a", xr.Dataset({"two": ("group", [3.0])}), {"stamp": "s2"})
    assert group_attributes(path, "a") == {"schema_version": SCHEMA_VERSION, "stamp": "s2"}
    assert group_attributes(path, "b") == {}
    assert group_attributes(tmp_path / "none.zarr", "b") == {}
    assert list(read_dataset(path, "a")) == ["two"]
    assert list(xr.open_zarr(path / "a")) == ["two"]


def test_every_file_of_a_small_dataset_is_sealed(tmp_path):
    path = tmp_path / "s.zarr"
    write_dataset(path, "a", xr.Dataset({"one": ("group", [1.0, 2.0])}), {"stamp": "s1"})
    files = [file for file in (path / "a").rglob("*") if file.is_file()]
    assert len(files) == 3
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        with pytest.raises(DamagedStoreError, match=rf"{file.name}: damaged: its bytes do not match"):
            read_dataset(path, "a")
        file.write_bytes(content)
    assert float(read_dataset(path, "a")["one"].sum()) == 3


def written_again_after(number, path, monkeypatch):
    """Another process writes the figures anew after so many files of them were read."""
    read, left = Path.read_bytes, [number]

    def read_then_written(self):
        content = read(self)
        if path in self.parents:
            left[0] -= 1
            if left[0] == 0:
                monkeypatch.setattr(Path, "read_bytes", read)
                write_dataset(path, "a", TWO, {"stamp": "s2"})
        return content

    monkeypatch.setattr(Path, "read_bytes", read_then_written)


ONE, TWO = xr.Dataset({"one": ("group", [1.0, 2.0])}), xr.Dataset({"one": ("group", [3.0, 4.0, 5.0])})


@pytest.mark.parametrize("number", range(1, 4))
def test_figures_that_are_written_anew_while_they_are_read_are_the_old_ones_or_told(tmp_path, monkeypatch, number):
    """Never half of either, nor fill values."""
    path = tmp_path / "s.zarr"
    write_dataset(path, "a", ONE, {"stamp": "s1"})
    written_again_after(number, path, monkeypatch)
    if number < 3:
        with pytest.raises(
            DamagedStoreError, match=r"s\.zarr/a: it is just being written, .* Wait for the process that writes it, or run `atlas stats`"
        ):
            read_dataset(path, "a")
    else:
        xr.testing.assert_identical(read_dataset(path, "a").drop_attrs(), ONE)
    xr.testing.assert_identical(read_dataset(path, "a").drop_attrs(), TWO)


def test_figures_are_not_read_again_after_they_were_checked(tmp_path, monkeypatch):
    """A `stats` that begins just then deletes the files, and zarr would read fill values."""
    path, contents = tmp_path / "s.zarr", seals.Seal.contents
    write_dataset(path, "a", ONE, {"stamp": "s1"})

    def gone_when_checked(self):
        found = contents(self)
        shutil.rmtree(self.root)
        return found

    monkeypatch.setattr(seals.Seal, "contents", gone_when_checked)
    xr.testing.assert_identical(read_dataset(path, "a").drop_attrs(), ONE)


def test_figures_that_are_just_written_are_told(tmp_path):
    path = tmp_path / "s.zarr"
    write_dataset(path, "a", ONE, {"stamp": "s1"})
    dataset_seal(path, "a").open()
    with pytest.raises(DamagedStoreError, match=r"s\.zarr/a: it is just being written, or was when its writer was killed\. Wait for the process"):
        read_dataset(path, "a")


def test_an_unfinished_dataset_has_no_attributes(tmp_path):
    path = tmp_path / "s.zarr"
    write_dataset(path, "a", xr.Dataset({"one": ("group", [1.0])}), {"stamp": "s1"})
    seal = tmp_path / "ledger" / "s" / "a" / "layout.json"
    seal.write_text(json.dumps({"open": True, "files": {}}))
    assert group_attributes(path, "a") == {}


def test_bytes_on_disk_are_those_of_the_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"123")
    (tmp_path / "y").write_bytes(b"45")
    assert bytes_on_disk(tmp_path) == 5
    assert bytes_on_disk(tmp_path / "nowhere") == 0
