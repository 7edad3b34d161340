"""What a checkpoint's marks prove of its images."""

from pipeline.disk.records import write_record
from pipeline.features.finished import proven_samples


def test_an_image_that_was_left_out_is_not_proven(lab, extracted_copy):
    run = lab.run(extracted_copy, checkpoints="net_000.pth")
    store, name = run.features("net_000"), run.manifest["id"].iloc[5]
    assert sorted(proven_samples(store).values()) == list(range(15))
    record = store.ledger.record_of(1)
    write_record(store.ledger.directory / "000001.json", {**record, "quarantined": {name: {"reason": "cut short", "since": ""}}})
    assert sorted(proven_samples(store).values()) == [number for number in range(15) if number != 5]
