"""A network is computed with only if its file is the very one that the stage was laid out for, whenever that is replaced."""

import shutil

import pytest
import torch
from disk_content import content

from pipeline.checkpoints import networks
from pipeline.checkpoints.networks import ChangedCheckpointError, load_network
from pipeline.disk.stamps import file_digest
from pipeline.extract import job
from pipeline.extract.extractor import SpanExtractor
from pipeline.extract.stage import extract
from pipeline.pixels import curves
from pipeline.pixels.stage import pixels
from pipeline.store.groups import known_groups
from safenet.checkpoint_info import CheckpointError

CHANGED = r"net_000\.pth: not the file any more that this call began with: it was replaced or written over\. .* Call again"


@pytest.fixture
def path(lab, tmp_path):
    """A checkpoint file of a user's, an hour old."""
    (tmp_path / "checkpoints").mkdir()
    return shutil.copy2(lab.checkpoints / "net_000.pth", tmp_path / "checkpoints" / "net_000.pth")


@pytest.fixture
def trained_again(lab, path):
    """Puts another network's file in its place, by a rename or in place, as `torch.save` does."""

    def replace(in_place=False):
        other = lab.checkpoints / "net_001.pth"
        if in_place:
            path.write_bytes(other.read_bytes())
        else:
            shutil.copy2(other, path.with_name("new.partial")).replace(path)

    return replace


def meanwhile(monkeypatch, owner, name, act, *, after=False):
    """Let something happen right before (or after) the first call of a function."""
    original = getattr(owner, name)

    def acting(*arguments, **options):
        monkeypatch.setattr(owner, name, original)
        if not after:
            act()
        found = original(*arguments, **options)
        if after:
            act()
        return found

    monkeypatch.setattr(owner, name, acting)


def test_the_network_of_the_file_is_loaded(lab, path, make_network):
    info, network = load_network(path, file_digest(path), {})
    assert info.epoch == 0
    expected = make_network(0).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_of_other_bytes_is_refused(path, trained_again, in_place):
    digest = file_digest(path)
    trained_again(in_place)
    with pytest.raises(ChangedCheckpointError, match=CHANGED):
        load_network(path, digest, {})


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_changes_while_it_is_read_is_refused(path, trained_again, monkeypatch, in_place):
    """Read, and then replaced by the file of the digest: what was read is not what was digested."""
    digest = file_digest(path)
    former = path.read_bytes()
    trained_again()

    def put_back():
        if in_place:
            path.write_bytes(former)
        else:
            path.with_name("new").write_bytes(former)
            path.with_name("new").replace(path)

    meanwhile(monkeypatch, networks, "file_digest", put_back)
    with pytest.raises(ChangedCheckpointError, match=CHANGED):
        load_network(path, digest, {})


def test_half_a_file_is_told_as_changed_and_a_damaged_one_as_damaged(path):
    digest = file_digest(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ChangedCheckpointError, match=CHANGED):
        load_network(path, digest, {})
    with pytest.raises(CheckpointError, match=r"net_000\.pth: damaged or truncated"):
        load_network(path, file_digest(path), {})


@pytest.mark.parametrize(("owner", "name"), [(job, "upgrade_marks"), (SpanExtractor, "__call__")])
def test_features_are_never_noted_under_the_digest_of_another_file(lab, fresh, extracted, path, trained_again, monkeypatch, owner, name):
    """Replaced before the store is laid out, and before the weights are loaded that compute."""
    former = path.read_bytes()
    run = lab.run(fresh, f"extract.checkpoints=['{path}']")
    meanwhile(monkeypatch, owner, name, trained_again)
    with pytest.raises(ChangedCheckpointError, match=CHANGED):
        extract(run)
    store = run.features("net_000")
    assert store.ledger.indices() == []
    assert store.is_laid_out == (owner is SpanExtractor)
    path.write_bytes(former)
    extract(lab.run(fresh, f"extract.checkpoints=['{path}']"))
    undisturbed = {name: found for name, found in content(extracted / "features.zarr").items() if not name.endswith("net_000/zarr.json")}
    assert undisturbed.items() <= content(fresh / "features.zarr").items()


def test_curves_are_not_made_with_another_file(lab, finished_copy, path, trained_again, monkeypatch):
    run = lab.run(finished_copy, f"extract.checkpoints=['{path}']", "pixels.samples=1", "pixels.target='match'", "pixels.steps=2")
    for name in ("net_001", "net_002"):
        shutil.rmtree(run.features_path / name)
        shutil.rmtree(run.directory / "ledger" / "features" / name)
    meanwhile(monkeypatch, curves, "pick_device", trained_again)
    with pytest.raises(ChangedCheckpointError, match=CHANGED):
        pixels(run)
    assert known_groups(run.pixels_path) == []
