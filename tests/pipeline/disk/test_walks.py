"""Folders that other processes write in: what vanishes between a listing and a look at it was never there."""

import shutil
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest

from pipeline.disk.places import files_below, files_in, folders_in, place_of, status_of
from pipeline.store.blocks import Ledger
from pipeline.store.groups import bytes_on_disk, group_names, known_groups


@pytest.fixture
def tree(tmp_path):
    """Files at three depths, a hidden one, links, and a name that is a folder's."""
    for name in ("a.json", ".hidden.json", "b.txt", "one/c.json", "one/two/d.json", "e.json/f.txt"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "tree" / "link.json").symlink_to(tmp_path / "tree" / "a.json")
    (tmp_path / "tree" / "nowhere.json").symlink_to(tmp_path / "none")
    (tmp_path / "tree" / "three").symlink_to(tmp_path / "tree" / "one")
    return tmp_path / "tree"


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_files_are_found_at_any_depth_and_links_to_folders_are_not_followed(tree):
    assert names(files_below(tree, "*.json"), tree) == [".hidden.json", "a.json", "link.json", "one/c.json", "one/two/d.json"]
    assert names(files_in(tree, "*.json"), tree) == [".hidden.json", "a.json", "link.json"]
    assert names(folders_in(tree), tree) == ["e.json", "one", "three"]
    assert bytes_on_disk(tree) == sum(path.stat().st_size for path in files_below(tree, "*")) > 0


def test_what_is_not_there_is_empty(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "none", tmp_path / "file"):
        assert files_below(folder, "*") == files_in(folder, "*") == folders_in(folder) == []
        assert bytes_on_disk(folder) == 0
    assert status_of(tmp_path / "none") is None


def test_objects_are_found_in_the_same_way():
    bucket = place_of(f"memory://walks/{uuid4().hex}")
    for name in ("a.json", "b.txt", "one/c.json", "one/two/d.json"):
        (bucket / name).write_bytes(name.encode())
    assert names(files_below(bucket, "*.json"), bucket) == ["a.json", "one/c.json", "one/two/d.json"]
    assert names(files_in(bucket, "*.json"), bucket) == ["a.json"]
    assert names(folders_in(bucket), bucket) == ["one"]
    assert bytes_on_disk(bucket) == sum(len(name) for name in ("a.json", "b.txt", "one/c.json", "one/two/d.json"))


def write_without_end(run: Path, over: threading.Event) -> None:
    """What a stage does to a store: files under a name for the time being, then under their own; groups that come and go."""
    while not over.is_set():
        for folder in (run / "features.zarr" / "net" / "embedding", run / "ledger" / "features" / "net"):
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(20):
                partial = folder / f"{number:06d}.json.host-1.partial"
                partial.write_bytes(b"{}")
                partial.replace(folder / f"{number:06d}.json")
        (run / "features.zarr" / "net" / "zarr.json").write_bytes(b"{}")
        shutil.rmtree(run / "features.zarr" / "net", ignore_errors=True)
        shutil.rmtree(run / "ledger" / "features" / "net", ignore_errors=True)


def test_no_walk_stops_while_a_stage_writes(tmp_path):
    over = threading.Event()
    writer = threading.Thread(target=write_without_end, args=(tmp_path, over))
    writer.start()
    ledger, store = Ledger(tmp_path / "ledger" / "features" / "net"), tmp_path / "features.zarr"
    try:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert bytes_on_disk(store) >= 0
            assert set(known_groups(store)) <= {"net"} >= set(group_names(store))
            assert set(ledger.indices()) | set(ledger.indices_since(0.0)) <= set(range(20))
            assert (ledger.latest() or 0.0) <= time.time() + 1
    finally:
        over.set()
        writer.join()
