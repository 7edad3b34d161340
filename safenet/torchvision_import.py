"""Make `import torchvision` (which timm needs) work beside a CPU-only torch.

The published torchvision wheels are built against CUDA. Beside a CPU-only torch their compiled operators do not
load, and the import stops with "operator torchvision::nms does not exist", because Python code of torchvision
attaches to two operator schemas that only the compiled library declares. Declaring the schemas is enough: nothing
here ever calls the operators.
"""

from __future__ import annotations

import importlib
import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # torch forgets the schemas when the Library object is collected


def ensure_torchvision() -> None:
    """Import torchvision; when its own import fails because its operators are missing, declare their schemas and import again.

    Raises
    ------
    ImportError
        If torchvision is missing.
    RuntimeError
        If the import fails for any other reason than the two operators.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declare_schemas()
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # half-imported
        importlib.import_module("torchvision")


def _declare_schemas() -> None:
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _declared.append(library)
