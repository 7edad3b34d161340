"""Stores behind a plain web server, which serves files and lists nothing: plain xarray and zarr open them, heat maps by name."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import obstore.store
import pytest
import xarray as xr
import zarr
from zarr.storage import ObjectStore

from pipeline.cam.stage import cam
from pipeline.look.open_run import open_run

KEY = "aligned/match/grad_cam"


class FilesAlone(SimpleHTTPRequestHandler):
    """No listing of folders, as most servers of files are set up."""

    def list_directory(self, path):
        self.send_error(404)

    def log_message(self, *words):
        """Say nothing."""


@pytest.fixture
def address(finished):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(FilesAlone, directory=str(finished.directory))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def store_at(address):
    return ObjectStore(obstore.store.HTTPStore.from_url(address, client_options={"allow_http": True}), read_only=True)


def test_heat_maps_and_their_facts_are_read_by_name(finished, address):
    run = open_run(finished.directory)
    with xr.open_datatree(store_at(f"{address}/cams.zarr/net_001"), engine="zarr", chunks={}) as tree:
        for key in run.cams:
            np.testing.assert_array_equal(tree[key].values, run.cams[key].sel(checkpoint="net_001").values)
            np.testing.assert_array_equal(tree[f"facts/{key}"].values, run.facts[key].sel(checkpoint="net_001").values)
        assert tree[KEY].dims == ("sample", "y", "x") and tree[KEY].attrs["long_name"] == "grad_cam at aligned, target match"


def test_zarr_lists_what_there_is(finished, address):
    group = zarr.open_group(store_at(f"{address}/cams.zarr/net_001"), mode="r")
    found = {name for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
    keys = set(finished.cams("net_001").all_keys())
    assert found == keys and len(keys) == 18
    assert group[KEY].shape == (15, 8, 8)


def test_features_are_read_too(finished, address):
    with xr.open_zarr(store_at(f"{address}/features.zarr/net_001"), chunks={}) as features:
        np.testing.assert_array_equal(features["theta"].values, finished.features("net_001").read(["theta"])["theta"].values)


def told(run, name):
    """The arrays that a checkpoint's group tells of."""
    metadata = json.loads((run.cams(name).root / "zarr.json").read_bytes()).get("consolidated_metadata", {"metadata": {}})["metadata"]
    return sorted(key for key, found in metadata.items() if found["node_type"] == "array")


def test_the_next_call_mends_what_a_kill_or_an_earlier_version_left_out(lab, finished_copy):
    run = lab.run(finished_copy)
    run.cams("net_000").unconsolidate()
    assert told(run, "net_000") == [] and cam(run).computed == 0
    assert told(run, "net_000") == run.cams("net_000").all_keys() and run.cams("net_000").seal.faults() == []
    more = lab.run(finished_copy, "cam.methods=['l2_norm','grad_cam','max']")
    assert cam(more).computed == 9
    assert told(more, "net_000") == more.cams("net_000").all_keys() and "patch/none/max" in told(more, "net_000")
