"""A value that is not finite put into a store, as if the network had given it."""

from pipeline.features.finished import mark_features_whole


def poison_store(run, checkpoint, name, value, sample):
    """Write a value into the features of one image, with marks that vouch for it: as if the network had given it."""
    store = run.features(checkpoint)
    block = next(block for block in store.blocks if block.start <= sample < block.stop)
    record = store.ledger.record(block)
    arrays = {key: store.read([key], block.rows)[key].values.copy() for key in store.attributes["block_arrays"]}
    if name == "valid":
        arrays["valid"][sample - block.start] = value
    else:
        row = sample - block.start
        arrays[name][row : row + 1].reshape(-1)[0] = value
    void = {run.manifest["id"].iloc[sample]: {"reason": "left out", "since": ""}} if name == "valid" else {}
    notes = {"images": record["images"], "quarantined": void}
    store.write_block(block, arrays, dict.fromkeys(arrays, store.attributes["stamp"]), **notes)
    store.ledger.forget_whole()
    mark_features_whole(store)
