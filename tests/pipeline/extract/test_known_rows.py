"""Rows that are carried over to a replacement: found when a checkpoint's turn comes, and held in four bytes a sample."""

import pickle

import numpy as np

from pipeline.extract import known_rows
from pipeline.extract.known_rows import replaced_rows
from pipeline.extract.layout import ingredients
from pipeline.features.state import feature_state, layout_notes


def test_proofs_are_read_when_a_checkpoints_turn_comes_and_once(lab, extracted_copy, monkeypatch):
    run, read, proven = lab.run(extracted_copy, checkpoints="net_000.pth"), [], known_rows.proven_samples
    monkeypatch.setattr(known_rows, "proven_samples", lambda store: read.append(store.name) or proven(store))
    store = run.features("net_000")
    known = replaced_rows(run, store, layout_notes(store)["made_with"])
    assert read == []
    for _ in range(2):
        for block in store.blocks:
            assert known.only([block]).rows(block) == known.rows(block) == set(range(len(block)))
    assert read == ["net_000"]


def test_a_sample_takes_four_bytes(lab, extracted_copy):
    """A run of 120 checkpoints and 50,000 images replaces six million."""
    run = lab.run(extracted_copy, checkpoints="net_000.pth")
    store = run.features("net_000")
    known = replaced_rows(run, store, layout_notes(store)["made_with"])
    few, many = known.only(store.blocks[:1]), known.only(store.blocks)
    samples = sum(len(block) for block in store.blocks[1:])
    blocks = len(store.blocks) - 1
    assert len(pickle.dumps(many)) - len(pickle.dumps(few)) < 4 * samples + 100 * blocks
    assert {found.dtype for found in many.sources.values()} == {np.dtype(np.int32)}
    assert known._sources.nbytes == 4 * len(run.manifest)


def test_rows_come_from_where_their_images_were(lab, extracted_copy, monkeypatch):
    """In any order, out of several old blocks."""
    run = lab.run(extracted_copy, checkpoints="net_000.pth")
    store, order = run.features("net_000"), np.random.default_rng(0).permutation(15)
    run.columns["id"][:] = np.array(run.columns["id"])[order].tolist()
    run.columns["digest"][:] = np.array(run.columns["digest"])[order].tolist()
    run.columns["digest"][3] = "changed"
    known = replaced_rows(run, store, layout_notes(store)["made_with"])
    values = store.read(["theta", "valid"])
    for block in store.blocks:
        assert known.rows(block) == set(range(len(block))) - ({3 - block.start} if block.start <= 3 < block.stop else set())
        for rows, arrays in known.only([block]).read(block):
            for name in ("theta", "valid"):
                np.testing.assert_array_equal(arrays[name], values[name].values[order[block.rows]][rows])


def test_other_settings_prove_nothing(lab, extracted_copy):
    run = lab.run(extracted_copy, "extract.map_dtype=float32", checkpoints="net_000.pth")
    store = run.features("net_000")
    made_with = ingredients(run, layout_notes(store)["made_with"]["checkpoint"])
    known = replaced_rows(run, store, made_with)
    assert feature_state(run, store, made_with).kind == "stale"
    assert [known.only([block]).rows(block) for block in store.blocks] == [set()] * len(store.blocks)
    assert list(known.read(store.blocks[0])) == []
