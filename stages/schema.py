"""What the feature store holds: dims, dtype, unit, meaning of every variable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from safenet.architecture import Architecture

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

SCHEMA_VERSION = 2  # of features and figures
CAMS_SCHEMA_VERSION = 3  # heat maps lie in blocks of their own length
LATEST_SCHEMA_VERSION = CAMS_SCHEMA_VERSION
Arrays: TypeAlias = "Mapping[str, NDArray]"  # a block of features in memory: name of a variable -> its values


@dataclass(frozen=True)
class Variable:
    """One array of a store; `dtype` "map" stands for the configured precision of large maps, "str" for text."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    long_name: str
    units: str = "1"
    frame: str = ""
    nan_means_none: bool = False  # the image has no such target, or no mask, and what overflows is infinite; elsewhere NaN is a fault

    @property
    def per_sample(self) -> bool:
        """Whether the array has one entry per sample, so that it is written block by block."""
        return self.dims[0] == "sample"


_ALWAYS = (
    Variable("sample_id", ("sample",), "str", "id of the image, unique in the run"),
    Variable("place", ("sample",), "str", "place (class folder) of the image"),
    Variable("view", ("sample",), "str", "view: drone, satellite, ..."),
    Variable("split", ("sample",), "str", "train or test"),
    Variable("roles", ("sample",), "str", "train, query, gallery, joined by +"),
    Variable("variant", ("sample",), "str", "flight height, several joined by +; empty: shared by all, or none"),  # not in stores of earlier versions
    Variable("digest", ("sample",), "str", "blake2b of the image's bytes, 128 bits; empty where none could be read"),
    Variable("valid", ("sample",), "bool", "false where the image could not be read: its slot in every array is void"),
    Variable("patch_map", ("sample", "y", "x", "channel"), "map", "patch tokens after the final LayerNorm (A before FAM)", frame="patch"),
    Variable("theta", ("sample", "axis", "coefficient"), "float32", "FAM's warp: rows give the input's x and y, normalised coordinates"),
    Variable("source_cell", ("sample", "y", "x"), "int16", "row-major patch cell that each aligned cell copies", frame="aligned"),
    Variable("fam_change", ("sample",), "float32", "norm of (aligned map - patch map) over norm of the patch map"),
    Variable("saliency", ("sample", "ring"), "float32", "FPM's ring saliency S_r"),
    Variable("boundary", ("sample", "part"), "int16", "half-width of each part's square, innermost first", units="cells"),
    Variable("part_feature", ("sample", "part", "channel"), "float32", "FPM's ring pooling z_p"),
    Variable("global_feature", ("sample", "channel"), "float32", "CLS token after the final LayerNorm"),
    Variable("embedding", ("sample", "head", "embed"), "float32", "embedding of each head; parts first, global last"),
    Variable("logit", ("sample", "head", "class"), "float32", "class scores of each head; parts first, global last"),
    Variable("head_w1", ("head", "embed", "channel"), "float32", "bottleneck weight of each head"),
    Variable("head_b1", ("head", "embed"), "float32", "bottleneck bias"),
    Variable("head_bn_weight", ("head", "embed"), "float32", "BatchNorm gain"),
    Variable("head_bn_bias", ("head", "embed"), "float32", "BatchNorm shift"),
    Variable("head_bn_mean", ("head", "embed"), "float32", "BatchNorm running mean"),
    Variable("head_bn_var", ("head", "embed"), "float32", "BatchNorm running variance"),
    Variable("head_w2", ("head", "class", "embed"), "float32", "classifier weight"),
    Variable("head_b2", ("head", "class"), "float32", "classifier bias"),
)
_ON_REQUEST = (
    Variable("aligned_map", ("sample", "y", "x", "channel"), "map", "patch map after FAM (A of the heat-map formulas)", frame="aligned"),
    Variable("block_map", ("sample", "block", "y", "x", "channel"), "map", "patch tokens after a transformer block, not normalised", frame="patch"),
    Variable("block", ("block",), "int16", "which transformer blocks block_map holds, 0 first"),
    Variable("cls_attention", ("sample", "layer", "attention_head", "y", "x"), "float16", "attention of CLS to the patches, by block", frame="patch"),
    Variable("rollout", ("sample", "y", "x"), "float32", "attention rollout of CLS (arXiv:2005.00928)", frame="patch"),
    Variable("block_rollout", ("sample", "layer", "y", "x"), "float32", "attention rollout of CLS up to and including each block", frame="patch"),
    Variable(
        "block_cam",
        ("sample", "gradient_target", "gradient_block", "gradient_method", "y", "x"),
        "float32",
        "heat map at a transformer block by the gradient of a class score, raw and signed; NaN: the image has no such target; infinite: it overflows",
        frame="patch",
        nan_means_none=True,
    ),
    Variable("gradient_target", ("gradient_target",), "str", "class score that block_cam is of"),
    Variable("gradient_block", ("gradient_block",), "int16", "transformer block that block_cam is at, 0 first"),
    Variable("gradient_method", ("gradient_method",), "str", "method of block_cam"),
    Variable("flip_embedding", ("sample", "head", "embed"), "float32", "embedding of the horizontally flipped image"),
    Variable("image", ("sample", "row", "column", "colour"), "uint8", "the photo as the network read it, RGB", frame="photo"),
    Variable(
        "mask_share",
        ("sample", "y", "x"),
        "float32",
        "share of each cell that the target's mask covers; NaN: no mask",
        frame="patch",
        nan_means_none=True,
    ),
    Variable("mask_centre", ("sample", "y", "x"), "int8", "1 where a cell's centre lies in the mask, 0 where not, -1: no mask", frame="patch"),
)
FEATURES: Mapping[str, Variable] = MappingProxyType({variable.name: variable for variable in (*_ALWAYS, *_ON_REQUEST)})
ON_REQUEST = frozenset(variable.name for variable in _ON_REQUEST)
CHOICES = frozenset(
    {"cls_attention", "rollout", "block_rollout", "flip_embedding", "image"}
)  # the others follow from other settings or from the dataset
MASKS = ("mask_share", "mask_centre")
GRADIENT_METHODS = ("grad_cam", "hires_cam", "layer_cam")  # always all: they cost nothing once the gradient is there
HEAD_PREFIX = "head_"
SAMPLE_TEXTS: Mapping[str, str] = MappingProxyType(  # variable -> column of the manifest
    {"sample_id": "id", "place": "place", "view": "view", "split": "split", "roles": "roles", "variant": "variant", "digest": "digest"}
)


