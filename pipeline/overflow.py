"""Values of the network that are not finite: in which images and variables, at which head or layer, and what to do about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.blocks import Block
from pipeline.stores import GroupStore
from stages.finite import finite_rows
from stages.schema import FEATURES


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
    sample_id = store.read(["sample_id"])["sample_id"].values[block.start + rows[0]]
    return {
        "count": sum(count for *_, count in flagged),
        "images": len(images),
        "variables": list(dict.fromkeys(name for _, name, *_ in flagged)),
        "first": f"{name} of {sample_id}{_place(store, values.dims, values.values[rows[0]])}",
    }


def overflow_words(store: GroupStore) -> str:
    """What is not finite in a checkpoint's whole features, in a line with the remedy; empty where all is finite."""
    found = store.ledger.whole().get("non_finite", {})
    if not found:
        return ""
    images = f" in {found['images']:,} images" if "images" in found else ""  # not noted by earlier versions
    variables = found.get("variables", list(store.attributes["block_arrays"]))
    return f"{found['count']:,} values{images} are not finite, first in {found['first']}; {remedy(store, variables)}"


def overflowing_images(store: GroupStore) -> dict[str, list[str]]:
    """Sample id -> variables of it that are not finite, by the marks; marks of earlier versions count values alone, so that these are read."""
    if not store.ledger.whole().get("non_finite", {}):
        return {}
    names, found = store.read(["sample_id"])["sample_id"].values, defaultdict[str, list[str]](list)
    for block, name, rows, _ in _flagged(store, [store.ledger.record(block) for block in store.blocks]):
        for row in rows:
            found[str(names[block.start + row])].append(name)
    return dict(found)


def overflow_of_sample(store: GroupStore, sample: int) -> list[str]:
    """Variables of one image that are not finite."""
    chosen = [name for name in store.attributes["block_arrays"] if not FEATURES[name].nan_means_none]
    read = store.read(chosen, slice(sample, sample + 1))
    return [name for name in chosen if not finite_rows(read[name].values)[0]]


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
            if made["non_finite"] and not FEATURES[name].nan_means_none:
                yield block, name, _odd_rows(store, block, name, made), made["non_finite"]


def _odd_rows(store: GroupStore, block: Block, name: str, made: Mapping[str, Any]) -> list[int]:
    if "odd_rows" not in made:  # a mark of an earlier version
        return [int(row) for row in np.flatnonzero(~finite_rows(store.read([name], block.rows)[name].values))]
    return list(range(len(block))) if made["odd_rows"] == "all" else made["odd_rows"]


def _place(store: GroupStore, dims: Sequence[Any], values: NDArray[Any]) -> str:
    """Where in a sample's values the first one is that is not finite, by the dims that a reader can name."""
    index = np.argwhere(~np.isfinite(values))[0] if values.ndim else ()
    found = {str(dim): int(number) for dim, number in zip(dims[1:], index, strict=True)}
    words = [f"head {store.attributes['head_names'][found['head']]}"] if "head" in found else []
    words += [f"layer {found['layer']}"] if "layer" in found else []
    words += [f"block {store.read(['block'])['block'].values[found['block']]}"] if "block" in found else []
    words += [f"{dim} {found[dim] + 1}" for dim in ("part", "ring") if dim in found]
    words += [f"cell ({found['y']}, {found['x']})"] if "y" in found else []
    return "".join(f", {word}" for word in words)
