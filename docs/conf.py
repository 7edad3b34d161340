"""Sphinx configuration: the pages of docs/, and an API reference from the docstrings. `make docs` builds both into build/docs."""

import re
from typing import Any

project = "Safe-Net Atlas"
author = "the authors of Safe-Net Atlas"
extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode"]

root_doc = "index"
templates_path = ["_templates"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # numpydoc sections give types with shapes and units
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # autodoc lists them

html_theme = "pydata_sphinx_theme"
html_title = project
html_theme_options = {"show_toc_level": 2, "navigation_depth": 2}


def escape_bars(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Escape the bars of |A| outside of literals: reStructuredText takes them for a substitution."""
    lines[:] = [re.sub(r"(`[^`]*`)|\|", lambda found: found[1] or r"\|", line) for line in lines]


def setup(app: Any) -> None:
    """Register `escape_bars`."""
    app.connect("autodoc-process-docstring", escape_bars)
