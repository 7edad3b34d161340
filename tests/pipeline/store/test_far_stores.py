"""A bucket that answers late: marks and files are asked for together, so that the time does not grow with the number of blocks."""

import numpy as np
import pytest
from far_store import far_away
from object_server import place_in_memory

from pipeline.cam.stage import cam
from pipeline.cam.staleness import cam_state
from pipeline.cam.wanted import wanted_map_keys
from pipeline.extract.stage import extract
from pipeline.features.bad_images import bad_images_of
from pipeline.features.finished import mark_features_whole, missing_blocks
from pipeline.features.state import feature_state, layout_notes
from pipeline.index.stage import index
from pipeline.look.verify import verify
from pipeline.store.group_store import GroupStore
from pipeline.store.layout import array_layout
from stages.schema import Variable

BLOCKS = 60
FEW = 20  # in a row: what opens a store, and some patience with a busy machine


@pytest.fixture(scope="module")
def filled():
    """A group of sixty blocks of one sample."""
    made = GroupStore(place_in_memory() / "cams.zarr", "net_000")
    keys = ("heat", "cold")
    sizes = {"sample": BLOCKS, "y": 2}
    made.lay_out(BLOCKS, 1, {}, [array_layout(Variable(key, ("sample", "y"), "float32", key), "float32", sizes, 1) for key in keys])
    for block in made.blocks:
        made.write_block(block, {key: np.full((1, 2), block.index, np.float32) for key in keys}, dict.fromkeys(keys, "s"))
    return made


def opened(filled):
    return GroupStore(filled.path, filled.name)


def test_all_blocks_of_an_array_are_read_and_compared_with_their_marks(filled):
    with far_away() as requests:
        values = opened(filled).read(["heat", "cold"])["heat"].values
    np.testing.assert_array_equal(values[:, 0], np.arange(BLOCKS))
    assert requests.in_a_row <= FEW
    marks = BLOCKS + 1  # each once for both arrays, and the fence
    assert requests.counts["get"] <= marks + 2 * BLOCKS + FEW
    assert requests.counts["head"] == 0


def test_marks_are_read_together(filled):
    with far_away() as requests:
        records = opened(filled).ledger.records(filled.blocks)
    assert [record["rows"] for record in records] == [[number, number + 1] for number in range(BLOCKS)]
    assert requests.in_a_row <= FEW
    assert requests.counts == {"get": BLOCKS + 1}


def test_files_are_looked_for_by_one_listing_an_array(filled):
    with far_away() as requests:
        assert opened(filled).held_blocks(["heat", "cold"]) == set(range(BLOCKS))
    assert requests.counts == {"list_with_delimiter": 2}
    with far_away() as requests:
        assert opened(filled).present(["heat", "cold", "warm"]) == {"heat", "cold"}
    assert requests.counts == {"get": 1, "head": 2}


def test_what_is_deleted_is_deleted_together(filled):
    store = GroupStore(place_in_memory() / "cams.zarr", "net_000")
    for path in filled.path.parent.rglob("*"):
        (store.path.parent / path.relative_to(filled.path.parent)).write_bytes(path.read_bytes())
    with far_away() as requests:
        store.sweep_unmarked(store.blocks, ["heat", "cold"])
        store.clear()
    assert not list(store.root.rglob("*")) + list(store.ledger.directory.glob("0*"))
    assert sum(requests.counts.values()) <= FEW


@pytest.fixture(scope="module")
def run(lab):
    """Features and heat maps of fifteen blocks."""
    made = lab.run(place_in_memory(), "extract.block_samples=1", "cam.positions=['aligned']", checkpoints="net_000.pth")
    for stage in (index, extract, cam):
        stage(made)
    return made


def test_a_checkpoints_features_are_compared_within_few_answers(run):
    store = run.features("net_000")
    made_with = layout_notes(store)["made_with"]
    with far_away() as requests:
        assert feature_state(run, run.features("net_000"), made_with).kind == "fresh"
    assert requests.in_a_row <= 30
    store.ledger.forget_whole()
    for look, expected in ((missing_blocks, (0, 15)), (bad_images_of, {}), (mark_features_whole, 0)):
        with far_away() as requests:
            assert look(run.features("net_000")) == expected
        assert requests.in_a_row <= 40


@pytest.mark.parametrize("whole", [True, False])
def test_a_checkpoints_maps_are_compared_within_few_answers(run, whole):
    products, cams = wanted_map_keys(run, "net_000"), run.cams("net_000")
    noted = cams.ledger.whole()
    if not whole:
        cams.ledger.forget_whole()
    with far_away() as requests:
        assert cam_state(run, "net_000", products).pending == []
    cams.ledger.mark_whole(noted)
    assert requests.in_a_row <= 35, "one after the other: 15 and 23 at rest, of 25 and 49 that are asked"


def test_a_checkpoint_that_is_whole_is_known_by_a_few_answers(run):
    with far_away() as requests:
        assert missing_blocks(run.features("net_000")) == (0, 15)
    assert len(requests.sent) <= 10


def test_a_run_is_verified_within_few_answers_but_for_its_bytes(run):
    """What is read of the blocks goes by as many threads as there are cores; all else by few requests, and many at a time."""
    with far_away() as requests:
        found = verify(run)
    assert found.faults == []
    files = sum(
        len(store.blocks) * len(store.attributes.get("block_arrays", store.all_keys())) for store in (run.features("net_000"), run.cams("net_000"))
    )
    assert requests.counts["head"] <= 60
    assert requests.in_a_row <= files + 80
