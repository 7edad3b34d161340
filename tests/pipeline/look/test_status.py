"""`atlas status` while other processes write: what is taken out meanwhile is left out, and nothing stops."""

import shutil

import pytest

from pipeline.look import status as status_module
from pipeline.look.status import run_status


def take_out(run, name):
    """As `atlas forget-checkpoint` does."""
    store = run.features(name)
    store.ledger.clear()
    store.seal.remove()
    shutil.rmtree(store.ledger.directory)
    shutil.rmtree(store.root)


@pytest.mark.parametrize("while_asked_for", ["missing_blocks", "_size", "current_maps"])
def test_a_checkpoint_that_is_taken_out_meanwhile_is_left_out(lab, finished_copy, monkeypatch, while_asked_for):
    run, original = lab.run(finished_copy), getattr(status_module, while_asked_for)

    def ask(features, *more):
        if features.name == "net_001" and features.exists:
            take_out(run, "net_001")
            features.forget_open()
        return original(features, *more)

    monkeypatch.setattr(status_module, while_asked_for, ask)
    assert {row["checkpoint"] for row in run_status(run)} - {"net_001"} == {"net_000", "net_002"}
    assert [row["checkpoint"] for row in run_status(run)] == ["net_000", "net_002"]


def test_a_file_that_is_missing_for_good_is_told(lab, finished_copy, monkeypatch):
    def fail(features):
        raise FileNotFoundError(f"{features}: no such file")

    monkeypatch.setattr(status_module, "missing_blocks", fail)
    with pytest.raises(FileNotFoundError, match="net_000: no such file"):
        run_status(lab.run(finished_copy))
