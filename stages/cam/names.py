"""The names of methods and positions: all that settings need to know about them."""

from __future__ import annotations

from stages.naming import known

METHOD_NAMES = (  # the keys of METHODS in stages/cam/methods.py
    "l2_norm", "l2_norm_source", "max", "mean", "sum", "eigen_cam", "cls_attention", "rollout", "grad_cam", "hires_cam", "layer_cam", "element_wise",
    "grad_cam_pp", "xgrad_cam", "ablation_cam", "eigen_grad_cam", "finer_cam", "token_deletion",
)  # fmt: skip
POSITION_NAMES = ("patch", "aligned", "part")  # the keys of POSITIONS in stages/cam/positions.py
BLOCK_PREFIX = "block_"
ON_ALIGNED_GRID = frozenset({"aligned", "part"})  # the other positions lie on the patch grid, the photo's frame


def check_position(position: str, where: str) -> str:
    """Return `position` if it is one, else raise a ValueError that names the setting `where` and the nearest known position."""
    return position if block_number(position) is not None else known(position, [*POSITION_NAMES, f"{BLOCK_PREFIX}<i>"], where)


def block_number(position: str) -> int | None:
    """Return i of "block_<i>", None for any other position."""
    number = position.removeprefix(BLOCK_PREFIX)
    return int(number) if position.startswith(BLOCK_PREFIX) and number.isdecimal() else None
