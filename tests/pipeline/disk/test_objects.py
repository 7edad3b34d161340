"""Runs in an object store: the same bytes as in a folder, the same promises, and nobody's secrets."""

import json
import os
import re
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from object_server import SECRET, object_server, place_in_memory, refusing_server

import pipeline
from pipeline.cam.stage import cam
from pipeline.disk import leases, places
from pipeline.disk.leases import LockedError, LostLeaseError
from pipeline.disk.locks import locked
from pipeline.disk.objects import ObjectPath, ObjectStoreError, _opened
from pipeline.disk.places import place_of
from pipeline.extract.stage import extract
from pipeline.index.stage import index
from pipeline.look.verify import verify
from pipeline.stages import STAGES
from pipeline.store.group_store import GroupStore
from pipeline.store.replacing import finish_swap, is_swapping

TWO = "net_00[01].pth"
ONE = "net_000.pth"
FEW = ("cam.positions=['aligned']", "cam.targets=['match']", "render.mosaics=['epochs']")  # requests take milliseconds each
OF_ITS_MAKING = ("ledger", "locks", "report")  # who wrote it and when; the page names the run's place


@pytest.fixture(scope="module")
def bucket():
    with object_server() as url:
        yield url


def bring_up_to_date(run):
    return [stage.bring_up_to_date(run) for stage in STAGES]


@pytest.fixture(scope="module")
def local(lab, tmp_path_factory):
    run = lab.run(tmp_path_factory.mktemp("local") / "run", *FEW, checkpoints=TWO)
    bring_up_to_date(run)
    return run


@pytest.fixture(scope="module")
def remote(bucket, lab):
    """Every stage done in the bucket, and nothing but a URL said of it."""
    run = lab.run(f"{bucket}/runs/run", *FEW, checkpoints=TWO)
    bring_up_to_date(run)
    return run


def content(directory):
    """Name of a file -> its bytes, of what is the same whoever makes it; a checkpoint's metadata tells who made it."""
    files = {places.name_below(path, directory): path for path in places.files_below(directory, "*")}
    kept = {name: path for name, path in files.items() if name.split("/")[0] not in OF_ITS_MAKING}
    found = {name: path.read_bytes() for name, path in kept.items()}
    for name in found:
        if name.startswith("features.zarr/") and name.count("/") == 2 and name.endswith("zarr.json"):
            made = json.loads(found[name])
            made["attributes"] = {key: value for key, value in made["attributes"].items() if key not in ("created", "made_by", "finished")}
            found[name] = json.dumps(made).encode()
    return found


# ---- the same products


def test_a_run_in_a_bucket_is_the_local_run_byte_for_byte(local, remote):
    """Features, heat maps, figures, manifest, pictures."""
    mine, theirs = content(local.directory), content(remote.directory)
    assert len(mine) > 150
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == []
    assert remote.report_path.is_file()


def test_a_second_call_computes_nothing(lab, remote):
    for command in ("extract", "run"):
        said = lab.atlas(command, str(remote.directory), more=FEW, checkpoints=TWO).output
        assert "nothing to compute" in said
        assert "computed" not in said


def test_status_plan_and_verify_take_a_url(lab, remote):
    assert "4/4 blocks" in lab.atlas("status", str(remote.directory)).output
    plan = json.loads(lab.atlas("plan", str(remote.directory), "--json", more=FEW, checkpoints=TWO).output)
    assert {row["state"] for row in plan} == {"fresh"}
    said = lab.atlas("verify", str(remote.directory), more=FEW, checkpoints=TWO)
    assert (said.exit_code, said.output.split(", ")[-1]) == (0, "0 faults\n")


def test_open_run_reads_the_same_values(local, remote):
    here, there = pipeline.open_run(local.directory), pipeline.open_run(str(remote.directory))
    for name in ("features", "cams", "facts", "stats"):
        xr.testing.assert_identical(getattr(here, name).load(), getattr(there, name).load())
    assert here.manifest.equals(there.manifest)


