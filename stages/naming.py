"""Names that users type: refused with the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def known(name: str, names: Iterable[str], where: str) -> str:
    """Return `name` if it is one of `names`, else raise a ValueError that names the nearest one.

    Raises
    ------
    ValueError
        "<where>: 'grad_cm' is unknown. Did you mean 'grad_cam'? Known: ..."
    """
    choices = sorted(names)
    if name in choices:
        return name
    raise ValueError(f"{where}: {name!r} is unknown.{suggestion(name, choices)} Known: {', '.join(choices)}")


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return " Did you mean 'x'?", empty where nothing is near."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
