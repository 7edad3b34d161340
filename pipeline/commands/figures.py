"""`atlas figures`: every figure of an image, a map, a query and a group of maps, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

from pipeline.commands.markdown import table
from stages.stats.figures import DRIFT_FIGURES, GROUP_FIGURES, IMAGE_FIGURES, MAP_FIGURES, Figure
from stages.stats.retrieval import QUERY_FIGURES

_HEAD = ("figure", "of an image", "which maps", "frame", "unit", "of a group")


def figures() -> None:
    """Print every figure: what it is, which maps have it, its frame and unit, and what becomes of it over a group of images."""
    click.echo(figures_page(), nl=False)


def figures_page() -> str:
    """Return the page as Markdown: a table each of the figures of maps, of maps at two checkpoints, of images, of queries and of groups."""
    sections = [
        ("Of one map of an image", _HEAD, _rows(MAP_FIGURES)),
        ("Of one map of an image at two checkpoints", _HEAD, _rows(DRIFT_FIGURES)),
        ("Of an image, whatever the map", _HEAD, _rows(IMAGE_FIGURES)),
        ("Of an image as a query", ("figure", "of an image"), ([f"`{name}`", meaning] for name, meaning in QUERY_FIGURES.items())),
        ("Of all maps of a group", ("figure", "what it is", "unit"), ([f"`{key}`", row.meaning, row.unit] for key, row in GROUP_FIGURES.items())),
    ]
    return "\n\n".join(f"### {title}\n\n{table(head, rows)}" for title, head, rows in sections) + "\n"


def _rows(figures: Mapping[str, Figure]) -> Iterable[list[str]]:
    for name, row in figures.items():
        reductions = ", ".join(f"{one.function.__name__.replace('_', ' ')}" + (f" (`{one.name}`)" if one.name else "") for one in row.reductions)
        yield [f"`{name}`", row.meaning.replace("|", "\\|"), row.which, row.frame or "-", row.unit, reductions]
