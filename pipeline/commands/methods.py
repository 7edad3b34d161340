"""`atlas methods`: every method, target and position, in words."""

from __future__ import annotations

from collections.abc import Iterable

import click

from pipeline.commands.markdown import table
from stages.cam.methods import METHODS, CamMethod
from stages.targets.names import BASES, MODIFIERS

_WHERE = {
    "anywhere": "patch, aligned, part, blocks",
    "maps": "patch, aligned, part",
    "aligned": "aligned",
    "blocks": "blocks",
}
_POSITIONS = {
    "patch": ("the patch tokens before FAM", "photo"),
    "aligned": ("the map after FAM, which the part heads see", "aligned; carried back to the photo when drawn"),
    "part": ("the part features after FPM, each painted on its ring", "aligned"),
    "block_N": ("the tokens after transformer block N (the first is 0): maps of extract.blocks, gradients of extract.gradient_targets", "photo"),
}


def methods() -> None:
    """Print every method, target and position: what it is, where it exists, what it needs, what it costs, and whether it is exact."""
    click.echo(methods_page(), nl=False)


def methods_page() -> str:
    """Return the page as Markdown: a table each of methods, targets, modifiers and positions."""
    sections = [
        ("Methods", ("method", "map, before the last ReLU", "where", "needs", "exact", "cost", "source", "note"), _methods()),
        ("Targets", ("target", "score"), ([f"`{_shown(key)}`", row.meaning] for key, row in BASES.items())),
        ("Modifiers", ("modifier", "meaning"), ([f"`.{key}`", words] for key, words in MODIFIERS.items())),
        ("Positions", ("position", "what lies there", "frame"), ([f"`{key}`", *words] for key, words in _POSITIONS.items())),
    ]
    return "\n\n".join(f"### {title}\n\n{table(head, rows)}" for title, head, rows in sections) + "\n"


def _methods() -> Iterable[list[str]]:
    for name, method in METHODS.items():
        exact = "yes" if method.exact else "-"
        yield [f"`{name}`", _formula(method), _WHERE[method.where], _needs(method), exact, method.cost, method.source, method.note or "-"]


def _formula(method: CamMethod) -> str:
    first = (method.formula.__doc__ or "").strip().splitlines()[0]
    return first.removesuffix(".").replace("|", "\\|")


def _needs(method: CamMethod) -> str:
    if method.reads:
        return f"`{method.reads}` in extract.store"
    return "a target" if method.kind == "gradient" else "-"


def _shown(key: str) -> str:
    return key if not key.endswith("_") else f"{key}{'NAME' if BASES[key].kind == 'class' else 'ID'}"
