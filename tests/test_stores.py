"""Stores: one group a checkpoint, whole blocks, a checksum on every chunk, readable without our code."""

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline.stores import DamagedStoreError, GroupStore, bytes_on_disk, group_attributes, group_names, open_lazily, write_dataset
from stages.schema import Variable

SIZES = {"sample": 10, "y": 3, "x": 3, "head": 2}
MAP = Variable("heat", ("sample", "y", "x"), "float32", "heat of a cell", units="K", frame="patch")
NAME = Variable("name", ("sample",), "str", "name of the sample")
WEIGHT = Variable("weight", ("head",), "float32", "weight of the head")


@pytest.fixture
def store(tmp_path):
    made = GroupStore(tmp_path / "a.zarr", "net_000")
    made.create(10, 4, {"epoch": 3})
    for variable in (MAP, NAME, WEIGHT):
        made.add_array(variable.name, variable, variable.dtype, SIZES)
    return made


HEAT = np.arange(90, dtype=np.float32).reshape(10, 3, 3)


def test_what_is_written_is_read(store):
    for block in store.blocks:
        store.write("heat", HEAT[block.rows], block.rows)
    store.write("name", np.array([f"sample {n}" for n in range(10)], dtype=object))
    store.write("weight", np.array([1, 2], np.float32))
    found = store.read(["heat", "name", "weight"], slice(3, 9))
    assert dict(found.sizes) == {"sample": 6, "y": 3, "x": 3, "head": 2}
    np.testing.assert_array_equal(found["heat"], HEAT[3:9])
    assert found["name"].values.tolist() == [f"sample {n}" for n in range(3, 9)]
    np.testing.assert_array_equal(found["weight"], [1, 2])
    assert store.keys() == ["heat", "name", "weight"]


def test_the_last_block_is_shorter_and_blocks_never_share_a_file(store):
    assert [(block.start, block.stop) for block in store.blocks] == [(0, 4), (4, 8), (8, 10)]
    files = []
    for block in store.blocks:
        store.write("heat", HEAT[block.rows], block.rows)
        files.append(sorted(path.name for path in (store.path / "net_000" / "heat").glob("c*")))
    assert files == [["c.0.0.0"], ["c.0.0.0", "c.1.0.0"], ["c.0.0.0", "c.1.0.0", "c.2.0.0"]]


def test_an_array_describes_itself(store):
    array = zarr.open_group(store.path, path="net_000", mode="r")["heat"]
    assert array.metadata.dimension_names == ("sample", "y", "x")
    assert dict(array.attrs) == {"long_name": "heat of a cell", "units": "K", "frame": "patch"}
    assert store.array_attributes("heat")["units"] == "K"
    assert store.array_attributes("cold") == {}
    assert store.has("heat")
    assert not store.has("cold")
    assert store.attributes == {"epoch": 3, "samples": 10, "block_samples": 4}


@pytest.mark.parametrize("rows", [slice(1, 4), slice(0, 3), slice(4, 9), slice(2, 10), slice(0, 9)])
def test_rows_that_are_not_whole_blocks_are_refused(store, rows):
    with pytest.raises(ValueError, match=rf"a\.zarr/net_000/heat: rows {rows.start}:{rows.stop} are not whole blocks of 4 samples"):
        store.write("heat", HEAT[rows], rows)
    assert not list((store.path / "net_000" / "heat").glob("c/**/0"))


@pytest.mark.parametrize("rows", [slice(0, 4), slice(4, 10), slice(8, 10), slice(0, 8)])
def test_several_whole_blocks_may_be_written_at_once(store, rows):
    store.write("heat", HEAT[rows], rows)
    np.testing.assert_array_equal(store.read(["heat"], rows)["heat"], HEAT[rows])


@pytest.mark.parametrize(("chunk_samples", "chunks", "shards"), [(0, 4, None), (2, 2, 4), (1, 1, 4), (4, 4, None), (8, 4, None), (3, 4, None)])
def test_chunks_within_a_block(store, chunk_samples, chunks, shards):
    """A length that does not divide the block is left out of account."""
    store.add_array("heat", MAP, "float32", SIZES, chunk_samples)
    array = zarr.open_group(store.path, path="net_000", mode="r")["heat"]
    assert array.chunks == (chunks, 3, 3)
    assert array.shards == (None if shards is None else (shards, 3, 3))
    for block in store.blocks:
        store.write("heat", HEAT[block.rows], block.rows)
    np.testing.assert_array_equal(store.read(["heat"])["heat"], HEAT)
    files = list((store.path / "net_000" / "heat").glob("c*"))
    assert len(files) == 3


