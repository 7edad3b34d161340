"""The version of the heat maps: it is raised when numbers change, for the maps whose numbers change and no others."""

from __future__ import annotations

from safenet.architecture import Sampling
from stages.cam.compute import needed_features
from stages.cam.products import Product

VERSION = 4


def version_of(product: Product, sampling: Sampling, version: int = VERSION) -> int:
    """Return the version of a map as `version` of the stage makes it.

    Version 4 changed the last digits of what passes bilinear sampling; every other map is still that of version 3.
    """
    passes_bilinear_sampling = sampling == "bilinear" and "theta" in needed_features([product])
    return 3 if version == 4 and not passes_bilinear_sampling else version
