"""Texts and void images of a store, from the manifest and the note of the whole."""

import numpy as np

from pipeline.features.texts import is_of_manifest, texts_of, valid_samples
from pipeline.run.directory import Run
from stages.schema import SAMPLE_TEXTS


def test_the_manifest_tells_the_texts_that_the_store_holds(finished, monkeypatch):
    run, store = Run(finished.directory, finished.settings), finished.features("net_000")
    stored = {name: store.values(name).tolist() for name in SAMPLE_TEXTS}
    monkeypatch.setattr(type(store), "values", None)
    assert {name: texts_of(run, store, name) for name in SAMPLE_TEXTS} == stored


def test_a_store_of_other_images_tells_its_own_texts(lab, finished_copy):
    run = lab.run(finished_copy)
    stored = run.features("net_000").values("place").tolist()
    run.manifest.loc[0, "place"] = "elsewhere"
    assert not is_of_manifest(run, run.features("net_000"))
    assert texts_of(run, run.features("net_000"), "place") == stored


def test_void_images_are_those_that_the_blocks_hold_as_void(lab, finished_copy):
    run = lab.run(finished_copy)
    store = run.features("net_000")
    np.testing.assert_array_equal(valid_samples(run, store), store.values("valid"))
    void = run.columns["id"][4]
    store.ledger.mark_whole({**store.ledger.whole(), "quarantined": {void: {"reason": "cut short", "since": ""}}})
    assert np.flatnonzero(~valid_samples(run, store)).tolist() == [4]
    store.ledger.forget_whole()
    assert valid_samples(run, store).all(), "the blocks themselves say so"