def test_plain_xarray_reads_it_as_documented(local, remote):
    import obstore.store

    store = obstore.store.from_url(f"{remote.directory}/features.zarr/net_000")
    found = xr.open_zarr(zarr.storage.ObjectStore(store, read_only=True))
    np.testing.assert_array_equal(found["patch_map"].values, local.features("net_000").lazy()["patch_map"].values)


def test_nothing_of_the_environment_is_stored(remote):
    told = (SECRET.encode(), os.environ["AWS_ENDPOINT_URL"].encode())
    assert not [path for path in remote.directory.rglob("*") if any(word in path.read_bytes() for word in told)]


def test_a_flipped_byte_is_found_repaired_and_made_again(lab, remote):
    damaged = remote.directory / "cams.zarr/net_000/aligned/match/grad_cam/c.2.0.0"
    before = damaged.read_bytes()
    damaged.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    found = verify(remote, repair=True)
    assert [(fault.kind, fault.where.split("cams.zarr/")[1]) for fault in found.faults] == [("damaged", "net_000/aligned/match/grad_cam, block 2")]
    cam(lab.run(remote.directory, *FEW, checkpoints=TWO))
    assert damaged.read_bytes() == before
    assert verify(remote, sample=0.1).faults == []


# ---- interrupted


@pytest.fixture
def extracted(lab):
    """One checkpoint's features, in memory."""
    run = lab.run(place_in_memory(), checkpoints=ONE)
    index(run)
    extract(run)
    return run


def test_a_run_that_was_killed_half_way_goes_on(lab, bucket, local, monkeypatch):
    run, write_block, written = lab.run(f"{bucket}/runs/killed", checkpoints=ONE), GroupStore.write_block, []

    def killed(self, block, *arguments, **notes):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(block)
        write_block(self, block, *arguments, **notes)

    index(run)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(GroupStore, "write_block", killed)
        extract(run)
    outcome = extract(run)
    assert (outcome.computed, outcome.fresh) == (2, 2)
    mine, whole = content(run.directory), content(local.directory)
    assert len(mine) > 100
    assert [name for name in mine if mine[name] != whole[name]] == ["features.zarr/net_000/zarr.json"]  # it tells the settings, which are others


def test_a_changed_checkpoint_is_refused_and_replaced_when_asked(lab, extracted):
    wide = lab.run(extracted.directory, "extract.map_dtype=float32", checkpoints=ONE)
    with pytest.raises(ValueError, match="or pass --replace to compute this store again"):
        extract(wide)
    assert extract(wide, replace=True).computed == 4
    assert extract(wide).computed == 0
    assert wide.features("net_000").read(["patch_map"])["patch_map"].dtype == np.float32
    assert verify(wide).faults == []
    assert not [path for path in wide.directory.rglob("*") if ".next" in str(path) or ".old" in str(path) or ".swap" in str(path)]


@pytest.mark.parametrize("after", range(0, 130, 13))
def test_a_swap_that_was_killed_goes_on(lab, extracted, monkeypatch, after):
    """At any request that changes something, of the copies and deletions of a swap."""
    wide, left = lab.run(extracted.directory, "extract.map_dtype=float32", checkpoints=ONE), [after]

    def mortal(name):
        original = getattr(ObjectPath, name)

        def method(self, *arguments):
            if is_swapping(wide.features("net_000")):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
            return original(self, *arguments)

        return method

    def one_by_one(paths, **options):
        for path in paths:
            remove([path], **options)
            if is_swapping(wide.features("net_000")):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt

    remove = places.remove_objects
    with monkeypatch.context() as patch:
        patch.setattr(places, "each", lambda place, work, items: [work(item) for item in items])
        patch.setattr(ObjectPath, "copy", mortal("copy"))
        patch.setattr(places, "remove_objects", one_by_one)
        with ExitStack() as caught:
            caught.enter_context(pytest.raises(KeyboardInterrupt))
            extract(wide, replace=True)
            raise KeyboardInterrupt  # the swap took fewer requests than that
    finish_swap(wide.features("net_000"))
    assert extract(wide, replace=True).computed == 0
    assert verify(wide).faults == []