def feature_variables(requested: Iterable[str]) -> tuple[Variable, ...]:
    """Return the variables of a store: those always written, and the requested ones of ON_REQUEST."""
    wanted = set(requested)
    return tuple(variable for variable in FEATURES.values() if variable.name not in ON_REQUEST or variable.name in wanted)


def dim_sizes(architecture: Architecture, samples: int, blocks: int, gradient_targets: int = 0, gradient_blocks: int = 0) -> dict[str, int]:
    """Sizes of all dims of a feature store; `blocks` transformer blocks have their map stored, `gradient_blocks` their heat maps."""
    return {
        "sample": samples,
        "y": architecture.grid,
        "x": architecture.grid,
        "channel": architecture.width,
        "axis": 2,
        "coefficient": 3,
        "ring": architecture.rings,
        "part": architecture.parts,
        "head": architecture.parts + 1,
        "embed": architecture.embedding,
        "class": architecture.classes,
        "layer": architecture.depth,
        "block": blocks,
        "attention_head": architecture.heads,
        "gradient_target": gradient_targets,
        "gradient_block": gradient_blocks,
        "gradient_method": len(GRADIENT_METHODS),
        "row": architecture.image_size,
        "column": architecture.image_size,
        "colour": 3,
    }


def check(dataset: xr.Dataset, needed: Iterable[str], where: str) -> None:
    """Raise a ValueError that names the first variable of `needed` that is absent or has other dims than the schema's."""
    for name in needed:
        if name not in dataset:
            raise ValueError(f"{where}: has no {name}; it was extracted without it. Add it to extract.store and extract again")
        found, expected = dataset[name].dims, FEATURES[name].dims
        if found != expected:
            raise ValueError(f"{where}: {name} has dims {found}; expected {expected}")
