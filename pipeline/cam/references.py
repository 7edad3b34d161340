"""What targets need from the whole feature store of a checkpoint: heads, class names, and the references of each sample."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.features.reading import feature_arrays
from pipeline.store.blocks import Block
from pipeline.store.group_store import GroupStore
from safenet.architecture import HeadActivation, Pooling
from safenet.head_arrays import HEAD_ARRAYS
from stages.cam.compute import CamContext, needed_references
from stages.cam.gate import GATE_READS, LOGIT_TOLERANCE, Exactness, examine
from stages.cam.map_keys import MapKey
from stages.finite import whole_or_nothing
from stages.schema import HEAD_PREFIX, Arrays
from stages.targets.names import TargetName
from stages.targets.part_heads import embed_with_heads, run_heads
from stages.targets.references import UNDEFINED, ReferenceBank, ReferenceGroups, Role, reference_groups
from stages.targets.scoring import label_index, target_context

_TEXTS = ("place", "view", "split", "roles")
_GATE_BLOCKS = 16


@dataclass(frozen=True)
class OtherHeads:
    """Heads that were not trained with the features they are put behind.

    Parameters
    ----------
    arrays : mapping
        The variables head_<name>, [head, ...], parts first, the global head last.
    class_names : sequence of str
    activation : {"none", "leaky_relu"}
    """

    arrays: Arrays
    class_names: Sequence[str]
    activation: HeadActivation

    @classmethod
    def of(cls, features: GroupStore) -> OtherHeads:
        """Those of another checkpoint."""
        attributes = features.attributes
        return cls(read_heads(features), attributes["class_names"], attributes["architecture"].get("head_activation", "none"))


def read_heads(features: GroupStore) -> Arrays:
    """Stored arrays of all heads."""
    return features.arrays([HEAD_PREFIX + key for key in HEAD_ARRAYS])


class References:
    """A feature store as its targets see it; what is small is read once, embeddings when a similarity first asks for them.

    Parameters
    ----------
    features : GroupStore
        Of one checkpoint, whole.
    other : OtherHeads, optional
        Heads to put in the place of its own: embeddings and logits are then those that these heads give.
    among : bool [sample], optional
        Images to compare with; no embedding is read of a block without any. Default: all.
    """

    def __init__(self, features: GroupStore, other: OtherHeads | None = None, among: NDArray[np.bool_] | None = None) -> None:
        self._features = features
        self._other = other
        self._among = among
        self._banks: dict[bool, ReferenceBank] = {}

    @cached_property
    def context(self) -> CamContext:
        """Heads, class names, FAM's sampling and FPM's pooling; gradients layer by layer where the gate says so."""
        closed_form = self._other is not None or self.exactness.form == "closed"
        targets = target_context(self._heads, self._class_names, self._activation, closed_form=closed_form)
        precision = self._features.attributes.get("precision", "float32")
        return CamContext(targets, self._architecture["sampling"], self._pooling, precision)

    @cached_property
    def exactness(self) -> Exactness:
        """What the gate finds on the first few images.

        Raises
        ------
        ValueError
            If stored maps and heads do not give the stored logits.
        """
        for block in self._gate_blocks():
            found = feature_arrays(self._features, GATE_READS, block.rows)
            exactness = examine(found, self._head_arrays[:-1], self._activation, self._pooling)
            if exactness.samples:
                break
        allowed = LOGIT_TOLERANCE[str(found["aligned_map"].dtype)]
        if exactness.logit_error > allowed:
            raise ValueError(
                f"{self._features}: the stored logits are not those of the stored maps and heads: they differ by {exactness.logit_error:.2g} of "
                f"their largest, and {allowed:g} is allowed. Run `atlas verify`; if it finds nothing, extract again with map_dtype = 'float32'"
            )
        return exactness

    @cached_property
    def groups(self) -> ReferenceGroups:
        """Which samples are compared with which; void images with none. Embeddings that are not finite are left out where they are read."""
        valid = self._features.values("valid")
        usable = valid if self._among is None else valid & self._among
        place, view, split, roles = (self._features.values(name).tolist() for name in _TEXTS)
        return reference_groups(place, view, split, roles, usable.tolist())

    @cached_property
    def class_index(self) -> NDArray[np.int64]:
        """Class of each sample's place."""
        return label_index(self._features.values("place").tolist(), self._class_names)

    @cached_property
    def sample_ids(self) -> list[str]:
        """Ids of the images."""
        return self._features.values("sample_id").tolist()

    def bank(self, *, flip: bool) -> ReferenceBank:
        """What samples are compared with, by their embeddings or by those of image plus flipped image; one of each is kept."""
        if flip not in self._banks:
            self._banks[flip] = ReferenceBank(self.groups, self._embeddings(flip))
        return self._banks[flip]

    def prepare(self, map_keys: Iterable[MapKey]) -> None:
        """Read now what all blocks share, so that threads do not each read it."""
        for name, target in needed_references(map_keys).items():
            self._reference(name, target, slice(0, 1))
        _ = self.context.targets.rivals, self.class_index

    def beside(self, features: Container[str], rows: slice, map_keys: Iterable[MapKey]) -> dict[str, NDArray[Any]]:
        """The classes and references of some samples that the products' targets read; with other heads what these give in place of `features`."""
        found: dict[str, NDArray[Any]] = {"class_index": self.class_index[rows]}
        if self._other is not None and "logit" in features:
            found["embedding"], found["logit"] = run_heads(self._head_arrays, self._activation, self._head_inputs(rows))
        return found | {name: self._reference(name, target, rows) for name, target in needed_references(map_keys).items()}

    def attach(self, features: xr.Dataset, rows: slice, map_keys: Iterable[MapKey]) -> xr.Dataset:
        """Add what lies `beside` the features of some samples to them."""
        dims = {"class_index": ("sample",), "logit": ("sample", "head", "class")}
        found = self.beside({str(name) for name in features}, rows, map_keys)
        return features.assign({name: (dims.get(name, ("sample", "head", "embed")), values) for name, values in found.items()})

    @cached_property
    def _heads(self) -> Arrays:
        return self._other.arrays if self._other else read_heads(self._features)

    @cached_property
    def _head_arrays(self) -> list[dict[str, NDArray[np.float32]]]:
        arrays = {key: self._heads[HEAD_PREFIX + key] for key in HEAD_ARRAYS}
        return [{key: values[head] for key, values in arrays.items()} for head in range(len(arrays["w1"]))]

    @property
    def _class_names(self) -> Sequence[str]:
        names: Sequence[str] = self._other.class_names if self._other else self._features.attributes["class_names"]
        return names

    @property
    def _architecture(self) -> dict[str, Any]:
        found: dict[str, Any] = self._features.attributes["architecture"]
        return found

    @property
    def _activation(self) -> HeadActivation:
        found: HeadActivation = self._other.activation if self._other else self._architecture.get("head_activation", "none")
        return found

    @property
    def _pooling(self) -> Pooling:
        found: Pooling = self._architecture.get("pooling", "mean")
        return found

    def _gate_blocks(self) -> list[Block]:
        """The first few blocks that hold an image. Where none of them has one whose values are finite, the gate says that it examined none."""
        blocks = self._features.blocks
        with_images = (block for block in blocks if self._features.values("valid", block.rows).any())
        return list(islice(with_images, _GATE_BLOCKS)) or blocks[:1]

    def _reference(self, name: str, target: TargetName, rows: slice) -> NDArray[np.float32]:
        role: Role = name.split("_")[1]  # type: ignore[assignment]
        named = self.sample_ids.index(target.name) if target.name else UNDEFINED
        return self.bank(flip=target.flip).of(target, role, rows, named)

    def _head_inputs(self, rows: slice) -> NDArray[np.float32]:
        """What heads are given, [B, head, D]: part features, then the global feature."""
        found = self._features.arrays(["part_feature", "global_feature"], rows)
        return np.concatenate([found["part_feature"], found["global_feature"][:, None]], axis=1)

    def _embeddings(self, flip: bool) -> Callable[[], Iterator[NDArray[np.float32]]]:
        keys = ["embedding", *(["flip_embedding"] if flip else [])]

        def embeddings(rows: slice) -> NDArray[np.float32]:
            if self._other is not None:
                return embed_with_heads(self._head_arrays, self._activation, self._head_inputs(rows))
            found = self._features.arrays(keys, rows)
            return np.asarray(np.sum([whole_or_nothing(found[key]) for key in keys], axis=0))

        def read() -> Iterator[NDArray[np.float32]]:
            for block in self._features.blocks:
                is_asked = self._among is None or self._among[block.rows].any()
                yield embeddings(block.rows) if is_asked else self._no_embeddings(len(block))

        return read

    def _no_embeddings(self, count: int) -> NDArray[np.float32]:
        return np.full((count, len(self._head_arrays), len(self._head_arrays[0]["b1"])), np.nan, np.float32)
