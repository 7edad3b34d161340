"""Features -> heat maps at every position, target and method asked for; lazily where the features are lazy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from safenet.architecture import Sampling
from stages.cam_methods import METHODS, CamInput
from stages.naming import known
from stages.positions import POSITIONS, block_number, check_position, open_position
from stages.schema import check
from stages.targets import NO_TARGET, TargetContext, check_target, directions

PER_SAMPLE_CONTEXT = ("class_index", "reference_group")


class CamSettings(BaseModel):
    """The [cam] table: every position is crossed with every method, and gradient methods with every target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    positions: tuple[str, ...] = Field(("patch", "aligned", "part"), description="patch, aligned, part, block_N")
    methods: tuple[str, ...] = Field(tuple(METHODS), description=", ".join(METHODS))
    targets: tuple[str, ...] = Field(
        ("match",), description="of the gradient methods: label, predicted, class_NAME, match, match_share, match_contrast"
    )

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(known(name, METHODS, "cam.methods") for name in value)

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_target(name) for name in value)

    @field_validator("positions")
    @classmethod
    def _known_positions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_position(name, "cam.positions") for name in value)


@dataclass(frozen=True, order=True)
class Product:
    """One stored map a sample: where, of what, how. Its key is its path in the store."""

    position: str
    target: str
    method: str

    @property
    def key(self) -> str:
        """position/target/method; a slash within a class name is written %2F."""
        return f"{self.position}/{quote(self.target, safe='')}/{self.method}"

    @property
    def additive(self) -> bool:
        """Whether the cells add up to the score; a part's value is painted on all cells of its ring, so there they do not."""
        return METHODS[self.method].additive and self.position != "part"

    @classmethod
    def parse(cls, key: str) -> Product:
        """Undo `key`."""
        position, target, method = key.split("/")
        return cls(position, unquote(target), method)


@dataclass(frozen=True)
class CamContext:
    """What the maps of a checkpoint need beyond a block's own features: its targets' context and FAM's sampling."""

    targets: TargetContext
    sampling: Sampling


def products_of(settings: CamSettings) -> list[Product]:
    """Cross positions, targets and methods.

    Statistics have the target "none". A gradient at an intermediate block needs the backbone, so no such product
    can be made from a store: `without_closed_form` names what is left out.
    """
    products = set()
    for position in settings.positions:
        for name in settings.methods:
            if METHODS[name].kind == "statistic":
                products.add(Product(position, NO_TARGET, name))
            elif block_number(position) is None:
                products |= {Product(position, target, name) for target in settings.targets}
    return sorted(products)


def without_closed_form(settings: CamSettings) -> list[str]:
    """Name the "method at block_i" pairs that the settings ask for and no store can give."""
    blocks = [position for position in settings.positions if block_number(position) is not None]
    return [f"{name} at {position}" for position in blocks for name in settings.methods if METHODS[name].kind == "gradient"]


def needed_features(products: Iterable[Product]) -> set[str]:
    """Name the feature variables that the products are made of."""
    needed = {"valid", "source_cell"}
    for product in products:
        position = POSITIONS.get(product.position)
        needed |= {"block_map", "block"} if position is None else set(position.needs)
        if position is not None and product.target != NO_TARGET:
            needed |= {"logit", "embedding", *position.needs_for_gradient}
    return needed


def compute_cams(features: xr.Dataset, products: Iterable[Product], context: CamContext) -> xr.Dataset:
    """Return one variable a product, named by its key.

    Parameters
    ----------
    features : Dataset
        The variables of `needed_features`, and for gradient methods the int variables `class_index` and
        `reference_group` along `sample` (-1: undefined). In memory, or chunked in any way.
    products : iterable of Product
    context : CamContext

    Returns
    -------
    Dataset
        float32 (sample, y, x), raw and signed; lazy where `features` is lazy, chunked along `sample` alone. All NaN
        for samples that are not valid or have no such target. `aligned` and `part` maps lie on the aligned grid, the
        others on the patch grid.

    Raises
    ------
    ValueError
        If a needed variable is absent.
    """
    products = tuple(products)
    needed = needed_features(products)
    check(features, needed, "the feature store")
    chosen = features[sorted(needed | {name for name in PER_SAMPLE_CONTEXT if name in features})].reset_coords(drop=True)
    if not chosen.chunks:
        return _compute_block(chosen, products, context)
    whole = {dim: -1 for dim in chosen.dims if dim != "sample"}
    chosen = chosen.chunk(whole).unify_chunks()
    one_map = xr.zeros_like(chosen["source_cell"], dtype=np.float32)
    template = xr.Dataset({product.key: one_map for product in products})
    return chosen.map_blocks(_compute_block, (products, context), template=template)


def _compute_block(features: xr.Dataset, products: tuple[Product, ...], context: CamContext) -> xr.Dataset:
    """Make all products of one block in one pass, so that each stored map is read and converted once."""
    vectors = {target: directions(features, target, context.targets) for target in {p.target for p in products} - {NO_TARGET}}
    void = ~features["valid"].values.astype(bool)
    found: dict[str, NDArray[np.float32]] = {}
    for position in dict.fromkeys(product.position for product in products):
        here = [product for product in products if product.position == position]
        frame = open_position(features, position, context.sampling, any(p.target != NO_TARGET for p in here))
        for target in dict.fromkeys(product.target for product in here):
            view = CamInput(frame.cells, vectors.get(target), frame.weight)
            for product in (product for product in here if product.target == target):
                maps = frame.paint(METHODS[product.method].formula(view))
                maps[void] = np.nan
                found[product.key] = maps
    return xr.Dataset({product.key: (("sample", "y", "x"), found[product.key]) for product in products})