# ---- locks


@pytest.fixture(params=["folder", "memory", "s3"])
def lock(request, tmp_path):
    """Where a lock lies, of every kind of place."""
    if request.param == "s3":
        return place_of(f"{request.getfixturevalue('bucket')}/locks/{request.node.name}/x.lock")
    return (tmp_path if request.param == "folder" else place_in_memory()) / "x.lock"


def test_one_holder_excludes_all_and_shared_ones_only_it(lock):
    said = rf"x: another process writes it: host \S+, pid {os.getpid()}, since 20[\d-]+T[\d:]+\+00:00\. Wait for it, or stop it, and call again"
    with locked(lock, "x"):
        for shared in (False, True):
            with pytest.raises(LockedError, match=said), locked(lock, "x", shared=shared):
                pass
    with locked(lock, "x", shared=True), locked(lock, "x", shared=True), pytest.raises(LockedError, match=said), locked(lock, "x"):
        pass
    with locked(lock, "x"):
        pass


def test_of_many_one_gets_it(lock):
    ready, over, won, refused = threading.Barrier(8), threading.Barrier(8), [], []

    def ask(number):
        ready.wait()
        try:
            with locked(lock, "x"):
                won.append(number)
                over.wait()
        except LockedError:
            refused.append(number)
            over.wait()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 7)


def test_who_waits_gets_it_in_the_end(lock):
    taken, order = threading.Event(), []

    def first():
        with locked(lock, "x"):
            taken.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    taken.wait()
    with locked(lock, "x", wait=True):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


@pytest.fixture
def leased_place(monkeypatch):
    """Where leases last for an instant."""
    monkeypatch.setattr(leases, "LEASE_S", 0.5)
    monkeypatch.setattr(leases, "BEAT_S", 0.1)
    return place_in_memory()


@pytest.mark.parametrize("shared", [False, True])
def test_a_dead_holders_lease_runs_out(leased_place, shared):
    lock = leased_place / "x.lock"
    assert isinstance(leases._take(lock, "x", shared), leases.Lease)  # and no heart beats
    with pytest.raises(LockedError), locked(lock, "x"):
        pass
    time.sleep(0.6)
    with locked(lock, "x"):
        assert [path.name for path in lock.iterdir()] == ["exclusive"]
    assert not lock.is_dir()


def test_a_living_holders_lease_does_not_run_out(leased_place):
    with locked(leased_place / "x.lock", "x"):
        time.sleep(0.8)
        with pytest.raises(LockedError), locked(leased_place / "x.lock", "x"):
            pass
        (leased_place / "file").write_bytes(b"allowed")


@pytest.mark.parametrize("how", ["taken over", "deleted", "asleep"])
def test_who_lost_the_lease_writes_no_more(leased_place, monkeypatch, how):
    lock = leased_place / "x.lock"
    monkeypatch.setattr(leases, "BEAT_S", 60 if how == "asleep" else 0.1)
    said = r"x: this process's lease expired \(.* without contact to memory://\w+/run/x\.lock/exclusive\), and another may write it"
    with pytest.raises(LostLeaseError, match=said), locked(lock, "x"):
        if how == "taken over":
            (lock / "exclusive").write_bytes(b"another's")
        elif how == "deleted":
            (lock / "exclusive").unlink()
        time.sleep(0.7 if how == "asleep" else 0.3)
        for write in ((leased_place / "file").write_bytes, (leased_place / "file").copy):
            with pytest.raises(LostLeaseError, match=said):
                write(b"" if write.__name__ == "write_bytes" else leased_place / "other")
    assert not (leased_place / "file").exists()
    (leased_place / "file").write_bytes(b"the process may go on with something else")
    assert (lock / "exclusive").is_file() == (how != "deleted")


