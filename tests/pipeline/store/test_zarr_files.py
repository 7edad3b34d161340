"""Metadata that zarr did not write itself are those that it would have written."""

from dataclasses import replace

import numpy as np
import zarr

from pipeline.store.layout import array_layout
from pipeline.store.zarr_files import FilesInMemory
from stages.schema import Variable

SIZES = {"sample": 100, "y": 12, "x": 12, "fact": 7}
HEAT = Variable("heat", ("sample", "y", "x"), "float32", "a map", "score", "patch")
FACTS = Variable("facts", ("sample", "fact"), "float32", "its facts")


def layouts():
    """Arrays of three kinds, several of each, at several depths, with values and without."""
    for number, key in enumerate(("patch/none/max", "patch/none/mean", "patch/match/mean", "aligned/none/max", "mean")):
        yield array_layout(HEAT, "float32", SIZES, 64, 32, key=key, attributes={"stamp": f"{number:x}", "drawn": "ü" * number})
        yield array_layout(FACTS, "float32", SIZES, 64, key=f"facts/{key}", attributes={"names": ["low", "high"]})
    yield array_layout(HEAT, "float16", SIZES, 64, 32, key="patch/half")
    yield array_layout(replace(HEAT, dims=("sample", "x", "y")), "float32", SIZES, 64, 32, key="patch/turned")
    yield array_layout(FACTS, "float32", SIZES, 64, key="known", values=np.ones((100, 7), np.float32))


def test_every_file_is_the_one_that_zarr_writes():
    together, alone = FilesInMemory(), {}
    together.create_group(layouts(), {"epoch": 3})
    for layout in layouts():
        one = FilesInMemory()
        one.create_group([layout], {"epoch": 3})
        alone |= one.files
    assert together.files.keys() == alone.keys()
    for name, content in alone.items():
        assert together.files[name] == content, name


def test_zarr_finds_all_of_them():
    made = FilesInMemory()
    made.create_group(layouts())
    made.consolidate()
    found = {key for key, node in zarr.open_consolidated(made.store, zarr_format=3).members(max_depth=None) if isinstance(node, zarr.Array)}
    assert found == {layout.key for layout in layouts()}
