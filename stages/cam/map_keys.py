"""Which heat maps there are: the [cam] table, and the products that it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from stages.cam.methods import METHODS
from stages.cam.names import block_number, check_position
from stages.cam.settings import CamSettings
from stages.naming import known
from stages.targets.names import NO_TARGET, folder_of, parse_target

FACTS_PREFIX = "facts/"


@dataclass(frozen=True, order=True)
class MapKey:
    """One stored map per sample: where, of what, how. Its key is its path in the store."""

    position: str
    target: str
    method: str

    @property
    def key(self) -> str:
        """position/target/method; a slash within a name is written %2F."""
        return f"{self.position}/{folder_of(self.target)}/{self.method}"

    @property
    def facts_key(self) -> str:
        """Path of the figures beside the maps; see stages/cam/facts.py."""
        return f"{FACTS_PREFIX}{self.key}"

    @property
    def additive(self) -> bool:
        """Whether a cell's value is a share of the score; a part's value is painted on all cells of its ring, so there it is not."""
        return METHODS[self.method].additive and self.position != "part"

    @property
    def exact(self) -> bool:
        """Whether the cells add up to the score less its constant, for a head that is affine."""
        linear = self.target != NO_TARGET and parse_target(self.target).is_linear
        return METHODS[self.method].exact and self.position in ("patch", "aligned") and linear

    @property
    def is_stored_gradient(self) -> bool:
        """Whether `extract` made it: a gradient at a block."""
        return self.target != NO_TARGET and block_number(self.position) is not None

    def checked(self) -> MapKey:
        """Return itself, if there is such a map; else raise a ValueError that names the nearest known word."""
        check_position(self.position, f"{self.key}: position")
        method = METHODS[known(self.method, METHODS, f"{self.key}: method")]
        if not method.exists_at(self.position, block_number(self.position) is not None):
            raise ValueError(f"{self.key}: {self.method} does not exist at {self.position}; `atlas methods` says where it does")
        if (self.target == NO_TARGET) != (method.kind == "statistic"):
            wanted = "has no target; write 'none'" if method.kind == "statistic" else "needs a target"
            raise ValueError(f"{self.key}: {self.method} {wanted}")
        return self if self.target == NO_TARGET else replace(self, target=str(parse_target(self.target, f"{self.key}: target")))

    @classmethod
    def parse(cls, key: str) -> MapKey:
        """Undo `key`; a slash within a target may be written as it is."""
        position, rest = key.split("/", 1)
        target, method = rest.rsplit("/", 1)
        return cls(position, unquote(target), method)


@dataclass(frozen=True)
class StoredBlocks:
    """What a feature store holds of the transformer blocks.

    Parameters
    ----------
    maps : set of int
        Blocks whose map is stored.
    gradients : mapping
        Target -> blocks whose gradient maps are stored.
    variables : set of str
        Variables on request that hold every block, such as cls_attention.
    """

    maps: frozenset[int] = frozenset()
    gradients: Mapping[str, frozenset[int]] = field(default_factory=dict)
    variables: frozenset[str] = frozenset()


def map_keys_of(settings: CamSettings, stored: StoredBlocks | None = None) -> list[MapKey]:
    """Cross positions, targets and methods; at blocks, what is stored of them.

    Class-free methods have the target "none". Without `stored`, all maps of blocks are taken to be there, and no gradient.
    """
    return sorted({map_key for map_key in _asked_for(settings) if _why_absent(map_key, stored) == ""})


def left_out(settings: CamSettings, stored: StoredBlocks | None = None) -> dict[MapKey, str]:
    """Products that the settings ask for and these stores cannot give -> why not, and what to do."""
    return {map_key: why for map_key in sorted(set(_asked_for(settings))) if (why := _why_absent(map_key, stored))}


def _asked_for(settings: CamSettings) -> Iterator[MapKey]:
    for position in settings.positions:
        at_block = block_number(position) is not None
        for name in settings.methods:
            method = METHODS[name]
            if not method.exists_at(position, at_block):
                continue
            targets: Sequence[str] = (NO_TARGET,) if method.kind == "statistic" else settings.targets
            yield from (MapKey(position, target, name) for target in targets)


def _why_absent(map_key: MapKey, stored: StoredBlocks | None) -> str:
    number, method = block_number(map_key.position), METHODS[map_key.method]
    if number is None:
        return ""
    if map_key.target != NO_TARGET:
        held = stored.gradients.get(map_key.target, frozenset()) if stored else frozenset()
        return "" if number in held else f"a gradient at a block needs the backbone: {_remedy(map_key.target)}"
    if method.reads:
        return "" if stored and method.reads in stored.variables else f"add {method.reads!r} to extract.store and extract again"
    return "" if stored is None or number in stored.maps else f"add {number} to extract.blocks and extract again"


def _remedy(target: str) -> str:
    if parse_target(target).row.kind == "similarity":
        return "a similarity is not possible there, because it also needs the embeddings of the other images. Use a class, such as 'predicted'"
    return f"add {target!r} to extract.gradient_targets and extract again"
