"""Values of the network that are not finite: in which images and variables, at which head or layer, and what to do about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from stages.finite import finite_rows
from stages.schema import FEATURES
from stages.wording import counted


def describe_overflow(store: GroupStore, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the note of the whole says of values that are not finite; empty where all are.

    Parameters
    ----------
    store : GroupStore
        Features of a checkpoint.
    records : sequence of mapping
        The marks of all blocks, in order.

    Returns
    -------
    dict
        `count` of values, `images`, `variables`, and the `first` one in words, such as "embedding of drone/0001/image-01, head part1".
    """
    flagged = list(_flagged(store, records))
    if not flagged:
        return {}
    images = {block.start + row for block, _, rows, _ in flagged for row in rows}
    block, name, rows, _ = flagged[0]
    values = store.read([name], block.rows)[name]
    sample_id = store.values("sample_id")[block.start + rows[0]]
    return {
        "count": sum(count for *_, count in flagged),
        "images": len(images),
        "variables": list(dict.fromkeys(name for _, name, *_ in flagged)),
        "first": f"{name} of {sample_id}{_place(store, values.dims, _faults(name, values.values[rows[0]]))}",
    }


def overflow_words(store: GroupStore) -> str:
    """What is not finite in a checkpoint's whole features, in a line with the remedy; empty where all is finite."""
    found = store.ledger.whole().get("non_finite", {})
    if not found:
        return ""
    images = f" in {counted(found['images'], 'image')}" if "images" in found else ""  # not noted by earlier versions
    variables = found.get("variables", list(store.attributes["block_arrays"]))
    verb = "is" if found["count"] == 1 else "are"
    return f"{counted(found['count'], 'value')}{images} {verb} not finite, first in {found['first']}; {remedy(store, variables)}"


def overflowing_images(store: GroupStore) -> dict[str, list[str]]:
    """Sample id -> variables of it that are not finite, by the marks; marks of earlier versions count values alone, so that these are read."""
    if not store.ledger.whole().get("non_finite", {}):
        return {}
    names, found = store.values("sample_id"), defaultdict[str, list[str]](list)
    for block, name, rows, _ in _flagged(store, store.ledger.records(store.blocks)):
        for row in rows:
            found[str(names[block.start + row])].append(name)
    return dict(found)


def overflow_of_sample(store: GroupStore, sample: int) -> list[str]:
    """Variables of one image that are not finite."""
    read = store.read(store.attributes["block_arrays"], slice(sample, sample + 1))
    return [name for name in store.attributes["block_arrays"] if _faults(name, read[name].values).any()]


def remedy(store: GroupStore, variables: Sequence[str]) -> str:
    """What to do: half precision overflows where it stores, or where the transformer computes; else the network itself does."""
    made_with, attributes = store.attributes["made_with"], store.attributes
    stored_maps = all(FEATURES[name].dtype == "map" for name in variables if name in FEATURES)
    if stored_maps and made_with.get("map_dtype") == "float16":
        return 'set extract.map_dtype = "float32" and extract with --replace'
    if attributes.get("precision", "float32") != "float32":
        return 'set extract.precision = "float32" and extract with --replace'
    return "the network's own values overflow: take another checkpoint"


def _flagged(store: GroupStore, records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Block, str, list[int], int]]:
    """Yield block, variable, rows within the block and count of values that are not finite."""
    for block, record in zip(store.blocks, records, strict=True):
        for name, made in record.get("arrays", {}).items():
            counted, where = ("infinite", "infinite_rows") if FEATURES[name].nan_means_none else ("non_finite", "odd_rows")
            if made.get(counted):
                yield block, name, _rows_in(store, block, name, made.get(where)), made[counted]


def _rows_in(store: GroupStore, block: Block, name: str, noted: list[int] | str | None) -> list[int]:
    if noted is None:  # a mark of an earlier version
        return [int(row) for row in np.flatnonzero(~finite_rows(store.values(name, block.rows)))]
    return list(range(len(block))) if isinstance(noted, str) else noted


def _faults(name: str, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values are no numbers and should be."""
    if values.dtype.kind != "f":
        return np.zeros(values.shape, bool)
    return np.asarray(np.isinf(values) if FEATURES[name].nan_means_none else ~np.isfinite(values))


def _place(store: GroupStore, dims: Sequence[Any], faults: NDArray[np.bool_]) -> str:
    """Where in a sample's values the first fault is, by the dims that a reader can name."""
    index = np.argwhere(faults)[0] if faults.ndim else ()
    found = {str(dim): int(number) for dim, number in zip(dims[1:], index, strict=True)}
    words = [f"head {store.attributes['head_names'][found['head']]}"] if "head" in found else []
    words += [f"layer {found['layer']}"] if "layer" in found else []
    words += [f"block {store.values('block')[found['block']]}"] if "block" in found else []
    words += [f"{dim} {found[dim] + 1}" for dim in ("part", "ring") if dim in found]
    if "gradient_target" in found:
        names = store.read(["gradient_target", "gradient_block"])
        words += [f"target {names['gradient_target'].values[found['gradient_target']]}"]
        words += [f"block {names['gradient_block'].values[found['gradient_block']]}"]
    words += [f"cell ({found['y']}, {found['x']})"] if "y" in found else []
    return "".join(f", {word}" for word in words)