def test_a_store_without_conditional_puts_is_refused(lab, monkeypatch):
    def put_anyway(self, content, mode):
        self.write_bytes(content)
        return "tag"

    monkeypatch.setattr(ObjectPath, "_put_if", put_anyway)
    place = place_in_memory()
    with pytest.raises(ObjectStoreError, match=r"no locks are possible in this object store: it overwrites .* \(If-None-Match\)\. Use one that"):
        index(lab.run(place))
    assert "locks are impossible: it overwrites an object" in lab.atlas("doctor", str(place), "--quick").output


# ---- refusals


def test_doctor_tells_of_the_bucket(lab, remote):
    said = lab.atlas("doctor", str(remote.directory), "--quick").output
    for line in (
        rf"ok +run directory +{remote.directory} can be written",
        r"the free space of an object store is not known; extract will write",
        rf"MB/s to {remote.directory}",
        r"ok +file locks +conditional puts work in s3://",
        r"ok +clock .* objects agree",
    ):
        assert re.search(line, said), line
    assert not [path for path in remote.directory.rglob("*") if "doctor" in path.name or "probe" in path.name]


def one_line(result):
    assert result.exit_code in (1, 2)
    return result.output.strip().splitlines()[-1]


def test_a_bucket_that_is_not_there_is_one_line(lab, bucket):
    said = one_line(lab.atlas("index", "s3://never-made/runs/x"))
    assert said == "atlas: s3://never-made/runs/x: no such bucket. Make it, or name another --run"


def test_missing_credentials_are_one_line(lab, bucket, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with refusing_server() as address:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", address)  # what the chain asks last
        _opened.cache_clear()
        said = one_line(lab.atlas("index", f"{bucket}/runs/x"))
    _opened.cache_clear()
    assert said.startswith(f"atlas: {bucket}/runs/x: the object store says: ")
    assert said.endswith("Check the address, the environment's credentials and the network")


def test_a_missing_package_is_one_line(lab, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    _opened.cache_clear()
    said = one_line(lab.atlas("index", "s3://bucket/runs/x"))
    assert said == "atlas: a run in an object store needs the package obstore: pip install 'safenet-atlas[cloud]'"


@pytest.mark.parametrize("url", [f"s3://me:{SECRET}@bucket/x", f"s3://{SECRET}@bucket/x", f"az://bucket/x?sig={SECRET}", f"gs://bucket/x#{SECRET}"])
def test_secrets_in_a_url_are_refused_and_not_repeated(lab, url):
    with pytest.raises(ValueError, match="Leave it out: credentials come from the environment alone") as refused:
        pipeline.open_run(url)
    result = lab.atlas("status", url)
    assert "credentials come from the environment alone" in one_line(result)
    assert SECRET not in f"{refused.value}{result.output}"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://host/x", "a URL of kind 'http'; expected a path, or one of file://, s3://"),
        ("s3://bucket", "expected a bucket and a path in it, such as s3://bucket/runs/x"),
        ("file://host/x", "names the host host; expected file:///path"),
        (Path("s3://bucket/x"), "a URL that went through Path, which removes a slash; pass it as text"),
    ],
)
def test_other_urls_are_refused(url, said):
    with pytest.raises(ValueError, match=said):
        place_of(url)


def test_a_file_url_is_a_path(tmp_path):
    assert place_of(f"file://{tmp_path}/a%20b") == tmp_path / "a b"


@pytest.mark.parametrize("command", ["train", "demo"])
def test_what_makes_files_wants_a_folder(lab, command):
    assert f"`atlas {command}` makes photos or checkpoints, which are files; expected a local directory" in one_line(
        lab.atlas(command, str(place_in_memory()))
    )
