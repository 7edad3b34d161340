"""The small files of a group against those that zarr and xarray write."""

import json
import math

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from pipeline.store.layout import array_layout
from pipeline.store.tables import read_dataset, write_dataset
from pipeline.store.zarr_files import consolidated, group_files
from stages.schema import Variable

SIZES = {"sample": 10, "y": 3, "nothing": 0}


def layout(name, dims, dtype, chunk_samples=0, frame="", **more):
    variable = Variable(name, dims, dtype, f"what {name} is", "cells", frame)
    return array_layout(variable, dtype, SIZES, 4, chunk_samples, **more)


LAYOUTS = [
    layout("sharded", ("sample", "y"), "float32", 2, frame="patch"),
    layout("maps/none/max", ("sample", "y"), "float16", attributes={"figures": ["a", "ö"], "not finite": math.nan}),
    layout("maps/valid", ("sample",), "bool"),
    layout("small", ("y",), "int8", values=np.arange(3, dtype=np.int8)),
    layout("count", ("sample", "y"), "int64"),
    layout("wide", ("y", "sample"), "float64", values=np.linspace(-1, 1, 30).reshape(3, 10)),
    layout("turned", ("y", "sample"), "float32", values=np.arange(30, dtype=np.float32).reshape(10, 3).T),
    layout("place", ("sample",), "str", values=np.array(["", "ö", "線路", *"abcdefg"], dtype=object)),
    layout("none", ("nothing", "y"), "float32", values=np.zeros((0, 3), np.float32)),
]
ATTRIBUTES = {"samples": 10, "epoch": None, "loss": math.inf, "name": "ü"}


def by_zarr(layouts, attributes):
    store = MemoryStore()
    group = zarr.create_group(store, zarr_format=3, attributes=attributes)
    with zarr.config.set({"array.write_empty_chunks": True}):
        for one in layouts:
            array = group.create_array(
                one.key, shape=one.shape, chunks=one.chunk, shards=one.shard, dtype=one.dtype, compressors=(Crc32cCodec(),),
                fill_value="" if one.dtype == "str" else np.zeros((), one.dtype).item(), attributes=one.described,
                chunk_key_encoding={"name": "default", "separator": "."}, dimension_names=one.variable.dims,
            )  # fmt: skip
            if one.values is not None:
                array[...] = one.values
    return store


def contents(store):
    return {name: content.to_bytes() for name, content in store._store_dict.items()}


def compared(files):
    """Metadata as texts that tell their order, and NaN from NaN; the others byte for byte."""
    return {name: json.dumps(json.loads(content)) if name.endswith("zarr.json") else content for name, content in files.items()}


@pytest.mark.parametrize("layouts", [[one] for one in LAYOUTS] + [LAYOUTS, []], ids=[one.key for one in LAYOUTS] + ["all", "no array"])
def test_files_are_those_that_zarr_writes(layouts):
    store = by_zarr(layouts, ATTRIBUTES)
    assert compared(group_files(layouts, ATTRIBUTES)) == compared(contents(store))


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_consolidated_metadata_are_those_that_zarr_writes():
    store = by_zarr(LAYOUTS, ATTRIBUTES)
    ours = json.loads(consolidated(contents(store)))
    zarr.consolidate_metadata(store, zarr_format=3)
    assert ours["consolidated_metadata"]["metadata"].keys() >= {"maps", "maps/none", "maps/none/max", "place"}
    assert json.dumps(ours) == compared(contents(store))["zarr.json"]


TABLE = xr.Dataset(
    {
        "recall": (("checkpoint", "direction"), np.array([[0.1, np.nan], [1, 2], [3, -np.inf]])),
        "count": (("checkpoint",), np.array([1, 2, 2**40])),
        "known": (("direction",), np.array([True, False])),
        "map": (("checkpoint", "direction", "y"), np.arange(24, dtype=np.float32).reshape(3, 2, 4)),
        "nothing": (("checkpoint", "none"), np.zeros((3, 0))),
    },
    {
        "checkpoint": np.array(["a", "ö/1", ""], dtype=object),
        "direction": np.array(["drone to satellite", "back"]),
        "series": ("checkpoint", np.array(["", "", "x"], dtype=object)),
        "epoch": ("checkpoint", np.array([1.0, np.nan, 3])),
    },
)


def test_a_table_is_read_as_it_was_written_by_us_and_by_xarray(tmp_path):
    write_dataset(tmp_path / "stats.zarr", "net_000", TABLE, {"stamp": "x", "epoch": None})
    ours = read_dataset(tmp_path / "stats.zarr", "net_000")
    theirs = xr.open_zarr(tmp_path / "stats.zarr" / "net_000", consolidated=True).load()
    for found in (ours, theirs):
        xr.testing.assert_equal(found, TABLE)
        assert set(found.coords) == set(TABLE.coords)
        assert (found.attrs["stamp"], found.attrs["epoch"]) == ("x", None)
    assert {name: variable.dtype for name, variable in ours.data_vars.items()} == {name: one.dtype for name, one in TABLE.data_vars.items()}
    assert all("coordinates" not in one.attrs for one in theirs.variables.values())
    ours["recall"][:] = 0  # what was read can be written to


def test_a_table_of_an_earlier_version_is_read(tmp_path):
    """xarray wrote them until figures had a writer of their own: with `/` in the names of chunks, and without a copy of the metadata."""
    texts = TABLE.assign_coords(direction=TABLE["direction"].astype(object))
    texts.to_zarr(tmp_path / "stats.zarr", group="net_000", consolidated=False, zarr_format=3)
    xr.testing.assert_equal(read_dataset(tmp_path / "stats.zarr", "net_000"), TABLE)