@pytest.mark.parametrize("chunk_samples", [0, 2])
@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_flipped_bit_is_an_error_that_names_the_array(store, chunk_samples, place):
    store.add_array("heat", MAP, "float32", SIZES, chunk_samples)
    for block in store.blocks:
        store.write("heat", HEAT[block.rows], block.rows)
    path = store.path / "net_000" / "heat" / "c.1.0.0"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    np.testing.assert_array_equal(store.read(["heat"], slice(0, 4))["heat"], HEAT[:4])
    with pytest.raises(
        DamagedStoreError,
        match=r"a\.zarr/net_000/heat, samples 4 to 7: damaged or missing: .*Delete the damaged file and run the stage that writes it again",
    ):
        store.read(["heat"], slice(4, 8))
    with pytest.raises(ValueError, match="checksum"):
        open_lazily(store.path, "net_000")["heat"].isel(sample=slice(4, 8)).load()


@pytest.mark.parametrize("length", [0, 3, 50])
def test_a_chunk_that_is_cut_short_is_an_error(store, length):
    store.write("heat", HEAT[:4], slice(0, 4))
    path = store.path / "net_000" / "heat" / "c.0.0.0"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedStoreError, match=r"net_000/heat, samples 0 to 3: damaged"):
        store.read(["heat"], slice(0, 4))


def test_a_chunk_of_zeros_is_written_all_the_same(store):
    """So that a chunk that is not there was never written."""
    store.write("heat", np.zeros((4, 3, 3), np.float32), slice(0, 4))
    assert (store.path / "net_000" / "heat" / "c.0.0.0").is_file()


def test_plain_xarray_reads_a_group(store):
    for block in store.blocks:
        store.write("heat", HEAT[block.rows], block.rows)
    store.write("name", np.array([f"sample {n}" for n in range(10)], dtype=object))
    found = xr.open_zarr(store.path, group="net_000", consolidated=False)
    assert found["heat"].dims == ("sample", "y", "x")
    assert found["heat"].attrs["units"] == "K"
    assert found.attrs["epoch"] == 3
    np.testing.assert_array_equal(found["heat"], HEAT)
    assert found["name"].values.tolist() == [f"sample {n}" for n in range(10)]


def test_opening_lazily_reads_nothing_and_has_a_chunk_a_block(store):
    found = store.lazy()
    assert found["heat"].chunks == ((4, 4, 2), (3,), (3,))


def test_creating_again_forgets_what_was_there(store):
    store.write("heat", HEAT[:4], slice(0, 4))
    store.create(6, 2, {})
    assert store.keys() == []
    assert store.attributes == {"samples": 6, "block_samples": 2}
    store.remove()
    assert not store.exists
    assert group_names(store.path) == []


def test_groups_do_not_touch_each_other(store):
    other = GroupStore(store.path, "net_001")
    other.create(2, 2, {})
    assert group_names(store.path) == ["net_000", "net_001"]
    other.remove()
    assert group_names(store.path) == ["net_000"]
    assert store.has("heat")


def test_a_small_dataset_replaces_what_was_there(tmp_path):
    path = tmp_path / "s.zarr"
    write_dataset(path, "a", xr.Dataset({"one": ("group", [1.0, 2.0])}, coords={"group": np.array(["x", "y"], dtype=object)}), {"stamp": "s1"})
    write_dataset(path, "a", xr.Dataset({"two": ("group", [3.0])}), {"stamp": "s2"})
    assert group_attributes(path, "a") == {"stamp": "s2"}
    assert group_attributes(path, "b") == {}
    assert group_attributes(tmp_path / "none.zarr", "b") == {}
    assert list(open_lazily(path, "a")) == ["two"]


def test_bytes_on_disk_are_those_of_the_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"123")
    (tmp_path / "y").write_bytes(b"45")
    assert bytes_on_disk(tmp_path) == 5
    assert bytes_on_disk(tmp_path / "nowhere") == 0
